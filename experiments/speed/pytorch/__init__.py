"""The same work in jaxlm and in PyTorch."""
