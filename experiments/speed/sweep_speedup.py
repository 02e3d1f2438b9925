"""How much faster is `train_many` than one `train_lm` after another? Twenty runs at V=27, A B A B.

    XLA_FLAGS=--xla_force_host_platform_device_count=2 \\
        python -m experiments.speed.sweep_speedup        # 75 s on 2 CPU cores
    python -m experiments.speed.sweep_speedup --quick    # 30 s

Four seeds with five learning rates, 1000 steps of 32 windows each. Both variants draw the same windows.
`train_many` saves dispatch, and uses the core that a small step leaves idle: with two devices, each trains half of
the runs. The matrix products remain, and each core computes as many of them either way.

Expected with two devices: `train_many` takes 0.31 of the time for the neural bigram, 0.34 for the MLP with H=64,
and 0.40 for the MLP with H=200. The target is 0.35.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

import jaxlm
from experiments.shared.benchmark import Benchmark, RatioTarget, Variant, format_benchmarks, run_benchmark
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.options import BenchmarkOptions
from experiments.shared.plots import new_panels
from experiments.shared.synthetic import zipf_ids
from jaxlm.runs.report.plots import COLORS

_MODELS: dict[str, jaxlm.LanguageModel] = {
    "neural bigram, D=27": jaxlm.NeuralBigramLM(27, 27),
    "MLP, N=3 D=10 H=64": jaxlm.MLPLanguageModel(27, 3, 10, 64),
    "MLP, N=3 D=10 H=200": jaxlm.MLPLanguageModel(27, 3, 10, 200),
}
_SINGLE, _MANY = "train_lm, one after another", "train_many"


@dataclass(frozen=True, kw_only=True)
class SweepOptions(BenchmarkOptions):
    """Time twenty runs side by side against the same runs one after another."""


def prepare(options: SweepOptions) -> Experiment:
    """Check the options."""
    return Experiment("sweep-speedup", partial(measure, options))


def measure(options: SweepOptions, run: RunContext) -> Findings:
    """Time each model."""
    num_steps = 10 if options.quick else 1000
    timing: dict[str, Any] = {
        "repeats": 1 if options.quick else options.repeats,
        "with_targets": not options.quick,
    }
    rows = {title: run_benchmark(make_benchmark(model, num_steps), **timing) for title, model in _MODELS.items()}
    results = {"num_devices": len(jax.devices()), "rows": rows}
    return Findings(results, format_benchmarks(rows), {"picture": plot(rows)})


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
    variants = {_SINGLE: Variant(one_after_another, num_runs), _MANY: Variant(side_by_side, num_runs)}
    target = RatioTarget("train_many / train_lm", _MANY, _SINGLE, 0.35, at_most=True)
    return Benchmark("run", variants, [target])


def plot(rows: Mapping[str, Mapping[str, Any]]) -> Any:
    """Plot the milliseconds per run of both variants."""
    figure, (axes,) = new_panels(1, 8, 3.6)
    for offset, (name, color) in enumerate(zip((_SINGLE, _MANY), COLORS, strict=False)):
        heights = [row["variants"][name]["median_us"] / 1000 for row in rows.values()]
        places = [number + 0.4 * offset - 0.2 for number in range(len(rows))]
        bars = axes.bar(places, heights, width=0.38, color=color, label=name)
        axes.bar_label(bars, fmt="%.3g", fontsize=8)
    axes.set_xticks(range(len(rows)), list(rows))
    axes.set(ylabel="milliseconds per run", title="Twenty runs at V=27")
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main(SweepOptions, prepare)
