"""One experiment per question about the models."""
