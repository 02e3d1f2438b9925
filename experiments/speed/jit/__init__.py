"""The speed of each stage with and without `jit`."""
