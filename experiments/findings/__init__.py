"""Experiments on what the models learn: one question per file."""
