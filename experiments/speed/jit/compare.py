"""What does `jit` buy? Each stage of the work eager, jitted, in one compiled loop and vmapped; NumPy and PyTorch.

    python -m experiments.speed.jit.compare                           # about 2 min on 2 CPU cores with PyTorch
    python -m experiments.speed.jit.compare --size all                # small, medium and large: about 4 min
    python -m experiments.speed.jit.compare --quick                   # 50 s, or 20 s without PyTorch
    python -m experiments.speed.jit.compare --stages forward loss     # only these stages
    python -m experiments.speed.jit.diff_runs OLD.json NEW.json       # what changed between two runs

Expected on 2 CPU cores, microseconds per training step with one jitted call per step, in one loop, and in PyTorch:
small 44, 30 and 190; medium 650 to 730, 580 to 920 and 920; large 5500, 5100 and 11,200. Eager: 28,000 to 41,000.

Figures are microseconds per item. The stage defines the item (a batch, a token), so the variants are comparable.
PyTorch is measured if it is installed (`pip install '.[bench]'`), NumPy on the CPU only. Compile seconds are those
of a variant's first call; for eager, of the operations that no earlier stage used.

FLOPs and bytes per item come from XLA's cost analysis. The share is relative to the ceiling measured in the same
run: the FLOP/s of a matrix product or the bytes/s of a copy, whichever share is larger. XLA counts what each fused
operation reads and writes, cached or not, and charges a gather or a scatter with its whole array. A stage that
works in the cache, or reads little of a large array (count, batch), can therefore exceed 100 %.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import jax

import jaxlm
from experiments.shared.benchmark import Variant, describe_measurement
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.machine import import_torch, num_cores
from experiments.shared.options import RunOptions
from experiments.speed.jit.plots import format_results, plot_roofline, plot_speedups
from experiments.speed.jit.stages import STAGES, Sizes, Stage, make_problem
from experiments.speed.jit.variants import analyze_cost, make_variants, measure_ceiling, measure_variants
from jaxlm.runs.manifest import describe_environment
from jaxlm.utils.checks import check_at_least
from jaxlm.utils.timing import Measurement

SIZES = {
    "small": Sizes(27, 3, 10, 200, 32, items=256),
    "medium": Sizes(4096, 3, 32, 64, 64, items=32),
    "large": Sizes(4096, 8, 64, 256, 256, items=8),
    "huge": Sizes(32_768, 16, 256, 1024, 1024, items=8),
}
ACCELERATOR_SIZE = "huge"


@dataclass(frozen=True, kw_only=True)
class JitOptions(RunOptions):
    """Time each stage of the work in every variant, on every device."""

    stages: tuple[str, ...] = ()
    """Some of count, batch, forward, loss, training_step, evaluation, sampling. Default: all."""
    size: Literal["small", "medium", "large", "huge", "all"] | None = None
    """Size of the model. None: medium, or small with --quick. all: small, medium, large, and huge on a GPU."""
    repeats: int | None = None
    """Samples per variant. None: 7, or 3 with --quick."""
    devices: tuple[str, ...] = ()
    """Some of cpu, gpu, cuda, rocm, tpu, metal. Default: one device of each kind that JAX finds."""


def prepare(options: JitOptions) -> Experiment:
    """Check the options and find the devices."""
    for stage in options.stages:
        if stage not in STAGES:
            raise ValueError(f"unknown stage {stage!r}; choose from {', '.join(STAGES)}")
    if options.repeats is not None:
        check_at_least("--repeats", options.repeats, 1)
    devices = [jaxlm.resolve_device(device) for device in options.devices] or find_devices()
    sizes = select_sizes(options, has_accelerator=any(device.platform != "cpu" for device in devices))
    return Experiment("jit", partial(measure, options, list(dict.fromkeys(devices)), sizes), devices[0])


def select_sizes(options: JitOptions, *, has_accelerator: bool) -> dict[str, Sizes]:
    """Return the selected sizes."""
    size = options.size or ("small" if options.quick else "medium")
    if size == ACCELERATOR_SIZE and not has_accelerator:
        raise ValueError(f"--size {size} requires an accelerator; on a CPU choose large")
    names = [name for name in SIZES if size in (name, "all") and (has_accelerator or name != ACCELERATOR_SIZE)]
    return {name: SIZES[name] for name in names}


def find_devices() -> list[jax.Device]:
    """Return one device of each kind on JAX's default platform, and a CPU."""
    devices = [jaxlm.resolve_device("auto"), *jax.devices()]
    with contextlib.suppress(RuntimeError):  # JAX_PLATFORMS can exclude the CPU
        devices += jax.devices("cpu")
    one_of_each: dict[tuple[str, str], jax.Device] = {}
    for device in devices:
        one_of_each.setdefault((device.platform, device.device_kind), device)
    return list(one_of_each.values())


def measure(
    options: JitOptions, devices: Sequence[jax.Device], sizes: dict[str, Sizes], run: RunContext
) -> Findings:
    """Measure the ceiling of each device, then every variant of every stage."""
    repeats = options.repeats or (3 if options.quick else 7)
    torch, notes = None, []
    try:
        torch = import_torch()
    except ValueError as error:
        notes.append(f"PyTorch is skipped: {error}")
    ceilings: dict[str, dict[str, float]] = {}
    rows: list[dict[str, Any]] = []
    for device in devices:
        name, usable_torch = f"{device.platform}:{device.id}", torch
        if torch is not None and device.platform != "cpu" and not torch.cuda.is_available():
            usable_torch = None
            notes.append(f"PyTorch is skipped on {name}: it finds no CUDA device")
        with jax.default_device(device):
            ceilings[name] = measure_ceiling(device, repeats, quick=options.quick)
            gflops, gigabytes = (ceilings[name][f"{unit}_per_second"] / 1e9 for unit in ("flops", "bytes"))
            run.log(f"{name}: matrix product {gflops:,.0f} GFLOP/s, copy {gigabytes:,.1f} GB/s")
            for size, values in sizes.items():
                if size == ACCELERATOR_SIZE and device.platform == "cpu":
                    continue
                inputs = make_problem(values)
                for stage_name in dict.fromkeys(options.stages or STAGES):
                    stage = STAGES[stage_name](inputs)
                    variants, missing = make_variants(stage, values.items, device, usable_torch)
                    measurements = measure_variants(variants, repeats, f"{stage_name} on {name}")
                    place = {"device": name, "size": size, "stage": stage_name, "item": stage.item}
                    rows += [place | row for row in describe(stage, variants, measurements, ceilings[name])]
                    notes += [f"no {each} for {stage_name}, {size}: {reason}" for each, reason in missing.items()]
                    run.log(f"{name}, {size}: {stage_name}")
    versions = describe_environment(run.device)["versions"]
    results: dict[str, Any] = {
        "versions": versions | {"torch": None if torch is None else torch.__version__},
        "sizes": {size: asdict(values) for size, values in sizes.items()},
        "devices": {f"{device.platform}:{device.id}": device.device_kind for device in devices},
        "cores": num_cores(),
        "ceilings": ceilings,
        "rows": rows,
        "notes": list(dict.fromkeys(notes)),
    }
    pictures = {"roofline": plot_roofline(results), "speedups": plot_speedups(results)}
    return Findings(results, format_results(results), pictures)


def describe(
    stage: Stage, variants: dict[str, Variant], measurements: dict[str, Measurement], ceiling: dict[str, float]
) -> list[dict[str, Any]]:
    """Return one row per variant of a stage: microseconds per item, speed-up over eager, share of the ceiling."""
    cost = analyze_cost(jax.jit(stage.step, donate_argnums=1), stage.inputs, stage.state, 0)
    eager_seconds = measurements["eager"].median / variants["eager"].units
    rows = []
    for name, measurement in measurements.items():
        items = variants[name].units
        item_seconds = measurement.median / items
        shares = {
            unit: amount / item_seconds / ceiling[f"{unit}_per_second"]
            for unit, amount in cost.items()
            if amount is not None
        }
        limit = max(shares, key=lambda unit: shares[unit], default=None)
        row = {"variant": name, "items_per_call": items, **describe_measurement(measurement, items), **cost}
        row |= {"speedup": eager_seconds / item_seconds, "share": shares.get(limit or ""), "share_of": limit}
        rows.append(row)
    return rows


if __name__ == "__main__":
    main(JitOptions, prepare)
