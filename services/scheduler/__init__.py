"""Ticks: minutes and cron."""
