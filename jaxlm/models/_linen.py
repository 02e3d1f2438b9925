"""The base class and the initializer of the package's Flax modules."""

import dataclasses
from typing import Any

from flax import linen as nn


class FrozenModule(nn.Module):
    """A Linen module with read-only hyperparameters. Linen itself freezes a module only while it is bound."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Linen sets its own fields `name` and `parent` when it binds a module.
        hyperparameters = {field.name for field in dataclasses.fields(self)} - {"name", "parent"}
        if name in hyperparameters and name in vars(self):
            raise dataclasses.FrozenInstanceError(
                f"cannot assign to {name}; make another model with model.copy({name}={value!r})"
            )
        super().__setattr__(name, value)


def small_init() -> nn.initializers.Initializer:
    """Return a normal initializer of variance 0.01 / fan_in, which makes a fresh model nearly uniform."""
    return nn.initializers.variance_scaling(0.01, "fan_in", "normal")
