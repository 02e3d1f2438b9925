"""Atomic files, checksums, timing, terminal output, signals and key helpers; independent of the models."""
