"""The files that `headrace init` writes."""
