"""`jaxlm count`."""

from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from jaxlm.cli.shared import Console, WorkerOptions, open_executor
from jaxlm.utils.terminal import print_plain

_ORDER = 5


@dataclass(frozen=True)
class CountOptions(WorkerOptions):
    """Count the n-grams of encoded text for `CountsNgramLM.from_counts`, or add the counts of several texts."""

    # Directory of `jaxlm encode`, a .bin file, or a .npy file of ids.
    tokens: Annotated[Path | None, Positional, arg(metavar="TOKENS")] = None
    _: KW_ONLY
    out: Path  # Directory of counts to write.
    order: int | None = None  # Length of the n-grams; None means 5.
    vocab_size: int | None = None  # None means that of the directory, or the largest id plus 1.
    merge: tuple[Path, ...] = ()  # Directories of counts to add, instead of counting TOKENS.


def count_tokens(options: CountOptions, console: Console) -> dict[str, Any]:
    """Count or add n-grams, save the counts, and report their number."""
    import jaxlm
    from jaxlm.models.ngram_counts import NgramCounts
    from jaxlm.text.open_tokens import open_npy
    from jaxlm.utils.workers import DaemonExecutor

    if (options.tokens is None) == (not options.merge):
        raise ValueError("jaxlm count requires either TOKENS or --merge A B")
    counting = [name for name in ("order", "vocab_size", "workers", "dask") if getattr(options, name) is not None]
    if options.merge and counting:
        raise ValueError(f"--{counting[0].replace('_', '-')} does not apply to --merge; remove it")
    if options.out.exists():
        raise FileExistsError(f"{options.out} exists; choose another --out, or remove it first")
    options.out.mkdir(parents=True)  # raises an error now, and not after counting, if it cannot be written
    options.out.rmdir()  # `save` creates it
    if options.tokens is None:
        first, *others = map(NgramCounts.load, options.merge)
        counts = sum(others, start=first)
    else:
        is_npy = options.tokens.suffix == ".npy"
        ids = open_npy(options.tokens) if is_npy else jaxlm.open_tokens(options.tokens)
        if ids.dtype.kind not in "iu" or ids.ndim != 1:
            raise ValueError(f"{options.tokens} must be integers [T], got {ids.dtype}{list(ids.shape)}")
        with ExitStack() as stack:
            executor, workers = stack.enter_context(open_executor(options))
            executor = executor or stack.enter_context(DaemonExecutor(workers))
            chosen: Any = {"vocab_size": options.vocab_size, "executor": executor, "workers": workers}
            order = _ORDER if options.order is None else options.order
            counts = jaxlm.count_ngrams(ids, order, **chosen, console=console)
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
