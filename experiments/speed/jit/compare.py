"""How much faster is each stage of the work with `jit`? Every variant of `variants.py`, NumPy and PyTorch.

    python -m experiments.speed.jit.compare                           # about 2 min on 2 CPU cores with PyTorch
    python -m experiments.speed.jit.compare --size all                # small, medium and large: about 4 min
    python -m experiments.speed.jit.compare --quick                   # 50 s, or 20 s without PyTorch
    python -m experiments.speed.jit.compare --stages forward loss     # only these stages
    python -m experiments.speed.jit.compare --stage-file mine.py      # your own; in a notebook, see `compare`

Expected: the table in `experiments/speed/README.md`.

Figures are microseconds per item. The stage defines the item (a batch, a token), so the variants are comparable.
NumPy and PyTorch are measured on the CPU only, PyTorch if it is installed. Compile seconds are those of a
variant's first call. For `eager`, they include only operations that no earlier stage used.

FLOPs and bytes per item come from XLA's cost analysis. The share is relative to the ceiling measured in the same
run: the FLOP/s of a matrix product or the bytes/s of a copy, whichever share is larger. XLA counts what each fused
operation reads and writes, cached or not, and counts the whole array for a gather or a scatter. A stage that
works in the cache, or reads little of a large array (count, batch), can therefore exceed 100 %.
"""

import runpy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import jax

import jaxlm
from experiments.shared.benchmark import time_variants
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.machine import import_torch, num_cores
from experiments.shared.options import BenchmarkOptions
from experiments.speed.jit.numpy_stages import NUMPY_STAGES
from experiments.speed.jit.plots import format_results, plot_roofline, plot_speedups
from experiments.speed.jit.stages import STAGES, Sizes, Stage, make_problem
from experiments.speed.jit.variants import analyze_cost, make_variants, measure_ceiling

SIZES = {
    "small": Sizes(27, 3, 10, 200, 32, items=256),
    "medium": Sizes(4096, 3, 32, 64, 64, items=32),
    "large": Sizes(4096, 8, 64, 256, 256, items=8),
    "huge": Sizes(32_768, 16, 256, 1024, 1024, items=8),
}
REST_SECONDS = 0.25  # the OpenMP threads of PyTorch spin for up to 0.2 s after its last operation


@dataclass(frozen=True, kw_only=True)
class JitOptions(BenchmarkOptions):
    """Time each stage of the work in every variant."""

    stages: tuple[str, ...] = ()
    """The stages to time, in this order. Empty: all."""
    stage_file: Path | None = None
    """A Python file to run, which defines STAGES = {"name": function}. Each function takes a `Problem` and returns
    (step, inputs, state) or a `Stage`."""
    size: Literal["small", "medium", "large", "huge", "all"] = "medium"
    """Size of the model; small with --quick. huge: for a GPU. all: small, medium and large."""
    device: str = "auto"
    """auto, cpu, gpu, cuda, rocm, tpu or metal."""


def prepare(options: JitOptions) -> Experiment:
    """Check the options and choose the device."""
    device, stages = jaxlm.resolve_device(options.device), STAGES
    if options.stage_file is not None:
        with jax.default_device(device):
            stages = runpy.run_path(str(options.stage_file)).get("STAGES", {})
        if not stages:
            raise ValueError(f'{options.stage_file} defines no stages: add STAGES = {{"name": function}}')
    for stage in options.stages:
        if stage not in stages:
            raise ValueError(f"unknown stage {stage!r}; choose from {', '.join(stages)}")
    chosen = {name: stages[name] for name in options.stages or stages}
    return Experiment("jit", partial(measure, options, chosen), device)


def compare(stages: Mapping[str, Any], *, items: int = 32, repeats: int = 5) -> list[dict[str, Any]]:
    """Time your own stages in every variant on JAX's default device, and print the table.

    Host function; not for use inside `jit`.

    Args:
        stages: name -> (step, inputs, state) or a `Stage`, where `step(inputs, state, i) -> state` is a pure
            function and i is the number of the item.
        items: items that one call of a compiled variant processes.
        repeats: samples per variant.

    Returns:
        One row per variant and stage, as in `results.json`. `error` says why a variant failed.

    >>> step = lambda inputs, total, i: total + inputs[i % 8].sum()
    >>> rows = compare({"sum": (step, jax.numpy.ones((8, 9)), 0.0)})  # doctest: +SKIP
    """
    ceiling = measure_ceiling(jax.devices()[0], repeats, quick=True)
    rows = []
    for name, stage in stages.items():
        own = measure_stage(Stage(*stage), items, {}, repeats, ceiling)
        rows += [{"size": "own", "stage": name, **row} for row in own]
    print(format_results({"ceiling": ceiling, "rows": rows}))
    return rows


def measure(options: JitOptions, stages: Mapping[str, Callable[..., Any]], run: RunContext) -> Findings:
    """Measure the ceiling of the device, then every variant of every stage."""
    repeats, size = (min(options.repeats, 3), "small") if options.quick else (options.repeats, options.size)
    sizes = {name: SIZES[name] for name in (("small", "medium", "large") if size == "all" else (size,))}
    ceiling = measure_ceiling(run.device, repeats, quick=options.quick)
    libraries = {} if options.stage_file else find_libraries(run)
    rows: list[dict[str, Any]] = []
    for size, values in sizes.items():
        problem = make_problem(values)
        for name, stage in stages.items():
            others = {library: functions[name](problem) for library, functions in libraries.items()}
            own = measure_stage(Stage(*stage(problem)), values.items, others, repeats, ceiling)
            rows += [{"size": size, "stage": name, **row} for row in own]
            run.log(f"{size}: {name}")
    results: dict[str, Any] = {
        "sizes": {size: asdict(values) for size, values in sizes.items()},
        "cores": num_cores(),
        "torch": metadata.version("torch") if "torch" in libraries else None,
        "ceiling": ceiling,
        "rows": rows,
    }
    pictures = {"roofline": plot_roofline(results), "speedups": plot_speedups(results)}
    return Findings(results, format_results(results), pictures)


def find_libraries(run: RunContext) -> dict[str, Any]:
    """Return the stages of the other libraries that can be measured on this device, by library."""
    if run.device.platform != "cpu":
        return {}
    libraries: dict[str, Any] = {"numpy": NUMPY_STAGES}
    try:
        import_torch()
        from experiments.speed.jit.pytorch_stages import PYTORCH_STAGES
    except ValueError as error:
        run.log(f"PyTorch is skipped: {error}")
        return libraries
    return libraries | {"torch": PYTORCH_STAGES}


def measure_stage(
    stage: Stage, items: int, others: dict[str, Any], repeats: int, ceiling: dict[str, float]
) -> list[dict[str, Any]]:
    """Return one row per variant of a stage: microseconds per item, speed-up over eager, share of the ceiling.

    A variant that raises has a row with its error instead.
    """
    variants, rows = make_variants(stage, items, others), []
    rest_seconds = REST_SECONDS if "torch" in others else 0.0
    measured = time_variants(variants, repeats=repeats, rest_seconds=rest_seconds)
    cost: dict[str, float | None] = {"flops": None, "bytes": None}
    if "error" not in measured["jit"]:
        cost = analyze_cost(stage.step, stage.inputs, stage.state, 0)
    for variant in variants:
        row = {"variant": variant, "item": stage.item, "error": None, **measured[variant]}
        if row["error"] is None:
            shares = {
                unit: amount / row["median_us"] * 1e6 / ceiling[f"{unit}_per_second"]
                for unit, amount in cost.items()
                if amount is not None
            }
            limit = max(shares, key=lambda unit: shares[unit], default="")
            eager_us = measured["eager"].get("median_us")
            speedup = None if eager_us is None else eager_us / row["median_us"]
            row |= {**cost, "speedup": speedup, "share": shares.get(limit), "share_of": limit}
        rows.append(row)
    return rows


if __name__ == "__main__":
    main(JitOptions, prepare)
