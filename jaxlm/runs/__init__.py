"""A run directory, from configuration to report."""
