"""Every experiment checks its own options and its text before it starts."""

import re
from pathlib import Path

import pytest

from experiments.findings import (
    bigram_optimum,
    context_length,
    entropy_floor,
    makemore_names,
    reference_perplexities,
    text_degeneration,
    token_order,
)

BIGRAM, CONTEXT = bigram_optimum.BigramOptimumOptions, context_length.ContextLengthOptions
FLOOR, NAMES = entropy_floor.EntropyFloorOptions, makemore_names.MakemoreNamesOptions
DEGENERATION = text_degeneration.TextDegenerationOptions


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (bigram_optimum, BIGRAM(steps=0), "--steps must be at least 1, got 0"),
        (context_length, CONTEXT(longest=0), "--longest must be at least 1, got 0"),
        (entropy_floor, FLOOR(vocab_size=1), "--vocab-size must be in [2, 64], got 1"),
        (entropy_floor, FLOOR(num_tokens=999), "--num-tokens must be at least 1000, got 999"),
        (entropy_floor, FLOOR(steps=0), "--steps must be at least 1, got 0"),
        (makemore_names, NAMES(), "--text FILE is required"),
        (makemore_names, NAMES(text=Path("x"), steps=0), "--steps must be at least 1, got 0"),
        (
            reference_perplexities,
            reference_perplexities.ReferencePerplexitiesOptions(seeds=0),
            "--seeds must be at least 1, got 0",
        ),
    ],
)
def test_prepare_refuses_an_option(module, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        module.prepare(options)


@pytest.mark.parametrize(
    ("module", "options", "content", "message"),
    [
        (token_order, token_order.TokenOrderOptions, "too short", "use a longer text"),
        (context_length, CONTEXT, "too short", "use a longer text"),
        (text_degeneration, DEGENERATION, "the cat sat\n" * 99, "needs 404: use a longer text"),
        (makemore_names, NAMES, "a.b\n" * 20, "the name 'a.b' contains '.'"),
    ],
)
def test_prepare_refuses_a_text(module, options, content, message, tmp_path):
    (tmp_path / "text.txt").write_text(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        module.prepare(options(text=tmp_path / "text.txt"))
