"""`jaxlm count`."""

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from jaxlm.cli.shared import CommandOptions, Console, open_dask
from jaxlm.utils.terminal import print_plain


@dataclass(frozen=True)
class CountOptions(CommandOptions):
    """Count the n-grams of encoded text for `CountsNgramLM.from_counts`, or add the counts of several texts."""

    # Directory of `jaxlm encode`, a .bin file, or a .npy file of ids.
    tokens: Annotated[Path | None, Positional, arg(metavar="TOKENS")] = None
    _: KW_ONLY
    out: Path  # Directory of counts to write.
    order: int = 5  # Length of the n-grams.
    vocab_size: int | None = None  # None means that of the directory, or the largest id plus 1.
    merge: tuple[Path, ...] = ()  # Directories of counts to add, instead of counting TOKENS.
    workers: int | None = None  # Number of threads; None means one per core.
    # Address of a Dask scheduler, such as tcp://HOST:8786, to count on its cluster. Requires jaxlm[dask].
    dask: str | None = None


def count_tokens(options: CountOptions, console: Console) -> dict[str, Any]:
    """Count or add n-grams, save the counts, and report their number."""
    import jaxlm
    from jaxlm.models.ngram_counts import NgramCounts
    from jaxlm.text.open_tokens import open_npy
    from jaxlm.utils.checks import check_at_least

    if (options.tokens is None) == (not options.merge):
        raise ValueError("jaxlm count requires either TOKENS or --merge A B")
    if options.workers is not None:
        check_at_least("--workers", options.workers, 1)
    if options.out.exists():
        raise FileExistsError(f"{options.out} exists; choose another --out, or remove it first")
    if options.tokens is None:
        first, *others = map(NgramCounts.load, options.merge)
        counts = sum(others, start=first)
    else:
        is_npy = options.tokens.suffix == ".npy"
        ids = open_npy(options.tokens) if is_npy else jaxlm.open_tokens(options.tokens)
        if ids.dtype.kind not in "iu" or ids.ndim != 1:
            raise ValueError(f"{options.tokens} must be integers [T], got {ids.dtype}{list(ids.shape)}")
        with _open_executor(options) as (executor, workers):
            chosen: Any = {"vocab_size": options.vocab_size, "executor": executor, "workers": workers}
            counts = jaxlm.count_ngrams(ids, options.order, **chosen, console=console)
    counts.save(options.out)
    num_ngrams, num_windows = len(counts.counts), int(counts.counts.sum())
    print_plain(
        console, f"{options.out}: {num_ngrams:,} distinct n-grams of {num_windows:,}, order {counts.order}"
    )
    return {
        "out": str(options.out),
        "order": counts.order,
        "vocab_size": counts.vocab_size,
        "ngrams": num_ngrams,
        "windows": num_windows,
    }


@contextmanager
def _open_executor(options: CountOptions) -> Iterator[tuple[Executor, int]]:
    """Yield the executor of the Dask cluster, or threads, and the number of its threads."""
    from jaxlm.utils.workers import DaemonExecutor

    if options.dask is not None:
        with open_dask(options.dask, options.workers) as chosen:
            yield chosen
        return
    workers = options.workers or os.cpu_count() or 1
    with DaemonExecutor(workers) as executor:
        yield executor, workers
