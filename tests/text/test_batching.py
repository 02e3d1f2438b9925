"""Ids are checked before they are used, split by position, and drawn as random windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import TokenStream, check_ids, get_batch, split_ids, windows
from jaxlm.text.batching import check_stream, starts_of


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.uint64])
def test_check_ids_casts_every_integer_type(dtype):
    checked = check_ids(np.array([[0, 2, 1]], dtype), vocab_size=3)
    assert checked.dtype == np.int32
    np.testing.assert_array_equal(checked, [[0, 2, 1]])


def test_check_ids_keeps_array_kind_and_shape():
    checked = check_ids(jnp.array([0, 2, 1], jnp.uint8), vocab_size=3)
    assert isinstance(checked, jax.Array)
    assert checked.dtype == jnp.int32
    assert [check_ids(ids, vocab_size=3).shape for ids in ([], np.zeros((2, 0), int), 2)] == [(0,), (2, 0), ()]


@pytest.mark.parametrize(
    ("ids", "worst"), [([0, 3, 4], 4), ([2, -1, -7], -7), ([3], 3), ([-1], -1), ([2**32], 2**32)]
)
def test_check_ids_names_the_worst_id_and_the_limit(ids, worst):
    for array in (ids, jnp.array(ids)) if worst < 2**31 else (np.array(ids),):
        with pytest.raises(ValueError, match=rf"ids: {worst} is outside 0\.\.2; encode the text"):
            check_ids(array, vocab_size=3)


def test_check_ids_refuses_ids_above_int32():
    with pytest.raises(ValueError, match=r"2147483648 is outside 0\.\.2147483647"):
        check_ids([2**31], vocab_size=2**33)


@pytest.mark.parametrize("ids", [np.array([0.0, 1.0]), jnp.array([0.0]), np.array([True]), ["a"]])
def test_check_ids_refuses_other_types(ids):
    with pytest.raises(TypeError, match="prompt must be integers"):
        check_ids(ids, vocab_size=3, name="prompt")


@pytest.mark.parametrize("ids", [[[1, 2], [0]], np.array([[1, 2], [0]], object)])
def test_check_ids_of_rows_with_different_lengths(ids):
    with pytest.raises(ValueError, match=r"^prompt: the rows have different lengths; make them equal, or call"):
        check_ids(ids, 3, name="prompt")


def test_check_ids_of_a_column_of_lists():
    """`pandas.DataFrame.to_numpy` makes such an array of objects."""
    column = np.empty(2, object)
    column[:] = [[1, 2], [0, 1]]
    np.testing.assert_array_equal(check_ids(column, 3), [[1, 2], [0, 1]])


def test_check_ids_is_a_host_function():
    with pytest.raises(TypeError, match="check_ids does not work inside jit, vmap or grad; use ids that were"):
        jax.jit(lambda ids: check_ids(ids, 3))(np.array([0, 1]))


def test_check_stream_checks_rank_and_length():
    assert check_stream(np.array([1, 0, 1]), 2, min_length=3).shape == (3,)
    with pytest.raises(ValueError, match=r"val_ids must have at least 4 tokens .*, got 3"):
        check_stream(np.array([1, 0, 1]), 2, min_length=4, name="val_ids")
    with pytest.raises(ValueError, match=r"shape \[T\], got shape \[2, 3\]"):
        check_stream(np.zeros((2, 3), np.int32), 2, min_length=1)


@pytest.mark.parametrize(
    ("length", "val_fraction", "num_train"),
    [(20, 0.1, 18), (10, 0.1, 9), (30, 0.1, 27), (11, 0.1, 9), (2, 0.5, 1), (7, 0.25, 5), (100, 0.07, 93)],
)
def test_split_ids_validates_on_the_last_part(length, val_fraction, num_train):
    train_ids, val_ids = split_ids(np.arange(length), val_fraction)
    np.testing.assert_array_equal(train_ids, np.arange(num_train))
    np.testing.assert_array_equal(val_ids, np.arange(num_train, length))


def test_split_ids_default_and_array_types():
    assert [len(part) for part in split_ids(np.arange(1000))] == [900, 100]
    assert all(isinstance(part, jax.Array) for part in split_ids(jnp.arange(10)))
    assert all(part.dtype == np.uint16 for part in split_ids(np.arange(10, dtype=np.uint16)))


@pytest.mark.parametrize(
    ("ids", "val_fraction", "error", "message"),
    [
        *[(np.arange(9), each, ValueError, rf"in \(0, 1\), got {each}") for each in (0, 1, np.nan)],
        (np.arange(1), 0.1, ValueError, r"1 ids cannot be split with val_fraction=0\.1"),
        ([], 0.5, ValueError, r"0 ids cannot be split"),
        (np.arange(20.0), 0.1, TypeError, "float64"),
    ],
)
def test_split_ids_refuses(ids, val_fraction, error, message):
    with pytest.raises(error, match=message):
        split_ids(ids, val_fraction)


@pytest.mark.course
def test_get_batch_shapes_and_types():
    contexts, targets = get_batch(np.arange(100), 3, 64, key=jax.random.key(0))
    assert (contexts.shape, targets.shape) == ((64, 3), (64,))
    assert contexts.dtype == targets.dtype == jnp.int32


@pytest.mark.course
@pytest.mark.parametrize("context_length", [0, 1, 3])
def test_get_batch_targets_follow_their_contexts(context_length):
    contexts, targets = get_batch(np.arange(100), context_length, 64, key=jax.random.key(1))
    expected = np.asarray(targets)[:, None] - np.arange(context_length, 0, -1)
    np.testing.assert_array_equal(contexts, expected)


@pytest.mark.course
def test_get_batch_same_key_same_batch():
    ids = np.random.default_rng(0).integers(0, 9, 100)
    first, again, other = (get_batch(ids, 3, 64, key=jax.random.key(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_get_batch_starts_are_uniform():
    """Of 20,000 draws from 10 windows, each is drawn 2,000 times within 5 standard deviations of 42.4."""
    _, targets = get_batch(np.arange(13), 3, 20_000, key=jax.random.key(2))
    drawn = np.bincount(np.asarray(targets), minlength=13)
    np.testing.assert_array_equal(drawn[:3], 0)
    assert abs(drawn[3:] - 2000).max() < 5 * 42.4


def test_get_batch_of_the_only_window():
    contexts, targets = get_batch(jnp.array([5, 6, 7], jnp.uint16), 2, 3, key=jax.random.key(0))
    np.testing.assert_array_equal(contexts, [[5, 6]] * 3)
    np.testing.assert_array_equal(targets, [7] * 3)


def test_get_batch_reads_only_the_batch_of_a_file(tmp_path):
    """A copy of the whole as int32 would take 8 GiB."""
    with (tmp_path / "ids").open("wb") as file:
        file.truncate(2**31)
    ids = np.memmap(tmp_path / "ids", np.uint8, "r")
    contexts, targets = get_batch(ids[: 2**31 - 9], 3, 2, key=jax.random.key(0))
    assert (contexts.shape, targets.shape) == ((2, 3), (2,))
    same = get_batch(jnp.arange(50), 3, 2, key=jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, get_batch(np.arange(50), 3, 2, key=jax.random.key(0)), same)


@pytest.mark.parametrize("num_windows", [2**31, 2**33 + 5, 2**62 - 1])
def test_starts_of_two_words_are_their_remainder(num_windows):
    words = np.random.default_rng(0).integers(0, 2**32, (3, 4, 2), np.uint32)
    expected = [[(int(high) * 2**32 + int(low)) % num_windows for high, low in row] for row in words]
    assert starts_of(words, num_windows).tolist() == expected


def test_get_batch_draws_from_more_than_2_to_the_31_tokens():
    """The arrays have a stride of 0, so they take no memory. Of 4,000 windows, 3,000 +- 27 are in the second."""
    shards = tuple(np.broadcast_to(np.uint8(token), length) for token, length in enumerate([2**31, 3 * 2**31]))
    stream = TokenStream(shards, vocab_size=2)
    _, targets = get_batch(stream, 3, 4000, key=jax.random.key(0))
    assert abs(int(targets.sum()) - 3000) < 5 * 27
    again = get_batch(stream, 3, 4000, key=jax.random.key(0))
    np.testing.assert_array_equal(again.targets, targets)


@pytest.mark.parametrize("array", [np, jnp])
def test_get_batch_under_jit_and_vmap(array):
    ids = array.arange(100)
    alone = [get_batch(ids, 3, 64, key=jax.random.key(seed)) for seed in range(4)]
    jitted = jax.jit(get_batch, static_argnums=(1, 2))(ids, 3, 64, key=jax.random.key(2))
    jax.tree.map(np.testing.assert_array_equal, jitted, alone[2])
    mapped = jax.vmap(lambda seed: get_batch(ids, 3, 64, key=jax.random.key(seed)))(np.arange(4))
    jax.tree.map(np.testing.assert_array_equal, mapped, jax.tree.map(lambda *each: np.stack(each), *alone))


@pytest.mark.parametrize(
    ("ids", "arguments", "error", "message"),
    [
        (np.arange(3), (3, 2), ValueError, "ids must have at least 4 tokens .*, got 3"),
        (np.arange(9), (-1, 2), ValueError, "context_length must be at least 0, got -1"),
        (np.arange(9), (3, 0), ValueError, "batch_size must be at least 1, got 0"),
        (np.array([0, -1, 2, 3]), (2, 2), ValueError, "-1 is outside"),
        (jnp.arange(9.0), (3, 2), TypeError, "float32"),
    ],
)
def test_get_batch_refuses(ids, arguments, error, message):
    with pytest.raises(error, match=message):
        get_batch(ids, *arguments, key=jax.random.key(0))


def test_get_batch_needs_a_key():
    with pytest.raises(TypeError, match=r"key must be a random key such as jax\.random\.key\(0\), got 5"):
        get_batch(np.arange(9), 3, 2, key=5)
    legacy = get_batch(np.arange(9), 3, 2, key=jax.random.PRNGKey(5))
    jax.tree.map(np.testing.assert_array_equal, legacy, get_batch(np.arange(9), 3, 2, key=jax.random.key(5)))


@pytest.mark.parametrize("context_length", [0, 1, 3])
def test_windows_are_all_windows_in_order(context_length):
    ids = np.array([5, 3, 8, 2, 2], np.uint16)
    expected = [(ids[i : i + context_length].tolist(), ids[i + context_length]) for i in range(5 - context_length)]
    for found in (windows(ids, context_length), jax.jit(lambda ids: windows(ids, context_length))(ids)):
        assert (found.contexts.dtype, found.targets.dtype) == (np.int32, np.int32)
        assert list(zip(found.contexts.tolist(), found.targets.tolist(), strict=True)) == expected
    with pytest.raises(ValueError, match=r"ids must have at least 6 tokens .*, got 5"):
        windows(ids, 5)


def test_device_array_needs_no_host_array():
    def draw(ids, key):
        return get_batch(ids, 3, 2, key=key), windows(ids, 3)

    ids, key = jnp.arange(50), jax.random.key(0)
    assert jax.make_jaxpr(draw)(ids, key).consts == []
    with jax.transfer_guard("disallow"):
        draw(ids, key)
