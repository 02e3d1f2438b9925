"""`jaxlm tokenize`."""

from dataclasses import dataclass
from typing import Any, Literal

from tyro.conf import DisallowNone

from jaxlm.cli.options import Console, JsonFlag, OptionalPath
from jaxlm.cli.shared import describe_text, load_text
from jaxlm.runs.config import DEFAULT_VOCAB_SIZE
from jaxlm.utils.terminal import print_plain


@dataclass(frozen=True)
class TokenizeOptions:
    """Train or load a tokenizer, and show how it encodes a text."""

    text: OptionalPath = None
    """UTF-8 text file to use instead of a named corpus."""
    corpus: str = "tinyshakespeare"
    """Named corpus."""
    tokenizer: Literal["char", "byte", "bpe"] = "bpe"
    """Unit of a token: a character, a byte, or a piece learned by byte-pair encoding."""
    vocab_size: DisallowNone[int | None] = None
    """bpe: size of the vocabulary, at least 256; None means 4096."""
    load: OptionalPath = None
    """tokenizer.json, or a directory that contains it, to load instead of training a tokenizer."""
    encode: DisallowNone[str | None] = None
    """Show the tokens of this text."""
    out: OptionalPath = None
    """Save the tokenizer to this file."""
    json: JsonFlag = False


def inspect_tokenizer(options: TokenizeOptions, console: Console) -> dict[str, Any]:
    """Train or load a tokenizer, report statistics of a text under it, and save it if requested."""
    import numpy as np

    from jaxlm.runs.report.tables import show_whitespace
    from jaxlm.text.tokenizers import load_tokenizer, train_tokenizer

    vocab_size, load, out = options.vocab_size, options.load, options.out
    if vocab_size is not None and (load is not None or options.tokenizer != "bpe"):
        raise ValueError(f"--vocab-size {vocab_size} is only for training --tokenizer bpe; remove it")
    if out is not None and out.exists():
        raise FileExistsError(f"{out} exists; choose another --out, or remove it first")
    corpus = load_text(options.text, options.corpus)
    if load is None:
        size = DEFAULT_VOCAB_SIZE if vocab_size is None else vocab_size
        tokenizer = train_tokenizer(options.tokenizer, corpus.text, size)
    else:
        tokenizer = load_tokenizer(load / "tokenizer.json" if load.is_dir() else load)
    ids = tokenizer.encode(corpus.text)
    encoded = None if options.encode is None else tokenizer.encode(options.encode).tolist()
    if out is not None:
        tokenizer.save(out)
    tokens = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
    shown = [show_whitespace(token) for token in tokens]
    counts = np.bincount(ids, minlength=tokenizer.vocab_size).tolist()
    by_count = sorted(range(len(tokens)), key=lambda token: -counts[token])
    frequent = [token for token in by_count[:20] if counts[token]]
    longest = sorted(range(len(tokens)), key=lambda token: -len(tokens[token]))[:10]
    unused, bytes_per_token = counts.count(0), len(corpus.text.encode()) / len(ids)
    described = describe_text(corpus)
    print_plain(
        console,
        f"{described['text']}: {len(corpus.text):,} characters, {len(ids):,} tokens, {bytes_per_token:.3f} "
        f"bytes/token, vocabulary {tokenizer.vocab_size:,} ({unused:,} do not occur in this text)",
    )
    print_plain(console, "frequent: " + "  ".join(shown[token] for token in frequent))
    print_plain(console, "longest: " + "  ".join(shown[token] for token in longest))
    if encoded is not None:
        print_plain(console, "encoded: " + " ".join(f"{shown[token]}[{token}]" for token in encoded))
    if out is not None:
        print_plain(console, f"saved: {out}")
    return {
        **described,
        "vocab_size": tokenizer.vocab_size,
        "tokens": len(ids),
        "bytes_per_token": bytes_per_token,
        "unused": unused,
        "frequent": [{"id": token, "token": tokens[token], "count": counts[token]} for token in frequent],
        "longest": [{"id": token, "token": tokens[token]} for token in longest],
        "encoded": None if encoded is None else [{"id": token, "token": tokens[token]} for token in encoded],
        "out": None if out is None else str(out),
    }
