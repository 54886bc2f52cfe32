"""Example pipelines with their data, which `headrace demo` runs and tests pin."""
