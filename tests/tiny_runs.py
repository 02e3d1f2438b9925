"""A training run of 12 steps, ways to interrupt and damage it, and comparisons to the bit."""

import io
import json
import signal

import jax
import numpy as np
from rich.console import Console

from jaxlm.checkpoints.train_states import checkpoint_steps
from jaxlm.runs.config import TrainConfig, resolve
from jaxlm.runs.load import load_model
from jaxlm.runs.manifest import read_manifest

QUIET = Console(quiet=True)
_TEXT = "the cat sat on the mat; the dog ran after the cat\n" * 8


def tiny_config(folder, **options):
    """Return the options of an MLP that records after steps 1, 6, 11 and 12 and saves after steps 4, 8 and 12."""
    text = folder / "text.txt"
    if not text.exists():
        text.write_text(_TEXT, "utf-8")
    sizes = {"context_length": 2, "embedding_dim": 2, "hidden_dim": 4, "batch_size": 4, "tokenizer": "char"}
    times = {"num_steps": 12, "log_every": 5, "save_every": 4, "save_seconds": 600.0, "keep": 3}
    # With this seed the best validation is neither the first nor the last.
    return resolve(TrainConfig(**({"text": text, "device": "cpu", "seed": 10, **sizes, **times} | options)))


class _WatchedFile(io.StringIO):
    def __init__(self, trigger, action):
        super().__init__()
        self.trigger, self.action = trigger, action

    def write(self, text):
        if self.trigger in text:
            self.action()
        return super().write(text)


def call_when(trigger, action, **options):
    """Return a console that calls `action` when it prints `trigger`."""
    return Console(file=_WatchedFile(trigger, action), width=300, **options)


def signal_when(trigger, signum, **options):
    """Return a console that sends a signal to this process when it prints `trigger`."""
    return call_when(trigger, lambda: signal.raise_signal(signum), **options)


def bits(tree):
    """Return dtype, shape and bytes of every array of a pytree."""
    return [(str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


def read_json(path):
    """Parse JSON strictly: Infinity and NaN are errors."""

    def reject(constant):
        raise ValueError(constant)

    return json.loads(path.read_text("utf-8"), parse_constant=reject)


def contents(path):
    """Return the content of every file below `path`, by relative path."""
    return {each.relative_to(path): each.read_bytes() for each in sorted(path.rglob("*")) if each.is_file()}


def flip_bit(path, position=3):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def assert_same_run(run, other):
    """Assert that two finished runs have the same log, sample, tokenizer, model and checkpoints."""
    names = ("metrics.jsonl", "samples.txt", "jaxlm_tokenizer.json")
    assert [(run / name).read_bytes() for name in names] == [(other / name).read_bytes() for name in names]
    assert {read_manifest(each)["state"] for each in (run, other)} == {"done"}
    folder, other_folder = run / "checkpoints", other / "checkpoints"
    assert checkpoint_steps(folder)[-1] == checkpoint_steps(other_folder)[-1]
    for checkpoint in ("final", "last", "best"):
        assert bits(load_model(run, checkpoint)[1]) == bits(load_model(other, checkpoint)[1]), checkpoint
