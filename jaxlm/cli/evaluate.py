"""`jaxlm evaluate`."""

from dataclasses import dataclass
from typing import Any, Literal

from tyro.conf import DisallowNone

import jaxlm
from jaxlm.cli.options import Checkpoint, Console, Device, JsonFlag, ModelPath, OptionalPath
from jaxlm.cli.shared import describe_text, load_text, open_model_on_cpu, select_device
from jaxlm.utils.terminal import print_plain


@dataclass(frozen=True)
class EvaluateOptions:
    """Compute nats per token, perplexity and bits per byte of a text under a trained model."""

    model: ModelPath
    text: OptionalPath = None
    """UTF-8 text file to evaluate on. None means --corpus, or else the text of the run."""
    corpus: DisallowNone[str | None] = None
    """Named corpus to evaluate on. None means --text, or else the text of the run."""
    part: DisallowNone[Literal["validation", "train", "all"] | None] = None
    """Part of the text, split as in training. None means validation for the text of the run, or else all."""
    checkpoint: Checkpoint = "final"
    batch_size: int = 256
    """Windows per forward pass. Affects only speed and memory."""
    device: Device = "auto"
    json: JsonFlag = False


def evaluate_text(options: EvaluateOptions, console: Console) -> dict[str, Any]:
    """Evaluate a model on a text, or on a part of it."""
    from jaxlm.runs.directory import is_run
    from jaxlm.runs.load import read_run_config
    from jaxlm.runs.manifest import read_manifest

    path, text, corpus_name = options.model, options.text, options.corpus
    if text is not None and corpus_name is not None:
        raise ValueError(f"--text {text} and --corpus {corpus_name} both name a text; remove one of them")
    model, variables, tokenizer = open_model_on_cpu(path, options.checkpoint)
    device = select_device(options.device, variables, console)
    config = read_run_config(path) if is_run(path) else None
    if text is not None or corpus_name is not None:
        corpus, part = load_text(text, corpus_name), options.part or "all"
    elif config is not None:
        corpus, part = load_text(config.text, config.corpus), options.part or "validation"
        if corpus.sha256 != read_manifest(path)["corpus"]["sha256"]:
            raise ValueError(f"{corpus.source} has changed since {path} was trained; use --text to evaluate on it")
    else:
        remedy = "name one with --text FILE or --corpus NAME"
        raise ValueError(f"{path} is not a run directory, so it has no text of its own; {remedy}")
    ids = tokenizer.encode(corpus.text)
    if part != "all":
        train_ids, val_ids = jaxlm.split_ids(ids, 0.1 if config is None else config.val_fraction)
        ids = train_ids if part == "train" else val_ids
    evaluation = jaxlm.evaluate(model, variables, ids, batch_size=options.batch_size, device=device)
    bits = jaxlm.bits_per_byte(evaluation.nats_per_token, len(tokenizer.decode_bytes(ids)) / len(ids))
    described = describe_text(corpus)
    print_plain(
        console,
        f"{described['text']}, {part}: {evaluation.num_tokens:,} tokens, perplexity {evaluation.perplexity:,.2f}, "
        f"{evaluation.nats_per_token:.4f} nats/token, {bits:.3f} bits/byte",
    )
    results = {**evaluation._asdict(), "bits_per_byte": bits, "device": device.platform}
    return {"model": str(path), **described, "part": part, **results}
