"""A run of training that takes a moment, a way to stop it, and what makes two of them the same."""

import contextlib
import functools
from pathlib import Path

import jax
import numpy as np

from jaxlm.checkpoints.train_states import best_step, checkpoint_steps
from jaxlm.runs import artifacts, manifest as runs, session as saved_training, setup as jobs
from jaxlm.runs.config import TrainConfig, resolve
from jaxlm.runs.load import load_run
from jaxlm.runs.manifest import read_manifest
from jaxlm.training.loop import train_lm
from jaxlm.training.optimizers import sgd

_TEXT = "the cat sat on the mat; the dog ran after the cat\n" * 8


def tiny_config(folder, **options):
    """Records after steps 1, 6, 11 and 12, checkpoints after steps 4, 8 and 12, on a text in `folder`."""
    text = folder / "text.txt"
    if not text.exists():
        text.write_text(_TEXT, "utf-8")
    shape = {
        "schedule": "constant",
        "tokenizer": "char",
        "context_length": 2,
        "embedding_dim": 2,
        "hidden_dim": 4,
        "batch_size": 4,
    }
    times = {"num_steps": 12, "log_every": 5, "save_every": 4, "save_seconds": 600.0, "keep": 3}
    return resolve(TrainConfig(**({"text": text, "device": "cpu", **shape, **times} | options)))


def make_quick(patch):
    """The same optimizer again for the same options, so that nothing is compiled twice; no pictures, no git."""
    patch.setattr(runs, "_version", _version)
    patch.setattr(runs, "_git_commit", lambda: None)
    patch.setattr(jobs, "sgd", lambda lr, num_steps, **options: _sgd(lr, _used(num_steps, **options), **options))
    patch.setattr(artifacts, "plot_curves", lambda path, *_: path.write_bytes(b""))


_sgd = functools.cache(sgd)
_version = functools.cache(runs._version)


def _used(num_steps, *, schedule, **_):
    return num_steps if schedule == "cosine" else 0


@contextlib.contextmanager
def stopped_at(patch, step, name="SIGINT"):
    """Within it a run hears of a signal once it has done `step` steps, and ends as interrupted."""
    came = []

    def train_until(*arguments, on_pause, **options):
        def pause(state):
            if int(state.step) >= step:
                came.append(name)
            on_pause(state)

        return train_lm(*arguments, on_pause=pause, **options)

    @contextlib.contextmanager
    def catch_stop_signals():
        yield lambda: came[0] if came else None

    with patch.context() as inner, contextlib.suppress(KeyboardInterrupt):
        inner.setattr(saved_training, "train_lm", train_until)
        inner.setattr(saved_training, "interruptible", catch_stop_signals)
        yield
        raise AssertionError("the run was not stopped")


def bits(tree):
    """Every array of a pytree: dtype, shape and bytes."""
    return [(str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


def assert_same(run: Path, other: Path) -> None:
    """Two runs that are done came to the same, to the bit; `other` is one that no test changes."""
    expected = _made_by_unchanged(other)
    for name, made in _made_by(run).items():
        assert made == expected[name], name


def _made_by(run):
    names = ("metrics.jsonl", "samples.txt", "tokenizer.json")
    return {
        "state": read_manifest(run)["state"],
        "steps": (checkpoint_steps(run / "checkpoints")[-1], best_step(run / "checkpoints")),
        **{name: (run / name).read_bytes() for name in names},
        **{checkpoint: bits(load_run(run, checkpoint)[1]) for checkpoint in ("final", "last", "best")},
    }


_made_by_unchanged = functools.cache(_made_by)
