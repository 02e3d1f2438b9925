"""`jaxlm tokenize`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxlm.cli.shared import CommandOptions, Console, load_text
from jaxlm.runs.config import TrainConfig, resolve
from jaxlm.utils.terminal import print_plain


@dataclass(frozen=True)
class TokenizeOptions(CommandOptions):
    """Train or load a tokenizer, and show how it encodes a text."""

    text: Path | None = None  # UTF-8 text file to use instead of a named corpus.
    corpus: str = "tinyshakespeare"  # Named corpus.
    # Unit of a token: character, byte, or byte-pair encoding; or a file that --out wrote, or a run.
    tokenizer: Literal["char", "byte", "bpe"] | Path = "bpe"
    vocab_size: int | None = None  # bpe: size of the vocabulary, at least 256; None means 4096.
    encode: str | None = None  # Show the tokens of this text. Use --encode=TEXT if it starts with a dash.
    out: Path | None = None  # Save the tokenizer to this file, for jaxlm train --tokenizer FILE.


def inspect_tokenizer(options: TokenizeOptions, console: Console) -> dict[str, Any]:
    """Train or load a tokenizer, report statistics of a text under it, and save it if requested."""
    import numpy as np

    from jaxlm.runs.report.tables import show_whitespace
    from jaxlm.text.dataset import encode_text
    from jaxlm.text.tokenizer_files import make_tokenizer

    config = resolve(TrainConfig(tokenizer=options.tokenizer, vocab_size=options.vocab_size))
    if (out := options.out) is not None and out.exists():
        raise FileExistsError(f"{out} exists; choose another --out, or remove it first")
    corpus, document, _ = load_text(options.text, options.corpus)
    tokenizer = make_tokenizer(config.tokenizer, [corpus.text], config.vocab_size)
    ids = encode_text(tokenizer, corpus.text, console)
    encoded = None if options.encode is None else tokenizer.encode(options.encode).tolist()
    if out is not None:
        tokenizer.save(out)
    counts = np.bincount(ids, minlength=tokenizer.vocab_size)
    frequent = [token for token in np.argsort(-counts, kind="stable")[:20].tolist() if counts[token]]
    document |= {
        "vocab_size": tokenizer.vocab_size,
        "tokens": len(ids),
        "bytes_per_token": len(corpus.text.encode()) / len(ids),
        "unused": int((counts == 0).sum()),
        "frequent": [{"id": i, "token": tokenizer.decode([i]), "count": int(counts[i])} for i in frequent],
        "encoded": encoded and [{"id": i, "token": tokenizer.decode([i])} for i in encoded],
        "out": None if out is None else str(out),
    }
    size = f"{len(corpus.text):,} characters, {len(ids):,} tokens, {document['bytes_per_token']:.3f} bytes/token"
    vocabulary = f"vocabulary {tokenizer.vocab_size:,} ({document['unused']:,} do not occur in this text)"
    print_plain(console, f"{document['text']}: {size}, {vocabulary}")
    for name in ("frequent", "encoded"):
        pieces = (f"{show_whitespace(row['token'])}[{row['id']}]" for row in document[name] or ())
        print_plain(console, f"{name}: {' '.join(pieces)}")
    return document
