"""Releases, versions, aliases."""
