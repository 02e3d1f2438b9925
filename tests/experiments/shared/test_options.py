"""Shared options are checked, and the error names the value and the limit."""

import pytest

from experiments.shared.options import BenchmarkOptions, SeedOptions, TokenizerOptions, check_options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BenchmarkOptions(repeats=0), "--repeats must be at least 1, got 0"),
        (SeedOptions(seed=-1), r"--seed must be in \[0, 2\*\*32\), got -1"),
        (SeedOptions(seed=2**32), "got 4294967296"),
        (TokenizerOptions(tokenizer="char", vocab_size=300), "--vocab-size 300 requires --tokenizer bpe"),
    ],
)
def test_check_options_raises(options, message):
    with pytest.raises(ValueError, match=message):
        check_options(options)
    check_options(SeedOptions(seed=2**32 - 1))
    check_options(TokenizerOptions(vocab_size=300))
