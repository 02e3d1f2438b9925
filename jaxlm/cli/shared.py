"""Options and helpers of several subcommands: open a model, read a text, start workers."""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

import jaxlm
from jaxlm.utils.atomic_files import expand
from jaxlm.utils.workers import check_workers

if TYPE_CHECKING:
    import jax

Console = Any  # rich's Console, imported late because it takes 0.1 s and --help does not need it
_DASK_SECONDS = 30  # to wait for the scheduler
TYRO_CONFIG = FlagCreatePairsOff, OmitArgPrefixes


# The comments after the fields of all options are their help text.
@dataclass(frozen=True)
class CommandOptions:
    """Options of every subcommand."""

    _: KW_ONLY
    json: bool = False  # Print one JSON document to standard output, everything else to standard error.

    def __post_init__(self) -> None:
        """Expand `~` in paths, which a shell leaves in `--out=~/run`."""
        for name, value in vars(self).items():
            if isinstance(value, Path):
                object.__setattr__(self, name, expand(value))
            elif isinstance(value, tuple):
                expanded = (expand(each) if isinstance(each, Path) else each for each in value)
                object.__setattr__(self, name, tuple(expanded))


@dataclass(frozen=True)
class ModelOptions(CommandOptions):
    """Options of a subcommand that opens a model."""

    # Run directory, saved model directory, or exported file.
    model: Annotated[Path, Positional, arg(metavar="MODEL")]
    _: KW_ONLY
    # Checkpoint of a run: final, best (lowest validation loss), last, or a number of steps.
    checkpoint: Literal["final", "best", "last"] | int = "final"


@dataclass(frozen=True)
class DeviceOptions(ModelOptions):
    """Options of a subcommand that runs a model."""

    _: KW_ONLY
    device: str = "auto"  # auto, cpu, gpu, cuda, rocm, tpu or metal.


@dataclass(frozen=True)
class WorkerOptions(CommandOptions):
    """Options of a subcommand that works on many pieces of a text at once."""

    _: KW_ONLY
    workers: int | None = None  # Number of threads; None means one per core.
    # Address of a Dask scheduler, such as tcp://HOST:8786, to work on its cluster. Requires jaxlm[dask].
    dask: str | None = None


@contextmanager
def open_executor(options: WorkerOptions) -> Iterator[tuple[Executor | None, int]]:
    """Yield the executor of the Dask cluster, or None without `--dask`, and the number of threads.

    Dask repeats the calls of a worker that dies.
    """
    address, workers = options.dask, options.workers
    if workers is not None:
        check_workers(workers)
    if address is None:
        yield None, workers or os.cpu_count() or 1
        return
    try:
        from distributed import Client
    except ImportError:
        raise ValueError("--dask requires an extra: pip install 'jaxlm[dask]'") from None
    with Client(address, timeout=_DASK_SECONDS) as client:  # type: ignore[no-untyped-call]
        num_threads = workers or sum(client.nthreads().values())
        if not num_threads:
            raise ValueError(f"the Dask cluster at {address} has no workers; start dask worker {address}")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sending large graph")  # a piece of text has a few MB
            try:
                yield client.get_executor(), num_threads
            except Exception as error:  # the errors of Dask have no common class
                is_of_dask = type(error).__module__.partition(".")[0] == "distributed"
                if not (is_of_dask or isinstance(error, CancelledError)):
                    raise
                reason = f"{type(error).__name__}: {error!s:.200}"
                raise ConnectionError(
                    f"lost the Dask cluster at {address} ({reason}); repeat the command"
                ) from error


def open_model_on_cpu(options: ModelOptions) -> tuple[Any, Any, "jaxlm.Tokenizer"]:
    """Return the model, its variables, and its tokenizer. Raise a ValueError if it has none.

    The variables are on the CPU, unless JAX_PLATFORMS excludes it.
    """
    import jax

    has_cpu = "cpu" in (jax.config.jax_platforms or "cpu").split(",")  # type: ignore[attr-defined]
    with jax.default_device(jaxlm.resolve_device("cpu") if has_cpu else None):
        model, variables, tokenizer = jaxlm.load_model(options.model, options.checkpoint)
    if tokenizer is None:
        remedy = "save it with one: save_model(path, model, variables, tokenizer)"
        raise ValueError(f"{options.model} was saved without a tokenizer; {remedy}")
    return model, variables, tokenizer


def open_model(options: DeviceOptions, console: Console) -> tuple[Any, Any, "jaxlm.Tokenizer", "jax.Device"]:
    """Return what `open_model_on_cpu` does, and the device of `--device`, which is printed with the reason."""
    from jaxlm.models.interface import num_params
    from jaxlm.runs.setup import select_device

    model, variables, tokenizer = open_model_on_cpu(options)
    return model, variables, tokenizer, select_device(options.device, num_params(variables), console)


def load_text(
    text: Path | None, corpus: str | None, tokens: Path | None = None
) -> tuple["jaxlm.Corpus", dict[str, Any], "jaxlm.TokenStream | None"]:
    """Return the text of `--text`, or else of `--corpus`; its name or path, source and checksum as JSON.

    With `--tokens`, return a corpus without a text, and the encoded text.
    """
    from jaxlm.text.dataset import open_source

    loaded, stream = open_source(corpus or "", text, tokens)
    name = loaded.name if text is None and tokens is None else loaded.source
    return loaded, {"text": name, "source": loaded.source, "sha256": loaded.sha256}, stream
