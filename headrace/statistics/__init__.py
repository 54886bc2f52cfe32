"""Pure statistics, each short and tested against scipy, River or the definition: what the folds decide by."""
