"""How much faster is BPE in pieces than one call of the `tokenizers` library? A B A B.

    python -m experiments.speed.tokenizing                    # tiny Shakespeare ten times, 1 min on 2 CPU cores
    python -m experiments.speed.tokenizing --text FILE        # another text
    python -m experiments.speed.tokenizing --quick

Both give the same ids, which is checked. The unit is a byte of the text as UTF-8: 0.1 us is 10 MB/s.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

import jaxlm
from experiments.shared.benchmark import Benchmark, Ratio, Variant, run_benchmarks
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.options import BenchmarkOptions
from jaxlm.text.bpe import BYTE_OF_CHARACTER


@dataclass(frozen=True, kw_only=True)
class TokenizingOptions(BenchmarkOptions):
    """Time `BPETokenizer.encode` against the `tokenizers` library."""

    text: Path | None = None  # UTF-8 text file; None means tiny Shakespeare, ten times.


def prepare(options: TokenizingOptions) -> Experiment:
    """Load the text."""
    text = (
        jaxlm.load_corpus("tinyshakespeare").text if options.text is None else jaxlm.read_text(options.text).text
    )
    if options.text is None and not options.quick:
        text *= 10
    return Experiment("tokenizing", partial(measure, options, text), jaxlm.resolve_device("cpu"))


def measure(options: TokenizingOptions, text: str, run: RunContext) -> Findings:
    """Encode with each variant in turn."""
    repeats = 2 if options.quick else options.repeats
    return run_benchmarks({"BPE, V=4096": partial(make_benchmark, text)}, run, repeats=repeats)


def make_benchmark(text: str) -> Benchmark:
    """Return the variants, per byte. Raise an AssertionError if their ids differ."""
    tokenizer = jaxlm.BPETokenizer.train(text, 4096)
    library = library_tokenizer(tokenizer)
    assert np.array_equal(tokenizer.encode(text), library.encode(text).ids)
    size = len(text.encode())
    variants = {
        "jaxlm": Variant(partial(tokenizer.encode, text), size),
        "one call": Variant(partial(library.encode, text), size),
    }
    return Benchmark("byte", variants, [Ratio("one call / jaxlm", "one call", "jaxlm")])


def library_tokenizer(tokenizer: jaxlm.BPETokenizer) -> Tokenizer:
    """Return the same tokenizer as an object of the `tokenizers` library."""
    ids = {token: index for index, token in enumerate(BYTE_OF_CHARACTER)}
    ids |= {first + second: len(ids) + index for index, (first, second) in enumerate(tokenizer.merges)}
    library = Tokenizer(models.BPE(vocab=ids, merges=list(tokenizer.merges)))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return library


if __name__ == "__main__":
    main(TokenizingOptions, prepare)
