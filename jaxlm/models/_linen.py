"""What Linen leaves to its users, and every rung needs."""

import dataclasses
from typing import Any

from flax import linen as nn


class FrozenModule(nn.Module):
    """A Linen module whose hyper-parameters stay as they were given; Linen itself freezes bound modules only."""

    def __setattr__(self, name: str, value: Any) -> None:
        # `name` and `parent` are Linen's own fields, which it sets as it binds a module.
        given = {field.name for field in dataclasses.fields(self)} - {"name", "parent"}
        if name in given and name in vars(self):
            raise dataclasses.FrozenInstanceError(
                f"cannot assign to {name}: make another model, as with model.copy({name}={value!r})"
            )
        super().__setattr__(name, value)


def small_init() -> nn.initializers.Initializer:
    """Normal, of variance 0.01 / fan_in: inputs of size one give logits near zero, so a fresh model is uniform."""
    return nn.initializers.variance_scaling(0.01, "fan_in", "normal")
