"""Any model and any decision again from the log: which model a name means, its fold, the replay of decisions."""
