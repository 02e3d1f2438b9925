"""One runnable file for each question."""
