"""The joiner: brings late labels to their predictions."""
