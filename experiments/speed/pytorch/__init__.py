"""Time the same work in jaxlm and in PyTorch."""
