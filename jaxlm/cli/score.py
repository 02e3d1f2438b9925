"""`jaxlm score`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jaxlm
from jaxlm.cli.shared import Console, DeviceOptions, open_model
from jaxlm.utils.terminal import print_plain


@dataclass(frozen=True)
class ScoreOptions(DeviceOptions):
    """Print the log-probability, rank and entropy of each token of a text, and the bits per byte of the whole."""

    text: Path  # UTF-8 text file to score.
    batch_size: int = 256  # Tokens per forward pass. Affects only speed and memory.


def score_text(options: ScoreOptions, console: Console) -> dict[str, Any]:
    """Score a text token by token. The first tokens, as many as the context length, are not scored."""
    import numpy as np

    from jaxlm.runs.report.tables import show_whitespace
    from jaxlm.text.dataset import count_bytes, encode_text

    model, variables, tokenizer, device = open_model(options, console)
    ids = encode_text(tokenizer, jaxlm.read_text(options.text).text, console)
    scores = jaxlm.score(model, variables, ids, batch_size=options.batch_size, device=device)
    columns = ids[model.context_length :], *scores
    names = "id", "log_prob", "rank", "entropy"
    rows = [dict(zip(names, row, strict=True)) for row in zip(*(each.tolist() for each in columns), strict=True)]
    tokens = [row | {"token": tokenizer.decode([row["id"]])} for row in rows]
    nats = -float(scores.log_probs.mean(dtype=np.float64))
    bits = jaxlm.bits_per_byte(nats, count_bytes(tokenizer, ids) / len(ids))
    print_plain(console, f"{'log-prob':>10} {'rank':>6} {'entropy':>8}  token")
    for row in tokens:
        figures = f"{row['log_prob']:>10.4f} {row['rank']:>6,} {row['entropy']:>8.4f}"
        print_plain(console, f"{figures}  {show_whitespace(row['token'])}")
    total = f"{len(tokens):,} tokens, {nats:.4f} nats/token, {bits:.3f} bits/byte"
    print_plain(console, f"{options.text}: {total}")
    document = {"model": str(options.model), "text": str(options.text), "device": device.platform}
    return document | {"nats_per_token": nats, "bits_per_byte": bits, "tokens": tokens}
