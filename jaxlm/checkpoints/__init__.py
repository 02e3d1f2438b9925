"""Train states and model files on disk."""
