"""What an experiment leaves: a run's folder with its options, `table.txt`, `picture.png` and `results.json`."""

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

import jax
import numpy as np
import tyro
from rich.console import Console

import jaxlm
from jaxlm.runs.directory import check_run_path, create_run, new_run_path
from jaxlm.runs.manifest import describe_environment, write_json
from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.terminal import print_plain

# Blue, orange, green, purple, sky, yellow, grey: told apart by readers who see colours differently (Okabe & Ito).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f")


@dataclass(frozen=True)
class Output:
    """Where the findings go."""

    out: Path | None = None
    """The run's folder; None is runs/EXPERIMENT-DATE-TIME."""
    overwrite: bool = False
    """Replace the run that --out already holds."""


# As a field of an experiment's config, its options are --out and --overwrite.
OutputOptions = Annotated[Output, tyro.conf.arg(name="")]


class ExperimentConfig(Protocol):
    """A frozen dataclass, one of whose fields says where the findings go."""

    @property
    def output(self) -> Output: ...


class Findings(NamedTuple):
    """What an experiment found: figures as plain JSON, the same as text, and a picture of them."""

    results: Mapping[str, Any]
    table: str
    picture: Any  # matplotlib's Figure


def run_experiment(name: str, config: ExperimentConfig, console: Console, find: Callable[[], Findings]) -> Path:
    """Writes what `find` finds to a new run's folder, `results.json` last, and returns its path.

    It is called on the device that "auto" takes, with the folder already there: an experiment whose options are
    wrong says so before.

    Raises:
        FileExistsError, OSError: the folder holds something, or cannot be written.
    """
    output = config.output
    if output.out is not None:
        check_run_path(output.out, overwrite=output.overwrite)
    device = jaxlm.resolve_device("auto")
    path = output.out or new_run_path(name)
    settings = json.loads(json.dumps(asdict(config), default=str))  # type: ignore[call-overload]
    with (
        create_run(path, name, settings, device, overwrite=output.overwrite) as run,
        jax.default_device(device),
    ):
        found = find()
        write_atomically(run / "table.txt", found.table)
        write_picture(run / "picture.png", found.picture)
        results = {"schema_version": 1, "config": settings, **found.results}
        write_json(run / "results.json", results | describe_environment(device))
    print_plain(console, f"\n{found.table}\nlook at {path / 'picture.png'}")
    return path


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % interval by Student's t; infinite for a single value.

    >>> mean_and_interval([1.0, 2.0, 3.0])
    (2.0, 2.484...)
    """
    from scipy import stats  # type: ignore[import-untyped]  # JAX needs it; late, for --help does not

    mean, num_values = float(np.mean(values)), len(values)
    if num_values < 2 or not math.isfinite(mean):
        return mean, math.inf
    return mean, float(stats.t.ppf(0.975, num_values - 1) * np.std(values, ddof=1) / math.sqrt(num_values))


def new_figure(width: float, height: float) -> Any:
    """A figure of so many inches."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no window

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def write_picture(path: Path, figure: Any) -> None:
    """Writes the figure as PNG, whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomically(path, picture.getvalue())
