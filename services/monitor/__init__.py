"""The monitor: what changed in the inputs, the predictions, the losses and the flow of labels."""
