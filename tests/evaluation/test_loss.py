"""Nats of a target, and bits per byte, against closed forms."""

import math
import re

import jax.numpy as jnp
import pytest

from jaxlm import bits_per_byte, token_nats

INF = math.inf


@pytest.mark.parametrize(
    ("row", "target", "nats"),
    [
        ([0.0, math.log(3)], 0, math.log(4)),
        ([50.0, -50.0], 1, 100),
        ([-1000.0, -1000.0], 0, math.log(2)),
        ([3e38, 3e38], 1, math.log(2)),
        ([0.0, -INF], 1, INF),
        ([0.0, -INF], 0, 0.0),
        ([-INF, -INF], 0, INF),
        ([0.0, math.nan], 0, math.nan),
    ],
)
def test_token_nats_is_minus_log_softmax(row, target, nats):
    logits = jnp.array([[0.0, 0.0], row, [-INF, 5.0]])
    found = token_nats(logits, jnp.array([0, target, 1])).tolist()
    assert found == pytest.approx([math.log(2), nats, 0], rel=1e-6, nan_ok=True)


@pytest.mark.parametrize(("logits", "targets"), [((3, 4), (1,)), ((3, 4), ()), ((3,), (3,)), ((1, 4), (3,))])
def test_token_nats_does_not_broadcast(logits, targets):
    with pytest.raises(
        ValueError, match=re.escape(f"[B, V] and targets [B], got {list(logits)} and {list(targets)}")
    ):
        token_nats(jnp.zeros(logits), jnp.zeros(targets, int))


@pytest.mark.parametrize(
    ("nats", "bytes_per_token", "bits"), [(math.log(2), 1, 1), (math.log(2), 4, 0.25), (math.log(256), 2, 4)]
)
def test_bits_per_byte(nats, bytes_per_token, bits):
    assert bits_per_byte(nats, bytes_per_token) == pytest.approx(bits, rel=1e-12)
