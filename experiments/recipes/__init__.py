"""Recipes of training, each a file of options: `jaxlm train --config experiments/recipes/minute.json`."""

from pathlib import Path

from jaxlm.config import TrainConfig, read_config


def recipe_config(name: str) -> TrainConfig:
    """The options of `NAME.json` beside this file; what it leaves out has its default."""
    return read_config(Path(__file__).with_name(f"{name}.json"))
