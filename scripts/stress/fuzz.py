"""Feed damaged files to every reader. Each must be refused with a clear error, or keep
its meaning if it has a checksum.

    scripts/fuzz --inputs 10000 --seed 0    # 6 minutes on one core

The inputs are saved models, tokenizers, ARPA files, configurations and texts, damaged in one of many ways:
random bytes, truncation, flipped bits, deep JSON, huge numbers, names with `../`, NaN, links, pipes, directories,
swapped files. About half of the changed files get valid checksums again, to reach the checks after the checksum.

A violation is an error that is neither ValueError nor OSError, a result that differs from the original although no
checksum was renewed, a result that is inconsistent, too much time or memory, or any change on disk. It is reported
with the index of its input; `--only INDEX` runs that input alone.
"""

import argparse
import contextlib
import dataclasses
import errno
import faulthandler
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from model_mutations import KINDS, mutate
from targets import TARGETS, check_use, is_same, load, make_originals

SECONDS = 20.0  # limit for one input, generous for a busy machine
MEMORY = 96 * 2**20  # limit in addition to five times the input's size: its bytes, and 4 per character


@dataclasses.dataclass
class Tally:
    """Outcomes of the inputs of one kind. `other` counts inputs accepted with other content."""

    inputs: int = 0
    refused: int = 0
    same: int = 0
    other: int = 0
    slowest: float = 0.0
    memory: int = 0


class Violation(Exception):
    """Something that must not happen for any input."""


def run_input(
    seed: int, index: int, originals: dict[str, list[Path]], root: Path
) -> tuple[str, str, str, float, int]:
    """Run one input. Return its target, kind, outcome, seconds and bytes of memory, or raise a Violation."""
    rng = random.Random(f"{seed} {index}")  # noqa: S311
    target = rng.choices(list(TARGETS), list(TARGETS.values()))[0]
    kind = rng.choice(KINDS[target])
    original = rng.choice(originals[target])
    path, outside = root / "inputs" / f"{target}-{index}", root / "outside"
    for folder in (path.parent, outside):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    shutil.copy(original, path)
    may_differ = mutate(rng, target, kind, path, originals[target], outside)
    before, size = list_entries(root), sum(entry[1] for entry in list_entries(path.parent).values())
    found, outcome = None, "same"
    with time_limit(), peak_memory() as memory:
        begin = time.perf_counter()
        try:
            found = load(target, path)
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise Violation("out of memory") from error
            outcome = "refused"
        except ValueError as error:
            outcome = "refused"
            str(error).encode("utf-8", "backslashreplace")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also the panic of a library in Rust, which is not an Exception
            raise Violation(f"{type(error).__name__}: {error!s:.300}") from error
        seconds = time.perf_counter() - begin
    if memory[0] > MEMORY + 5 * size:
        raise Violation(f"{memory[0] / 2**20:.0f} MiB of memory for an input of {size} bytes")
    if list_entries(root) != before:
        raise Violation("files changed on disk")
    if found is not None:
        try:
            check_use(target, path, found)
        except Exception as error:  # whatever it is, the loader should have refused the input
            raise Violation(f"the accepted input cannot be used: {error!r:.300}") from error
        if not is_same(found, load(target, original)):
            outcome = "other"
            if not may_differ:
                raise Violation("accepted with other content")
    return target, kind, outcome, seconds, memory[0]


def list_entries(folder: Path) -> dict[str, tuple[int, ...]]:
    """Map every entry below `folder` to its mode, size, time and inode, so that any change shows."""
    found, folders = {}, [str(folder)]
    for each in folders:
        for entry in os.scandir(each):
            status = entry.stat(follow_symlinks=False)
            found[entry.path] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino)
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
    return found


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Raise a Violation after `SECONDS`. End the process if native code blocks for another minute."""

    def stop(*_: Any) -> None:
        raise Violation(f"no result after {SECONDS:.0f} s")

    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    faulthandler.dump_traceback_later(SECONDS + 60, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Measure the peak growth of the process in bytes, as a list of one number. 0 outside Linux."""
    growth = [0]
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        yield growth
        return
    before = _status("VmRSS:")
    yield growth
    growth[0] = max(_status("VmHWM:") - before, 0)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    return 0


def run(inputs: Iterator[int], seed: int, report: Callable[[str], None] = print) -> int:
    """Run the inputs, print the table, and return the number of violations."""
    tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
    violations = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        (root / "originals").mkdir()
        (root / "canary").write_text("canary", "utf-8")
        originals = make_originals(root / "originals")
        for target, paths in originals.items():  # one-time setup of JAX does not count for the first input
            for path in paths:
                check_use(target, path, load(target, path))
        for count, index in enumerate(inputs):
            try:
                target, kind, outcome, seconds, memory = run_input(seed, index, originals, root)
            except Violation as violation:
                violations += 1
                report(f"VIOLATION --seed {seed} --only {index}: {violation}")
                if violation.__cause__ is not None:
                    report("".join(traceback.format_exception(violation.__cause__)[-4:]))
                continue
            tally = tallies[target, kind]
            tally.inputs += 1
            setattr(tally, outcome, getattr(tally, outcome) + 1)
            tally.slowest, tally.memory = max(tally.slowest, seconds), max(tally.memory, memory)
            if count % 500 == 499:
                jax.clear_caches()
        report(format_table(tallies))
    return violations


def format_table(tallies: dict[tuple[str, str], Tally]) -> str:
    """Return the tallies as a table."""
    heads = ("input", "change", "inputs", "refused", "same", "other", "slowest", "memory")
    lines = ["{:<10} {:<8} {:>6} {:>7} {:>5} {:>5} {:>10} {:>8}".format(*heads)]
    total = Tally()
    for (target, kind), tally in sorted(tallies.items()):
        lines.append(_format_row(target, kind, tally))
        for name in ("inputs", "refused", "same", "other"):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
        total.slowest, total.memory = max(total.slowest, tally.slowest), max(total.memory, tally.memory)
    return "\n".join([*lines, _format_row("all", "", total)])


def _format_row(target: str, kind: str, tally: Tally) -> str:
    return (
        f"{target:<10} {kind:<8} {tally.inputs:>6} {tally.refused:>7} {tally.same:>5} {tally.other:>5} "
        f"{1000 * tally.slowest:>7.0f} ms {tally.memory / 2**20:>4.0f} MiB"
    )


def main() -> int:
    """Run the fuzzer from the command line and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="number of inputs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices (default: %(default)s)")
    parser.add_argument("--only", type=int, help="run the input with this index alone")
    options = parser.parse_args()
    chosen = range(options.inputs) if options.only is None else [options.only]
    begin = time.monotonic()
    violations = run(iter(chosen), options.seed)
    print(f"{len(chosen)} inputs, seed {options.seed}: {violations} violations, {time.monotonic() - begin:.0f} s")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
