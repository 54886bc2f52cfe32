"""Decides the order of control events."""
