"""What jit buys: each stage of the work eager, jitted, in one compiled loop and vmapped, beside NumPy and PyTorch.

    python -m experiments.speed.jit.compare                           # about 2 min on 2 CPU cores with PyTorch
    python -m experiments.speed.jit.compare --size all                # small, medium and large: about 4 min
    python -m experiments.speed.jit.compare --quick                   # every artefact: 50 s, or 20 without PyTorch
    python -m experiments.speed.jit.compare --stages forward loss     # only these
    python -m experiments.speed.jit.compare --compare OLD.json NEW.json

Expected on 2 CPU cores, microseconds a training step, jitted call by call, in one loop and by PyTorch: small 44,
30 and 190; medium 650 to 730, 580 to 920 and 920; large 5500, 5100 and 11,200. Eager takes 28,000 to 41,000.

Figures are microseconds an item, and an item is what the stage says (a batch, a token), so that the ways compare.
PyTorch is measured where it is installed (`pip install '.[bench]'`), NumPy on the CPU alone. Compile seconds are
those of a way's first call; of eager, of the operations that no stage before it had used.

FLOPs and bytes of an item are those of XLA's cost analysis. The share is of the ceiling that the same run
measures: of the matrix product's FLOP/s or of the copy's bytes/s, whichever is larger. XLA counts what each fused
operation reads and writes, from a cache or not, and charges a gather or a scatter with the whole of its array. So
the share of a stage that lives in the cache, or takes little out of much (count, batch), can pass 100 %: then it
only says that XLA's bytes are not what limits it.
"""

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from rich.console import Console

import jaxlm
from experiments.shared.machine import find_torch, num_cores
from experiments.speed.jit.diff_runs import KIND, SCHEMA_VERSION, describe_changes, read_results
from experiments.speed.jit.plots import plot_roofline, plot_speedups, summary_tables, table_text
from experiments.speed.jit.stages import STAGES, Sizes, Stage, make_problem
from experiments.speed.jit.variants import Way, cost_analysis, make_ways, measure, measure_ceiling
from jaxlm.runs.directory import check_run_path, create_run, new_run_path
from jaxlm.runs.manifest import describe_environment, write_json
from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.checks import check_at_least
from jaxlm.utils.terminal import print_plain, run_command, stdout_console
from jaxlm.utils.timing import Measurement

SIZES = {
    "small": Sizes(27, 3, 10, 200, 32, items=256),
    "medium": Sizes(4096, 3, 32, 64, 64, items=32),
    "large": Sizes(4096, 8, 64, 256, 256, items=8),
    "huge": Sizes(32_768, 16, 256, 1024, 1024, items=8),
}
FOR_ACCELERATORS = "huge"


@dataclass(frozen=True)
class JitConfig:
    """Times each stage of the work in every way, on every device; or compares two such runs."""

    stages: tuple[str, ...] = ()
    """Which of count, batch, forward, loss, training_step, evaluation, sampling; none named is all."""
    size: Literal["small", "medium", "large", "huge", "all"] | None = None
    """Of the model; None is medium, or small with --quick. all: small, medium, large, and on a GPU huge."""
    vocab_size: int | None = None
    """Tokens of the vocabulary; None, as in the four options below, is what --size has."""
    context_length: int | None = None
    """Tokens of context."""
    embedding_dim: int | None = None
    """Dimensions of the embedding."""
    hidden_dim: int | None = None
    """Units of the hidden layer."""
    batch_size: int | None = None
    """Windows in a batch."""
    repeats: int | None = None
    """Samples of each way; None is 7, or 3 with --quick."""
    devices: tuple[str, ...] = ()
    """Which of cpu, gpu, cuda, rocm, tpu, metal; none named is one of each kind that JAX finds."""
    out: Path | None = None
    """The run's folder; None is runs/jit-DATE-TIME."""
    overwrite: bool = False
    """Replace the run that --out already holds."""
    quick: bool = False
    """The small model and fewer samples: every artefact, in seconds."""
    compare: tuple[Path, Path] | None = None
    """OLD.json NEW.json of two runs: print what moved beyond the noise, and measure nothing."""


def run_comparison(config: JitConfig, console: Console) -> Path:
    """Runs the experiment and returns the run's folder, in which `results.json` comes last.

    Raises:
        ValueError, OSError: what the user can mend, in one line; a recompilation among timed calls too.
    """
    begin = time.perf_counter()
    stage_names, devices, sizes = check_options(config)
    torch, why_not = find_torch()
    if torch is None:
        print_plain(console, f"PyTorch's column is empty: {why_not}")
    run = config.out or new_run_path("jit")
    settings = json.loads(json.dumps(asdict(config), default=str))
    with create_run(run, "jit", settings, devices[0], overwrite=config.overwrite):
        repeats = config.repeats or (3 if config.quick else 7)
        ceilings: dict[str, dict[str, float]] = {}
        rows: list[dict[str, Any]] = []
        notes: list[str] = []
        for device in devices:
            name = device_name(device)
            with jax.default_device(device):
                ceilings[name] = measure_ceiling(device, repeats, quick=config.quick)
                gflops, gigabytes = (ceilings[name][f"{unit}_per_second"] / 1e9 for unit in ("flops", "bytes"))
                print_plain(console, f"{name}: matrix product {gflops:,.0f} GFLOP/s, copy {gigabytes:,.1f} GB/s")
                usable_torch = torch
                if torch is not None and device.platform != "cpu" and not torch.cuda.is_available():
                    usable_torch = None
                    notes.append(f"no torch on {name}: it finds no CUDA device")
                for size, values in sizes.items():
                    if size == FOR_ACCELERATORS and device.platform == "cpu":
                        continue
                    problem = make_problem(values)
                    for stage_name in stage_names:
                        stage = STAGES[stage_name](problem)
                        ways, missing = make_ways(stage, values.items, device, usable_torch)
                        figures = measure(ways, repeats, f"{stage_name} on {name}")
                        place = {"device": name, "size": size, "stage": stage_name, "item": stage.item}
                        rows += describe(place, stage, ways, figures, ceilings[name])
                        notes += [f"no {way} for {stage_name}, {size}: {why}" for way, why in missing.items()]
                        print_plain(console, f"{name}, {size}: {stage_name} ({time.perf_counter() - begin:.0f} s)")
        environment = describe_environment(devices[0])
        environment["versions"]["torch"] = None if torch is None else torch.__version__
        results: dict[str, Any] = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "config": settings,
            "sizes": {size: asdict(values) for size, values in sizes.items()},
            **environment,
            "devices": {device_name(each): each.device_kind for each in devices},
            "cores": num_cores(),
            "ceilings": ceilings,
            "rows": rows,
            "notes": list(dict.fromkeys(notes)),
        }
        write_artefacts(run, results)
    for table in summary_tables(rows):
        console.print(table)
    for note in results["notes"]:
        print_plain(console, note)
    print_plain(
        console, f"{time.perf_counter() - begin:.0f} s in all; look at {run / 'table.txt'} and the pictures there"
    )
    return run


def check_options(config: JitConfig) -> tuple[Sequence[str], Sequence[jax.Device], dict[str, Sizes]]:
    """The stages, devices and sizes that are asked for.

    Raises:
        ValueError, FileExistsError: what is wrong before any work is done.
    """
    if config.out is not None:
        check_run_path(config.out, overwrite=config.overwrite)
    for stage in config.stages:
        if stage not in STAGES:
            raise ValueError(f"unknown stage {stage!r}; choose among {', '.join(STAGES)}")
    if config.repeats is not None:
        check_at_least("--repeats", config.repeats, 1)
    devices = [jaxlm.resolve_device(device) for device in config.devices] or present_devices()
    size = config.size or ("small" if config.quick else "medium")
    on_cpu_alone = all(device.platform == "cpu" for device in devices)
    if size == FOR_ACCELERATORS and on_cpu_alone:
        raise ValueError(f"--size {size} is for an accelerator; on a CPU choose large")
    given = {
        name: value
        for name, value in asdict(config).items()
        if name in Sizes.__dataclass_fields__ and value is not None
    }
    for name, value in given.items():
        check_at_least(f"--{name.replace('_', '-')}", value, 1)
    names = [name for name in SIZES if name == size or size == "all"]
    sizes = {name: replace(SIZES[name], **given) for name in names if name != FOR_ACCELERATORS or not on_cpu_alone}
    return list(dict.fromkeys(config.stages or STAGES)), list(dict.fromkeys(devices)), sizes


def present_devices() -> list[jax.Device]:
    """One of each kind on JAX's default platform, and a CPU."""
    default = jaxlm.resolve_device("auto")  # an error in one line, where JAX cannot start any
    devices = [default, *jax.devices()]
    with contextlib.suppress(RuntimeError):  # JAX_PLATFORMS may have left it out
        devices += jax.devices("cpu")
    one_of_each: dict[tuple[str, str], jax.Device] = {}
    for device in devices:
        one_of_each.setdefault((device.platform, device.device_kind), device)
    return list(one_of_each.values())


def device_name(device: jax.Device) -> str:
    """As cpu:0."""
    return f"{device.platform}:{device.id}"


def describe(
    place: dict[str, Any],
    stage: Stage,
    ways: dict[str, Way],
    figures: dict[str, Measurement],
    ceiling: dict[str, float],
) -> list[dict[str, Any]]:
    """The rows of `results.json` for one stage: microseconds of one item, compile seconds of the first call."""
    cost = cost_analysis(jax.jit(stage.step, donate_argnums=1), stage.inputs, stage.state, 0)
    rows = []
    for name, figure in figures.items():
        microseconds = 1e6 / ways[name].items
        item_seconds = figure.median / ways[name].items
        shares = {
            unit: amount / item_seconds / ceiling[f"{unit}_per_second"]
            for unit, amount in cost.items()
            if amount is not None
        }
        limit = max(shares, key=lambda unit: shares[unit], default=None)
        rows.append(
            place
            | {
                "way": name,
                "items_per_call": ways[name].items,
                "compile_seconds": figure.compile_seconds,
                "median_us": figure.median * microseconds,
                "minimum_us": figure.minimum * microseconds,
                "spread_us": figure.spread * microseconds,
                "repeats": figure.repeats,
                "speedup": figures["eager"].median / ways["eager"].items / item_seconds,
                **cost,
                "share": None if limit is None else shares[limit],
                "share_of": limit,
            }
        )
    return rows


def write_artefacts(run: Path, results: dict[str, Any]) -> None:
    """The table and the pictures; last `results.json`, as a sign that all is there."""
    write_atomically(run / "table.txt", table_text(results))
    plot_roofline(run / "roofline.png", results)
    plot_speedups(run / "speedups.png", results)
    write_json(run / "results.json", results)


def main(config: JitConfig) -> None:
    console = stdout_console()
    if config.compare is None:
        run_comparison(config, console)
    else:
        old, new = map(read_results, config.compare)
        for line in describe_changes(old, new):
            print_plain(console, line)


if __name__ == "__main__":
    options = tyro.cli(JitConfig, prog="jit_comparison")
    sys.exit(run_command(lambda: main(options)))
