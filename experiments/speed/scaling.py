"""Does what a job costs grow as its work does: by vocabulary, batch, context, width, corpus, streams, length?

    python -m experiments.speed.scaling           # about 2 min on 2 CPU cores with nothing else running
    python -m experiments.speed.scaling --quick   # two sizes of each, one sample: that all of it runs, in a minute

One quantity at a time is varied, the others are those of an MLP with V=4096 N=3 D=32 H=64 and batches of 64. All
sizes of a quantity take turns in one run. A slope is that of a straight line through the three largest sizes,
both axes logarithmic: 1 is linear, 0 is flat. Beside it stands the slope of the work itself: the operations of
the matrix products, or flat where a unit of work stays the same, as a pair to count does however long the text.

Expected: no slope above its work's by more than 0.2 (many are below: a constant part weighs on the small sizes).
Seconds to compile do not depend on the number of steps, tokens or windows; memory beyond the ids and the
variables does not depend on the number of ids. That is the process's memory, so only of a CPU and only on Linux.
"""

import functools
import gc
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro
from rich.console import Console

import jaxlm
from experiments.shared.synthetic import zipf_ids
from experiments.shared.tables import format_table
from jaxlm.runs.directory import check_run_path, create_run, new_run_path
from jaxlm.runs.manifest import describe_environment, write_json
from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.terminal import print_plain, run_command, stdout_console
from jaxlm.utils.timing import benchmark_interleaved, measure_time


@dataclass(frozen=True)
class GrowthConfig:
    """Measures how time, compile time and memory grow, quantity by quantity."""

    jobs: str = ""
    """Only the panels whose title holds this."""
    repeats: int = 3
    """Samples of each size."""
    out: Path | None = None
    """The run's folder; None is runs/cost-growth-DATE-TIME."""
    overwrite: bool = False
    """Replace the run that --out already holds."""
    quick: bool = False
    """The two smallest sizes of each quantity, one sample: checks that all of it runs, and judges nothing."""


@dataclass(frozen=True)
class Shape:
    """All that a job's cost may depend on; one field at a time is varied."""

    vocab_size: int = 4096
    context_length: int = 3
    embedding_dim: int = 32
    hidden_dim: int = 64
    batch_size: int = 64
    corpus_length: int = 309_843
    num_windows: int = 34_410
    num_streams: int = 1
    num_tokens: int = 2_000
    num_steps: int = 100


class TrainingSetup(NamedTuple):
    """A job of some shape: `build` makes a call of it and says how many units that does."""

    unit: str
    build: Callable[[Shape], tuple[Callable[[], Any], int]]
    work: Callable[[Shape], float]  # of one unit, in whatever measure


class Panel(NamedTuple):
    """One job's cost (`time`, `compile` or `memory`) against one field of its shape."""

    job: str
    cost: str
    field: str
    values: Sequence[int]

    @property
    def title(self) -> str:
        return f"{self.job}, {self.cost} by {self.field}"


def train_step(shape: Shape) -> tuple[Callable[[], Any], int]:
    """`train_lm` of the MLP."""
    ids = zipf_ids(shape.vocab_size, shape.corpus_length)
    train = functools.partial(
        jaxlm.train_lm,
        mlp(shape),
        ids,
        key=jax.random.key(0),
        variables=jaxlm.init(mlp(shape), jax.random.key(1)),
        batch_size=shape.batch_size,
        num_steps=shape.num_steps,
        log_every=shape.num_steps,
    )
    return lambda: train()[0], shape.num_steps


def sampled_token(shape: Shape) -> tuple[Callable[[], Any], int]:
    """`sample` of the MLP."""
    return sampling(mlp(shape), jaxlm.init(mlp(shape), jax.random.key(1)), shape)


def sampled_token_of_counts(shape: Shape) -> tuple[Callable[[], Any], int]:
    """`sample` of the counts bigram."""
    return sampling(jaxlm.CountsBigramLM(shape.vocab_size), fitted(shape), shape)


def scored_window(shape: Shape) -> tuple[Callable[[], Any], int]:
    """`perplexity` of the MLP."""
    ids = zipf_ids(shape.vocab_size, shape.num_windows + shape.context_length)
    variables = jaxlm.init(mlp(shape), jax.random.key(1))
    return functools.partial(jaxlm.perplexity, mlp(shape), variables, ids), shape.num_windows


def scored_window_of_counts(shape: Shape) -> tuple[Callable[[], Any], int]:
    """`perplexity` of the counts bigram."""
    ids, model = zipf_ids(shape.vocab_size, shape.num_windows + 1, seed=1), jaxlm.CountsBigramLM(shape.vocab_size)
    return functools.partial(jaxlm.perplexity, model, fitted(shape), ids), shape.num_windows


def counted_pair(shape: Shape) -> tuple[Callable[[], Any], int]:
    """`fit`, into a table that it takes over from call to call."""
    model, ids = jaxlm.CountsBigramLM(shape.vocab_size), zipf_ids(shape.vocab_size, shape.corpus_length)
    kept = [jaxlm.init(model, jax.random.key(0))]

    def fit() -> Any:
        kept[0] = model.fit(kept[0], ids)
        return kept[0]

    return fit, shape.corpus_length - 1


def sampling(model: jaxlm.LanguageModel, variables: Any, shape: Shape) -> tuple[Callable[[], Any], int]:
    """`sample` after prompts of one context each."""
    prompt = zipf_ids(shape.vocab_size, shape.num_streams * model.context_length)
    prompts = prompt.reshape(shape.num_streams, model.context_length)
    draw = functools.partial(jaxlm.sample, model, variables, prompts, shape.num_tokens, key=jax.random.key(0))
    return draw, shape.num_tokens * shape.num_streams


def mlp(shape: Shape) -> jaxlm.MLPLanguageModel:
    """The network of that shape."""
    return jaxlm.MLPLanguageModel(shape.vocab_size, shape.context_length, shape.embedding_dim, shape.hidden_dim)


def fitted(shape: Shape) -> Any:
    """Counts of a text of that shape."""
    fit, _ = counted_pair(shape)
    return fit()


def forward_products(shape: Shape) -> float:
    """Multiplications in the MLP's matrix products for one context."""
    return shape.hidden_dim * (shape.context_length * shape.embedding_dim + shape.vocab_size)


def flat(shape: Shape) -> float:
    """A unit of work is always the same."""
    return 1.0


JOBS = {
    "training step": TrainingSetup("step", train_step, lambda shape: shape.batch_size * forward_products(shape)),
    "sampled token": TrainingSetup("token", sampled_token, forward_products),
    "sampled token, counts": TrainingSetup("token", sampled_token_of_counts, lambda shape: shape.vocab_size),
    "scored window": TrainingSetup("window", scored_window, forward_products),
    "scored window, counts": TrainingSetup("window", scored_window_of_counts, lambda shape: shape.vocab_size),
    "counted pair": TrainingSetup("pair", counted_pair, flat),
}

PANELS = (
    Panel("training step", "time", "vocab_size", (1024, 2048, 4096, 8192, 16_384)),
    Panel("training step", "time", "batch_size", (16, 64, 256, 1024)),
    Panel("training step", "time", "context_length", (1, 4, 16, 64)),
    Panel("training step", "time", "hidden_dim", (32, 64, 128, 256, 512)),
    Panel("training step", "time", "corpus_length", (10_000, 100_000, 1_000_000, 10_000_000)),
    Panel("sampled token", "time", "vocab_size", (1024, 2048, 4096, 8192, 16_384)),
    Panel("sampled token", "time", "context_length", (1, 4, 16, 64)),
    Panel("sampled token", "time", "hidden_dim", (32, 64, 128, 256, 512)),
    Panel("sampled token", "time", "num_streams", (1, 4, 16, 64, 256)),
    Panel("sampled token", "time", "num_tokens", (500, 2000, 8000, 32_000)),
    Panel("scored window", "time", "vocab_size", (1024, 2048, 4096, 8192, 16_384)),
    Panel("scored window", "time", "context_length", (1, 4, 16, 64)),
    Panel("scored window", "time", "hidden_dim", (32, 64, 128, 256, 512)),
    Panel("scored window", "time", "num_windows", (1000, 10_000, 100_000, 400_000)),
    Panel("sampled token, counts", "time", "vocab_size", (1024, 2048, 4096, 8192)),
    Panel("scored window, counts", "time", "vocab_size", (1024, 2048, 4096, 8192)),
    Panel("counted pair", "time", "vocab_size", (256, 1024, 4096, 8192)),
    Panel("counted pair", "time", "corpus_length", (100_000, 1_000_000, 10_000_000)),
    Panel("training step", "compile", "num_steps", (10, 100, 1000)),
    Panel("sampled token", "compile", "num_tokens", (10, 100, 1000, 10_000)),
    Panel("scored window", "compile", "num_windows", (1000, 10_000, 100_000)),
    Panel("counted pair", "compile", "corpus_length", (10_000, 100_000, 1_000_000)),
    Panel("scored window", "memory", "num_windows", (10_000, 100_000, 1_000_000)),
    Panel("counted pair", "memory", "corpus_length", (1_000_000, 10_000_000, 100_000_000)),
)

UNITS = {"time": "µs a", "compile": "s to compile", "memory": "MiB beyond ids and variables"}


def run_growth(config: GrowthConfig, console: Console) -> Path:
    """Runs the experiment and returns its folder, in which `results.json` comes last.

    Raises:
        ValueError, OSError: what the user can mend, in one line.
    """
    if config.out is not None:
        check_run_path(config.out, overwrite=config.overwrite)
    if config.repeats < 1:
        raise ValueError(f"--repeats must be at least 1, got {config.repeats}")
    chosen = [panel for panel in PANELS if config.jobs in panel.title]
    if not chosen:
        raise ValueError(f"no title holds {config.jobs!r}; they are: {'; '.join(each.title for each in PANELS)}")
    device = jaxlm.resolve_device()
    if why_not := no_memory_because(device):
        for panel in (panel for panel in chosen if panel.cost == "memory"):
            print_plain(console, f"{panel.title}: goes without, {why_not}")
        chosen = [panel for panel in chosen if panel.cost != "memory"]
        if not chosen:
            raise ValueError(f"no panel of --jobs {config.jobs!r} can be measured here: {why_not}")
    out = config.out or new_run_path("cost-growth")
    settings = json.loads(json.dumps(asdict(config), default=str))
    with create_run(out, "cost-growth", settings, device, overwrite=config.overwrite):
        measured = []
        for panel in chosen:
            values = panel.values[:2] if config.quick else panel.values
            costs = measure(panel, values, 1 if config.quick else config.repeats)
            measured.append(describe(panel, values, costs) | ({"as_the_work": None} if config.quick else {}))
            print_plain(
                console, f"{panel.title}: slope {measured[-1]['slope']:.2f}, work {measured[-1]['work_slope']:.2f}"
            )
        plot(out / "growth.png", measured)
        text = slopes_table(measured)
        write_atomically(out / "table.txt", text)
        write_json(
            out / "results.json",
            {
                "schema_version": 1,
                "config": settings,
                "shape": asdict(Shape()),
                "panels": measured,
                **describe_environment(device),
            },
        )
    print_plain(console, f"\n{text}\nlook at {out / 'growth.png'}")
    return out


def no_memory_because(device: jax.Device) -> str:
    """Why the memory of a call cannot be told here: empty where it can."""
    if device.platform != "cpu":
        return f"the memory of a {device.platform} is not the process's"
    return "" if Path("/proc/self/clear_refs").exists() else "only Linux tells a peak apart"


def measure(panel: Panel, values: Sequence[int], repeats: int) -> list[float]:
    """The panel's cost at each value: microseconds a unit, seconds to compile, or MiB."""
    build = JOBS[panel.job].build
    shapes = [replace(Shape(), **{panel.field: value}) for value in values]
    if panel.cost == "compile":
        return [compile_seconds(build(shape)[0]) for shape in shapes]
    if panel.cost == "memory":
        return [extra_mebibytes(build(shape)[0]) for shape in shapes]
    built = {str(value): build(shape) for value, shape in zip(values, shapes, strict=True)}
    figures = benchmark_interleaved({name: call for name, (call, _) in built.items()}, repeats=repeats)
    return [figures[name].minimum / units * 1e6 for name, (_, units) in built.items()]


def compile_seconds(call: Callable[[], Any]) -> float:
    """Seconds that JAX compiles in a call when nothing was compiled before."""
    jax.clear_caches()  # type: ignore[no-untyped-call]
    with measure_time() as timing:
        jax.block_until_ready(call())  # type: ignore[no-untyped-call]
    return timing.compile_seconds


def extra_mebibytes(call: Callable[[], Any]) -> float:
    """MiB by which a second call lifts the process above what it held before, at its peak; at least 1."""
    jax.block_until_ready(call())  # type: ignore[no-untyped-call]
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is held now
    before = _status_mebibytes("VmRSS")
    jax.block_until_ready(call())  # type: ignore[no-untyped-call]
    return max(_status_mebibytes("VmHWM") - before, 1.0)


def describe(panel: Panel, values: Sequence[int], costs: Sequence[float]) -> dict[str, Any]:
    """A panel as its object in `results.json`."""
    job = JOBS[panel.job]
    flatly = panel.cost != "time" or panel.field in ("num_tokens", "num_windows", "corpus_length", "num_streams")
    work = [(flat if flatly else job.work)(replace(Shape(), **{panel.field: value})) for value in values]
    slope, work_slope = log_slope(values, costs), log_slope(values, work)
    return {
        "job": panel.job,
        "cost": panel.cost,
        "measure": f"{UNITS[panel.cost]} {job.unit}" if panel.cost == "time" else UNITS[panel.cost],
        "field": panel.field,
        "values": list(values),
        "costs": list(costs),
        "work": work,
        "slope": slope,
        "work_slope": work_slope,
        "as_the_work": slope <= work_slope + 0.2,
    }


def log_slope(values: Sequence[float], costs: Sequence[float]) -> float:
    """The exponent by which `costs` grow with `values`: a least-squares line through the three largest.

    >>> round(log_slope([1, 10, 20, 40], [7, 100, 400, 1600]), 6)
    2.0
    """
    return float(np.polyfit(np.log(values[-3:]), np.log(costs[-3:]), 1)[0])


def slopes_table(panels: Sequence[Mapping[str, Any]]) -> str:
    """Slopes beside those of the work, one panel a row."""
    rows = []
    for panel in panels:
        ends = (f"{panel['costs'][end]:.3g} at {panel['values'][end]:,}" for end in (0, -1))
        slopes = (f"{panel[name]:.2f}" for name in ("slope", "work_slope"))
        faster = "FASTER" if panel["as_the_work"] is False else ""
        rows.append([panel["job"], panel["measure"], panel["field"], *ends, *slopes, faster])
    return format_table(["job", "cost", "by", "from", "to", "slope", "work", ""], rows, text_columns=5)


def plot(path: Path, panels: Sequence[Mapping[str, Any]]) -> None:
    """Draws every panel: what was measured, and a line that grows as the work does and ends where that ends."""
    from matplotlib.figure import Figure

    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.9 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid, panels, strict=False):
        values, costs, work = (np.asarray(panel[name], float) for name in ("values", "costs", "work"))
        color = "#d55e00" if panel["as_the_work"] is False else "#0072b2"
        axes.plot(values, costs, color=color, marker="o", label=f"measured, slope {panel['slope']:.2f}")
        ideal = work / work[-1] * costs[-1]
        axes.plot(
            values, ideal, color="#7f7f7f", linestyle="--", label=f"the work, slope {panel['work_slope']:.2f}"
        )
        axes.set(xscale="log", yscale="log", xlabel=panel["field"], ylabel=panel["measure"], title=panel["job"])
        low, high = min(costs.min(), ideal.min()), max(costs.max(), ideal.max())
        middle = (low * high) ** 0.5  # at least two decades, so that noise does not look like growth
        axes.set_ylim(min(low / 1.5, middle / 10), max(high * 1.5, middle * 10))
        axes.set_xticks(values, [_compact(value) for value in panel["values"]], fontsize=8)
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=70)


def _compact(value: int) -> str:
    """A whole number in few letters.

    >>> _compact(64), _compact(16_384), _compact(10_000_000)
    ('64', '16k', '10M')
    """
    if value >= 1_000_000:
        return f"{value / 1_000_000:.0f}M"
    return f"{value / 1000:.0f}k" if value >= 10_000 else str(value)


def _status_mebibytes(field: str) -> float:
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    options = tyro.cli(GrowthConfig, prog="cost_growth")
    sys.exit(run_command(lambda: run_growth(options, stdout_console())))
