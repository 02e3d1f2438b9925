"""Train states, the training step, the loop, optimizers and sweeps."""
