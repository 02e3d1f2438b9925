"""Sweeps: plan many runs, train them together or one by one, and summarize them."""
