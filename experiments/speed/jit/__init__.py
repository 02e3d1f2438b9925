"""What `jit` buys, stage by stage."""
