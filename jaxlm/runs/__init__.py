"""Run directories: create, train, resume, load and report."""
