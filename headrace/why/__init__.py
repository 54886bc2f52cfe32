"""Why something is so: the chain of events behind it, from the first on, in sentences. Records in, sentences out."""
