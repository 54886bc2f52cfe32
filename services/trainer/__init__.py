"""Learns online; snapshots of all runs at one offset."""
