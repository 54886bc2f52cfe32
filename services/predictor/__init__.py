"""One prediction for every example, by every arm."""
