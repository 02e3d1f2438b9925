"""Sizes, numbers and traced arguments are checked in one sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.utils.checks import check_at_least, check_not_traced, check_number


@pytest.mark.parametrize("value", [3, 4, np.int64(3), np.uint8(200), jnp.int32(3), 2**31 - 1])
def test_check_at_least_accepts_integers(value):
    check_at_least("num_steps", value, 3)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (2, ValueError, "^num_steps must be at least 3, got 2$"),
        (np.int32(-1), ValueError, "got -1$"),
        (2**31, ValueError, r"^num_steps must be below 2\*\*31, got 2147483648$"),
        (np.uint64(2**63), ValueError, "must be below"),
        (3.0, TypeError, "^num_steps must be an integer, got 3.0$"),
        (True, TypeError, "got True"),
    ],
)
def test_check_at_least_names_value_and_limit(value, error, message):
    with pytest.raises(error, match=message):
        check_at_least("num_steps", value, 3)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int64(2), np.array(2), jnp.float32(2)], ids=repr)
def test_check_number_returns_a_float(value):
    assert isinstance(check_number("rate", value), float)
    assert check_number("rate", value) == 2


@pytest.mark.parametrize("value", [None, "2", 2j, [2.0], np.ones(2), np.ones(1), jnp.ones(1)], ids=repr)
def test_check_number_names_the_value(value):
    with pytest.raises(TypeError, match="rate must be a number, got "):
        check_number("rate", value)


def test_check_not_traced_names_the_alternative():
    ones = jax.numpy.ones(2)
    check_not_traced("evaluate", "token_nats", {"ids": ones}, None, "cpu")
    with pytest.raises(TypeError, match=r"^evaluate does not work inside jit, vmap or grad; use token_nats\b"):
        jax.vmap(lambda x: check_not_traced("evaluate", "token_nats", {"ids": x}))(np.ones(2))
    with pytest.raises(TypeError, match=r"^evaluate does not work inside jit"):  # with no traced argument
        jax.jit(lambda _: check_not_traced("evaluate", "token_nats", ones))(1)
