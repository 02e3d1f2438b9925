"""Blocks hold the batches of `get_batch`, and training from memory maps has the bits of training from memory."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny_training import IDS, VOCAB, assert_same_bits, train, train_lm

import jaxlm
from jaxlm.training.blocks import iterate_blocks

BATCH_SIZE = 40_000  # a block then holds two steps of contexts of two tokens
DEVICE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def make_stream(path):
    """Return `IDS` as a stream of two memory maps."""
    for number, part in enumerate([IDS[:77], IDS[77:]]):
        np.save(path / f"{number}.npy", part.astype(np.uint16))
    return jaxlm.TokenStream(tuple(np.load(path / f"{number}.npy", mmap_mode="r") for number in range(2)), VOCAB)


@pytest.mark.parametrize("num_runs", [None, 2])
def test_blocks_hold_the_batches_of_get_batch(tmp_path, num_runs):
    def make_keys():  # not to reuse a key that was consumed
        return jax.random.split(jax.random.key(3), num_runs or 1)

    key, batch_size = (make_keys()[0], BATCH_SIZE) if num_runs is None else (make_keys(), BATCH_SIZE // 2)
    stream = make_stream(tmp_path)
    blocks = [*iterate_blocks(stream, 2, batch_size, range(3, 7), key=key, sharding=DEVICE)]
    assert [stop for stop, _ in blocks] == [4, 6, 7]
    for stop, block in blocks:
        for step in range((stop - 1) // 2 * 2, stop):
            windows = np.asarray(block[step % 2])
            for run, rows in enumerate(windows.reshape(-1, batch_size, 3)):
                expected = jaxlm.get_batch(IDS, 2, batch_size, key=jax.random.fold_in(make_keys()[run], step))
                np.testing.assert_array_equal(rows[:, :2], expected.contexts)
                np.testing.assert_array_equal(rows[:, 2], expected.targets)
    assert not np.asarray(blocks[-1][1][1]).any()


def test_blocks_of_more_than_2_to_the_31_tokens():
    """Arrays with a stride of 0 take no memory."""
    shards = tuple(np.broadcast_to(np.uint8(token), 2**31) for token in range(2))
    stream, key = jaxlm.TokenStream(shards, VOCAB), jax.random.key(3)
    (_, block), *_ = iterate_blocks(stream, 2, BATCH_SIZE, range(2), key=key, sharding=DEVICE)
    for step in range(2):
        expected = jaxlm.get_batch(stream, 2, BATCH_SIZE, key=jax.random.fold_in(jax.random.key(3), step))
        np.testing.assert_array_equal(block[step][:, 2], expected.targets)
    assert np.unique(block).tolist() == [0, 1]


def test_blocks_of_zero_steps():
    stream = jaxlm.TokenStream((IDS,), VOCAB)
    for steps in (range(0), range(3, 3)):
        assert not [*iterate_blocks(stream, 2, 32, steps, key=jax.random.key(0), sharding=DEVICE)]


def test_blocks_of_a_small_integer_batch_size():
    stream = jaxlm.TokenStream((IDS,), VOCAB)
    (_, block), *_ = iterate_blocks(stream, 2, np.int16(20_000), range(9), key=jax.random.key(0), sharding=DEVICE)
    assert block.shape == (4, 20_000, 3)


def test_train_lm_from_memory_maps_has_the_same_bits(tmp_path):
    stream = make_stream(tmp_path)
    expected, history = train_lm(val_ids=IDS[:50], log_every=1)
    trained, same_history = train_lm(ids=stream, val_ids=stream[:50], log_every=1)
    assert_same_bits(trained, expected)
    assert same_history == history
    assert_same_bits(train_lm(ids=np.load(tmp_path / "0.npy", mmap_mode="r"))[0], train_lm(ids=IDS[:77])[0])


def test_resume_within_a_block_has_the_same_bits(tmp_path):
    """A block holds two steps, and the second run starts at step 1."""
    options = {"ids": make_stream(tmp_path), "batch_size": BATCH_SIZE, "num_steps": 6}
    items = [*train(yield_every=1, **options)]
    assert [int(state.step) for state, _ in items] == [*range(7)]
    *_, (resumed, _) = train(state=items[1][0], log_every=6, **{**options, "ids": IDS})
    assert_same_bits(resumed.variables, items[-1][0].variables)


@pytest.mark.slow
def test_train_many_from_memory_maps_has_the_same_bits(tmp_path):
    options = {"keys": jax.random.split(jax.random.key(5), 2), "hyperparams": {"lr": [0.5, 0.3]}, "num_steps": 7}
    model = jaxlm.MLPLanguageModel(VOCAB, 2, 3, 4)
    expected, histories = jaxlm.train_many(model, IDS, **options)
    trained, same_histories = jaxlm.train_many(model, make_stream(tmp_path), **options)
    assert_same_bits(trained, expected)
    assert same_histories == histories


PROGRAM = """
import threading
import jax
from jaxlm import NeuralBigramLM, train, train_lm
arguments, key = (NeuralBigramLM(3, 4), [0, 1, 2] * 9), jax.random.key(0)
"""
# The generator is closed after the modules, when threads can no longer be joined.
UNFINISHED = """
training = train(*arguments, key=key, num_steps=10**6)
print([int(next(training)[0].step) for _ in range(2)])
"""
# When the main thread ends, Python's own pools of threads accept no more calls.
IN_A_THREAD = """
def run():
    print(train_lm(*arguments, key=key, num_steps=20_000, log_every=10**6)[1]["steps"])
threading.Thread(target=run).start()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("program", "output"), [(UNFINISHED, "[0, 1]\n"), (IN_A_THREAD, "[0, 19999]\n")])
def test_training_when_the_main_thread_ends(program, output):
    result = subprocess.run([sys.executable, "-c", PROGRAM + program], check=True, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == (output, "")
