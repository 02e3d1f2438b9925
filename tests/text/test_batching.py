"""Ids are checked before anything reads them, split by position, and cut into random windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxlm import check_ids, get_batch, split_ids
from jaxlm.text.batching import check_stream


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint16, np.int32, np.int64, np.uint64])
def test_check_ids_takes_every_integer_type(dtype):
    checked = check_ids(np.array([0, 2, 1], dtype), vocab_size=3)
    assert checked.dtype == np.int32
    np.testing.assert_array_equal(checked, [0, 2, 1])


def test_check_ids_leaves_a_jax_array_where_it_lies():
    checked = check_ids(jnp.array([0, 2, 1], jnp.uint8), vocab_size=3)
    assert isinstance(checked, jax.Array)
    assert checked.dtype == jnp.int32


@pytest.mark.parametrize("shape", [(0,), (2, 0), (2, 3), ()])
def test_check_ids_keeps_the_shape(shape):
    assert check_ids(np.zeros(shape, np.int64), vocab_size=1).shape == shape


@pytest.mark.parametrize("module", [np, jnp])
@pytest.mark.parametrize(("ids", "worst"), [([0, 3, 4, 1], 4), ([2, -1, -7], -7), ([3], 3)])
def test_check_ids_names_the_worst_id_and_the_limit(module, ids, worst):
    with pytest.raises(ValueError, match=rf"ids: {worst} is outside 0\.\.2.*vocab_size=3"):
        check_ids(module.array(ids), vocab_size=3)


def test_check_ids_sees_ids_that_int32_would_wrap():
    with pytest.raises(ValueError, match=str(2**32)):
        check_ids(np.array([2**32]), vocab_size=3)


@pytest.mark.parametrize("ids", [np.array([0.0, 1.0]), jnp.array([0.0]), np.array([True]), ["a"]])
def test_check_ids_of_another_kind_are_a_type_error(ids):
    with pytest.raises(TypeError, match="prompt must be integers"):
        check_ids(ids, vocab_size=3, name="prompt")


def test_check_stream_wants_one_stream_that_is_long_enough():
    assert check_stream(np.array([1, 0, 1]), 2, min_length=3).shape == (3,)
    with pytest.raises(ValueError, match=r"val_ids: 3 tokens.*need 4"):
        check_stream(np.array([1, 0, 1]), 2, min_length=4, name="val_ids")
    with pytest.raises(ValueError, match=r"shape \[T\], got shape \[2, 3\]"):
        check_stream(np.zeros((2, 3), np.int32), 2, min_length=1)


@pytest.mark.parametrize(
    ("length", "val_fraction", "num_train"),
    [(20, 0.1, 18), (10, 0.1, 9), (30, 0.1, 27), (11, 0.1, 9), (2, 0.5, 1), (7, 0.25, 5), (100, 0.29, 71)],
)
def test_split_ids_keeps_the_last_part_for_validation(length, val_fraction, num_train):
    train_ids, val_ids = split_ids(np.arange(length), val_fraction)
    np.testing.assert_array_equal(train_ids, np.arange(num_train))
    np.testing.assert_array_equal(val_ids, np.arange(num_train, length))


def test_split_ids_holds_out_a_tenth_unless_told():
    assert [len(part) for part in split_ids(np.arange(1000))] == [900, 100]


def test_split_ids_keeps_the_kind_of_array():
    assert all(isinstance(part, jax.Array) for part in split_ids(jnp.arange(10)))
    assert all(part.dtype == np.uint16 for part in split_ids(np.arange(10, dtype=np.uint16)))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 10**6), st.floats(0.01, 0.99))
def test_split_ids_loses_nothing_and_never_leaves_a_part_empty(length, val_fraction):
    ids = np.broadcast_to(np.int32(0), length)
    try:
        train_ids, val_ids = split_ids(ids, val_fraction)
    except ValueError:
        assert length * (1 - val_fraction) < 1
        return
    assert len(train_ids) > 0
    assert len(train_ids) + len(val_ids) == length
    assert -1e-5 <= len(val_ids) - length * val_fraction <= 1


@pytest.mark.parametrize("val_fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_split_ids_refuses_a_fraction_out_of_range(val_fraction):
    with pytest.raises(ValueError, match=f"between 0 and 1, got {val_fraction}"):
        split_ids(np.arange(10), val_fraction)


@pytest.mark.parametrize("length", [0, 1])
def test_split_ids_refuses_an_empty_part(length):
    with pytest.raises(ValueError, match=rf"{length} ids cannot be split with val_fraction=0\.1"):
        split_ids(np.arange(length))


def test_split_ids_refuses_a_batch():
    with pytest.raises(ValueError, match=r"got shape \[4, 5\]"):
        split_ids(np.zeros((4, 5), np.int32))


def test_split_ids_refuses_floats():
    with pytest.raises(TypeError, match="float64"):
        split_ids(np.arange(20.0))


@pytest.mark.course
def test_get_batch_shapes_and_types():
    contexts, targets = get_batch(np.arange(50), 3, 4, key=jax.random.key(0))
    assert (contexts.shape, targets.shape) == ((4, 3), (4,))
    assert contexts.dtype == targets.dtype == jnp.int32


@pytest.mark.course
@pytest.mark.parametrize("context_length", [0, 1, 3])
def test_get_batch_targets_follow_their_contexts(context_length):
    contexts, targets = get_batch(np.arange(100), context_length, 64, key=jax.random.key(1))
    expected = np.asarray(targets)[:, None] - np.arange(context_length, 0, -1)
    np.testing.assert_array_equal(contexts, expected)


@pytest.mark.course
def test_get_batch_same_key_same_batch():
    ids = np.random.default_rng(0).integers(0, 9, 1000)
    first, again, other = (get_batch(ids, 2, 32, key=jax.random.key(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_get_batch_starts_are_uniform_over_every_window():
    """10 windows, 20,000 draws: each is within 5 standard deviations (42.4) of 2,000, the first and last too."""
    _, targets = get_batch(np.arange(13), 3, 20_000, key=jax.random.key(2))
    drawn = np.bincount(np.asarray(targets), minlength=13)
    np.testing.assert_array_equal(drawn[:3], 0)
    assert abs(drawn[3:] - 2000).max() < 5 * 42.4


def test_get_batch_of_the_only_window():
    contexts, targets = get_batch(np.array([5, 6, 7], np.uint16), 2, 3, key=jax.random.key(0))
    np.testing.assert_array_equal(contexts, [[5, 6]] * 3)
    np.testing.assert_array_equal(targets, [7] * 3)


def test_get_batch_works_under_jit():
    ids = jnp.arange(40)
    jitted = jax.jit(get_batch, static_argnums=(1, 2))(ids, 3, 8, key=jax.random.key(5))
    plain = get_batch(ids, 3, 8, key=jax.random.key(5))
    jax.tree.map(np.testing.assert_array_equal, jitted, plain)


def test_get_batch_works_under_vmap():
    seeds = jnp.arange(4)
    contexts, targets = jax.vmap(lambda seed: get_batch(jnp.arange(99), 2, 5, key=jax.random.key(seed)))(seeds)
    assert contexts.shape == (4, 5, 2)
    for seed in range(4):
        _, alone = get_batch(np.arange(99), 2, 5, key=jax.random.key(seed))
        np.testing.assert_array_equal(targets[seed], alone)


@pytest.mark.parametrize("length", [0, 1, 3])
def test_get_batch_refuses_a_stream_without_a_window(length):
    with pytest.raises(ValueError, match=rf"shape \[{length}\].*context_length \+ 1 = 4"):
        get_batch(np.arange(length), 3, 2, key=jax.random.key(0))


@pytest.mark.parametrize("batch_size", [0, -1])
def test_get_batch_refuses_an_empty_batch(batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        get_batch(np.arange(9), 3, batch_size, key=jax.random.key(0))


def test_get_batch_refuses_floats():
    with pytest.raises(TypeError, match="float32"):
        get_batch(np.arange(9, dtype=np.float32), 3, 2, key=jax.random.key(0))
