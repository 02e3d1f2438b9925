"""How much faster is `train_many` than one `train_lm` after another? Twenty runs at V=27, A B A B.

    XLA_FLAGS=--xla_force_host_platform_device_count=2 \\
        python -m experiments.speed.sweep_speedup        # 75 s on 2 CPU cores
    python -m experiments.speed.sweep_speedup --quick    # 30 s

Four seeds with five learning rates, 1000 steps of 32 windows each. Both variants draw the same windows.
`train_many` saves dispatch and, with two devices, uses the core that a small step leaves idle: each device trains
half of the runs. The number of matrix products per core stays the same.

Expected with two devices: `train_many` takes 0.31 of the time for the neural bigram, 0.34 for the MLP with H=64,
and 0.40 for the MLP with H=200, which misses the target of 0.35.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

import jaxlm
from experiments.shared.benchmark import Benchmark, Ratio, Variant, run_benchmarks
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.options import BenchmarkOptions
from experiments.shared.synthetic import zipf_ids

_MODELS: dict[str, jaxlm.LanguageModel] = {
    "neural bigram, D=27": jaxlm.NeuralBigramLM(27, 27),
    "MLP, N=3 D=10 H=64": jaxlm.MLPLanguageModel(27, 3, 10, 64),
    "MLP, N=3 D=10 H=200": jaxlm.MLPLanguageModel(27, 3, 10, 200),
}


@dataclass(frozen=True, kw_only=True)
class SweepOptions(BenchmarkOptions):
    """Time twenty runs side by side against the same runs one after another."""


def prepare(options: SweepOptions) -> Experiment:
    """Check the options."""
    return Experiment("sweep-speedup", partial(measure, options))


def measure(options: SweepOptions, run: RunContext) -> Findings:
    """Time each model."""
    num_steps = 10 if options.quick else 1000
    builders = {title: partial(make_benchmark, model, num_steps) for title, model in _MODELS.items()}
    findings = run_benchmarks(builders, run, repeats=1 if options.quick else options.repeats)
    return findings._replace(results={"num_devices": len(jax.devices()), **findings.results})


def make_benchmark(model: jaxlm.LanguageModel, num_steps: int) -> Benchmark:
    """Return both variants of training the runs, per run."""
    ids = zipf_ids(model.vocab_size, 200_000)
    keys, hyperparams = jaxlm.sweep_grid(jax.random.split(jax.random.key(0), 4), lr=[0.1, 0.2, 0.3, 0.4, 0.5])
    options: dict[str, Any] = {"num_steps": num_steps, "log_every": num_steps}

    def one_after_another() -> list[Any]:
        pairs = zip(keys, hyperparams["lr"].tolist(), strict=True)
        return [jaxlm.train_lm(model, ids, key=key, lr=lr, **options)[0] for key, lr in pairs]

    def side_by_side() -> Any:
        return jaxlm.train_many(model, ids, keys=keys, hyperparams=hyperparams, **options)[0]

    num_runs = len(keys)
    variants = {
        "train_lm, one after another": Variant(one_after_another, num_runs),
        "train_many": Variant(side_by_side, num_runs),
    }
    return Benchmark("run", variants, [Ratio("train_many / train_lm", "train_many", "train_lm")])


if __name__ == "__main__":
    main(SweepOptions, prepare)
