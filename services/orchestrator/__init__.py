"""Starts trainings."""
