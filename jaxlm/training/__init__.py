"""Train states, the training step, the training loop, optimizers and sweeps."""
