"""Are memory-mapped ids as fast as ids in memory, and long texts as fast as short ones? A B A B.

    python -m experiments.speed.tokens_on_disk            # about 3 min on 2 CPU cores
    python -m experiments.speed.tokens_on_disk --quick

Random ids, V=4096, uint16 in a file. Training reads each step's windows from 20 million of them, or from an array
of the same ids. `get_batch` draws from 20 million, or from the first 200,000. The file is in the page cache; a
cold disk is not measured.

Targets: 1.05 for training, 1.5 for `get_batch`.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxlm
from experiments.shared.benchmark import Benchmark, Ratio, Variant, run_benchmarks
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.options import BenchmarkOptions

_VOCAB_SIZE = 4096
_BATCHES = 200


@dataclass(frozen=True, kw_only=True)
class DiskOptions(BenchmarkOptions):
    """Time training and `get_batch` on ids in a file."""


def prepare(options: DiskOptions) -> Experiment:
    """Choose the sizes."""
    return Experiment("tokens-on-disk", partial(measure, options), jax.devices()[0])


def measure(options: DiskOptions, run: RunContext) -> Findings:
    """Write the ids to a file, and time each benchmark on it."""
    num_tokens, num_steps = (200_000, 20) if options.quick else (20_000_000, 1000)
    with tempfile.TemporaryDirectory(dir=run.path) as folder:
        path = Path(folder, "ids.bin")
        np.random.default_rng(0).integers(0, _VOCAB_SIZE, num_tokens).astype("<u2").tofile(path)
        stream = jaxlm.open_tokens(path, vocab_size=_VOCAB_SIZE)
        models = {
            "training, neural bigram D=8 B=32": (jaxlm.NeuralBigramLM(_VOCAB_SIZE, 8), 32),
            "training, MLP N=3 H=64 B=64": (jaxlm.MLPLanguageModel(_VOCAB_SIZE, 3, 32, 64), 64),
        }
        benchmarks: dict[str, Callable[[], Benchmark]] = {
            title: partial(training_benchmark, stream, model, batch_size, num_steps)
            for title, (model, batch_size) in models.items()
        }
        benchmarks["get_batch, N=3 B=64"] = partial(batch_benchmark, stream)
        return run_benchmarks(benchmarks, run, repeats=2 if options.quick else options.repeats)


def training_benchmark(stream: jaxlm.TokenStream, model: Any, batch_size: int, num_steps: int) -> Benchmark:
    """Return the variants of a training, per step."""
    optimizer = jaxlm.sgd(0.1, num_steps)

    def train(ids: Any) -> Any:
        options: Any = {"num_steps": num_steps, "batch_size": batch_size, "log_every": num_steps}
        return jaxlm.train_lm(model, ids, key=jax.random.key(0), optimizer=optimizer, **options)[0]

    calls = {"disk": partial(train, stream), "memory": partial(train, np.asarray(stream).astype(np.int32))}
    variants = {name: Variant(call, num_steps) for name, call in calls.items()}
    return Benchmark("step", variants, [Ratio("disk / memory", "disk", "memory")])


def batch_benchmark(stream: jaxlm.TokenStream) -> Benchmark:
    """Return the variants of `get_batch`, per batch."""

    def draw(ids: jaxlm.TokenStream) -> Any:
        keys = [jax.random.key(index) for index in range(_BATCHES)]
        return [jaxlm.get_batch(ids, 3, 64, key=key) for key in keys]

    calls = {"all": partial(draw, stream), "the first 200,000": partial(draw, stream[:200_000])}
    variants = {name: Variant(call, _BATCHES) for name, call in calls.items()}
    return Benchmark("batch", variants, [Ratio("all / the first 200,000", "all", "the first")])


if __name__ == "__main__":
    main(DiskOptions, prepare)
