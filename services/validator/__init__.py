"""The validator: no record that breaks its contract, and no repeat, reaches a model."""
