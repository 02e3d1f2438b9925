"""Consoles that record their output, and run directories made without training."""

import functools
import io
import json
import math

import jax
from rich.console import Console

from jaxlm.cli import COMMANDS
from jaxlm.runs.config import TrainConfig, config_to_json
from jaxlm.runs.directory import create_run
from jaxlm.runs.metrics_log import append_metrics, replace_nonfinite

TEXT = "to be or not to be that is the question\n" * 60
SMALL = {
    "tokenizer": "char",
    "embedding_dim": 4,
    "hidden_dim": 8,
    "batch_size": 8,
    "num_steps": 20,
    "log_every": 10,
}


def pipe():
    return Console(file=io.StringIO(), width=100)


def terminal():
    return Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)


def shown(console):
    return console.file.getvalue()


def call(name, *arguments, console=None, **options):
    """Run a subcommand and check that its document is JSON."""
    record, function = COMMANDS[name]
    document = function(record(*arguments, **options), console or pipe())
    json.dumps(replace_nonfinite(document), allow_nan=False)
    return document


train, evaluate, sample, tokenize, corpus, devices, export, import_ = (
    functools.partial(call, name)
    for name in ("train", "evaluate", "sample", "tokenize", "corpus", "devices", "export", "import")
)


def make_run(path, *, error=None, kind="train", config=None, losses=(), **details):
    """Create a run directory as a session that ended with `error` leaves it, without training."""
    config = config_to_json(TrainConfig()) if config is None else config
    try:
        with create_run(path, kind, config, jax.devices("cpu")[0], **details):
            for step, loss in enumerate(losses):
                line = {"model": "mlp", "step": step, "train_loss": loss, "val_perplexity": math.exp(loss)}
                append_metrics(path / "metrics.jsonl", line | {"val_nats_per_token": loss})
            if error is not None:
                raise error
    except (KeyboardInterrupt, OSError):
        assert error is not None
    return path


def one_line(text):
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return text.removesuffix("\n")
