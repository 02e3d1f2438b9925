"""How long does fitting n-grams take, and how much memory, also against KenLM? A B A B.

    jaxlm encode TEXT --tokenizer bpe --out tokens
    python -m experiments.speed.ngrams --tokens tokens --kenlm kenlm/build/bin --sizes 4900000 72500000
    python -m experiments.speed.ngrams --quick     # random tokens, without KenLM, 10 s

`fit` is timed in a new process, from a memory map to variables on the device, with modified Kneser-Ney. KenLM's
`lmplz` and `build_binary` are timed from the text of the same ids, one sentence, to the binary model. `--kenlm` is
their folder, built from https://github.com/kpu/kenlm. Peaks are the resident memory of a process. Scoring is the
fastest `perplexity` of the tokens after those of the fit, at most 1.5 million, without compilation.

Targets: at most half of the time of KenLM, a peak of 2.5 GiB with 73 million tokens, 1 us per scored token.
"""

import multiprocessing
import os
import resource
import subprocess
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxlm
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.options import BenchmarkOptions
from experiments.shared.report import format_table

_SCORED = 1_500_000


@dataclass(frozen=True, kw_only=True)
class NgramOptions(BenchmarkOptions):
    """Time fitting and scoring of n-grams."""

    tokens: Path | None = None
    """A .npy file of ids, or a directory of `jaxlm encode`. None: 200,000 random ids."""
    sizes: tuple[int, ...] = ()
    """Numbers of tokens to fit, from the first on. None: all but the last tenth."""
    order: int = 5
    """Length of the n-grams."""
    kenlm: Path | None = None
    """Folder of KenLM's `lmplz` and `build_binary`. None: without KenLM."""
    repeats: int = 2
    """Samples of each variant."""


def prepare(options: NgramOptions) -> Experiment:
    """Check the options."""
    if not options.quick and options.tokens is None:
        raise ValueError("speed.ngrams requires --tokens or --quick")
    return Experiment("speed-ngrams", partial(measure, options), jax.devices("cpu")[0])


def measure(options: NgramOptions, run: RunContext) -> Findings:
    """Time each size with each variant in turn."""
    rows = []
    with tempfile.TemporaryDirectory(dir=run.path) as folder:
        tokens = Path(folder, "random.npy")
        if options.tokens is None:
            np.save(tokens, np.random.default_rng(0).zipf(1.5, 200_000) % 4096)
        tokens = options.tokens or tokens
        num_tokens = len(open_ids(tokens))
        for size in options.sizes or (num_tokens - num_tokens // 10,):
            for repeat in range(options.repeats):
                row = {
                    "tokens": size,
                    "repeat": repeat,
                    **run_in_process(fit_and_score, tokens, size, options.order),
                }
                if options.kenlm is not None:
                    row |= time_kenlm(
                        options.kenlm, Path(folder), np.asarray(open_ids(tokens)[:size]), options.order
                    )
                rows.append(row)
                run.log(format_rows(rows[-1:]))
    return Findings({"rows": rows}, format_rows(rows))


def open_ids(path: Path) -> Any:
    """Return a memory map of the ids."""
    return np.load(path, mmap_mode="r") if path.suffix == ".npy" else jaxlm.open_tokens(path)


def run_in_process(function: Any, *arguments: Any) -> Any:
    """Return what a function returns in a new process, whose peak memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(function, *arguments).result()


def fit_and_score(path: Path, size: int, order: int) -> dict[str, float]:
    """Return seconds of `fit`, the peak in GiB, and microseconds per scored token."""
    ids = open_ids(path)
    vocab_size = 1 + max(int(np.max(ids[begin : begin + 2**22])) for begin in range(0, len(ids), 2**22))
    model = jaxlm.CountsNgramLM(vocab_size, order - 1)
    variables = jaxlm.init(model, jax.random.key(0))
    begin = time.perf_counter()
    variables = jax.block_until_ready(model.fit(variables, ids[:size]))  # type: ignore[no-untyped-call]
    figures = {"fit_s": time.perf_counter() - begin, "fit_gib": to_gib(resource.getrusage(resource.RUSAGE_SELF))}
    scored = np.asarray(ids[size : size + _SCORED])
    seconds = []
    for _ in range(4):
        begin = time.perf_counter()
        jaxlm.perplexity(model, variables, scored)
        seconds.append(time.perf_counter() - begin)
    return figures | {"score_us": min(seconds[1:]) / len(scored) * 1e6}


def time_kenlm(programs: Path, folder: Path, ids: Any, order: int) -> dict[str, float]:
    """Return seconds of both programs and the larger peak in GiB."""
    text, arpa, binary = (folder / f"model.{suffix}" for suffix in ("txt", "arpa", "bin"))
    with text.open("w") as file:
        for begin in range(0, len(ids), 2**20):
            file.write(" ".join(map(str, ids[begin : begin + 2**20].tolist())) + " ")
        file.write("\n")
    options = ["-o", str(order), "-S", "1G", "-T", folder, "--discount_fallback", "--text", text, "--arpa", arpa]
    lmplz_s, lmplz_gib = time_program([programs / "lmplz", *options])
    binary_s, binary_gib = time_program([programs / "build_binary", arpa, binary])
    return {"lmplz_s": lmplz_s, "build_binary_s": binary_s, "kenlm_gib": max(lmplz_gib, binary_gib)}


def time_program(words: list[Any]) -> tuple[float, float]:
    """Return the seconds and the peak in GiB of a program."""
    begin = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ValueError(f"{words[0]} failed with status {process.returncode}")
    return time.perf_counter() - begin, to_gib(usage)


def to_gib(usage: resource.struct_rusage) -> float:
    """Return the peak of the resident memory, which Linux reports in KiB."""
    return usage.ru_maxrss / 2**20


def format_rows(rows: list[dict[str, float]]) -> str:
    """Return the table, with the ratio of the times."""
    headers = [
        "tokens",
        "fit (s)",
        "peak (GiB)",
        "score (us)",
        "lmplz (s)",
        "build_binary (s)",
        "KenLM's peak (GiB)",
        "ratio",
    ]
    names = ["fit_s", "fit_gib", "score_us", "lmplz_s", "build_binary_s", "kenlm_gib"]
    cells = []
    for row in rows:
        ratio = row["fit_s"] / (row["lmplz_s"] + row["build_binary_s"]) if "lmplz_s" in row else None
        figures = [row.get(name) for name in names] + [ratio]
        cells.append([f"{row['tokens']:,}", *["" if each is None else f"{each:.2f}" for each in figures]])
    return format_table(headers, cells)


if __name__ == "__main__":
    main(NgramOptions, prepare)
