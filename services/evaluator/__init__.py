"""Scores arms and runs the gates."""
