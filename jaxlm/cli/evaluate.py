"""`jaxlm evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jaxlm
from jaxlm.cli.shared import Console, DeviceOptions, load_text, open_model
from jaxlm.utils.terminal import print_plain


@dataclass(frozen=True)
class EvaluateOptions(DeviceOptions):
    """Compute nats per token, perplexity and bits per byte of a text under a trained model."""

    text: Path | None = None  # UTF-8 text file to evaluate on. None means --corpus, or else the text of the run.
    corpus: str | None = None  # Named corpus to evaluate on.
    tokens: Path | None = None  # Directory of jaxlm encode to evaluate on.
    # Part of the text, split as in training. None means validation for the run's own text, and all otherwise.
    part: Literal["validation", "train", "all"] | None = None
    batch_size: int = 256  # Windows per forward pass. Affects only speed and memory.


def evaluate_text(options: EvaluateOptions, console: Console) -> dict[str, Any]:
    """Evaluate a model on a text, or on a part of it."""
    from jaxlm.text.dataset import check_encoded_by, count_bytes, encode_text

    path = options.model
    named = [name for name in ("text", "corpus", "tokens") if getattr(options, name) is not None]
    if len(named) > 1:
        first, second = (f"{name} {getattr(options, name)}" for name in named[:2])
        raise ValueError(f"{first} and {second} exclude each other; remove one")
    model, variables, tokenizer, device = open_model(options, console)
    run = jaxlm.open_run(path) if (path / "manifest.json").exists() else None
    if run is None and not named:
        raise ValueError(f"{path} is not a run directory; pass a text with --text FILE or --corpus NAME")
    source = options if run is None or named else run.config
    corpus, document, stream = load_text(source.text, source.corpus, source.tokens)
    part = options.part or ("all" if named else "validation")
    if run is not None and not named and corpus.sha256 != run.manifest["corpus"]["sha256"]:
        raise ValueError(f"{corpus.source} has changed since {path} was trained; use --text to evaluate on it")
    if stream is not None:
        check_encoded_by(tokenizer, stream, corpus.source)
    ids = encode_text(tokenizer, corpus.text, console) if stream is None else stream
    if part != "all":
        train_ids, val_ids = jaxlm.split_ids(ids, 0.1 if run is None else run.config.val_fraction)
        ids = train_ids if part == "train" else val_ids
    result = jaxlm.evaluate(model, variables, ids, batch_size=options.batch_size, device=device)
    bits = jaxlm.bits_per_byte(result.nats_per_token, count_bytes(tokenizer, ids) / len(ids))
    figures = f"{result.num_tokens:,} tokens, perplexity {result.perplexity:,.2f}, {result.nats_per_token:.4f}"
    print_plain(console, f"{document['text']}, {part}: {figures} nats/token, {bits:.3f} bits/byte")
    document |= {"part": part, **result._asdict(), "bits_per_byte": bits, "device": device.platform}
    return {"model": str(path), **document}
