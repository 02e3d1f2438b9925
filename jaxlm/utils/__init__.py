"""Helpers that know nothing about models: files, checksums, timing, terminal output, signals, random keys."""
