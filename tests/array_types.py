"""Type checker for jaxtyping's import hook: check the array annotations in every call of the core."""

import inspect
from typing import get_args

from beartype import beartype
from jaxtyping import AbstractArray


def check_arrays(function):
    """Check the annotations that contain an array type. Functions check their other arguments themselves."""
    hints = function.__annotations__
    function.__annotations__ = {name: hint for name, hint in hints.items() if _names_array(hint)}
    return beartype(function)


def _names_array(hint) -> bool:
    return (inspect.isclass(hint) and issubclass(hint, AbstractArray)) or any(map(_names_array, get_args(hint)))
