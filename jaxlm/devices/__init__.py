"""Choose the device to compute on, and probe accelerator plugins."""
