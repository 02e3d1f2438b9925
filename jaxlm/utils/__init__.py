"""Files, checksums, timing, terminal output, signals and key helpers; nothing here knows a model."""
