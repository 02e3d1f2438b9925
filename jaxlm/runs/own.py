"""What a caller passes to a run instead of options: a model, an optimizer, a tokenizer and metrics."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import ArrayLike

from jaxlm._types import NpIntT, Variables
from jaxlm.checkpoints.model_spec import model_from_spec, model_to_spec
from jaxlm.models import LanguageModel
from jaxlm.models.interface import compute_logits
from jaxlm.text.batching import check_ids
from jaxlm.text.dataset import Dataset
from jaxlm.text.tokenizer_files import tokenizer_to_json
from jaxlm.text.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer
from jaxlm.utils.json_files import sha256_of

Metrics = Mapping[str, Callable[[Any, Any, Any], Any]] | None  # name -> metric(model, variables, val_ids)

_LINE_FIELDS = {"model", "step", "train_loss", "val_nats_per_token", "val_perplexity"}  # of `metrics.jsonl`


class Own(NamedTuple):
    """Arguments of `start_run` that replace options. The manifest only describes them; resuming needs them."""

    model: LanguageModel | None = None
    optimizer: optax.GradientTransformation | None = None
    tokenizer: Tokenizer | None = None
    metrics: Metrics = None


@final
@dataclass(frozen=True)
class OwnTokenizer(Tokenizer):
    """A caller's tokenizer with the methods that a run needs."""

    tokenizer: Any  # with `encode`, `decode` and `vocab_size`

    @property
    def name(self) -> str:
        return type(self.tokenizer).__name__

    @property
    def vocab_size(self) -> int:
        return int(self.tokenizer.vocab_size)

    def encode(self, text: str) -> NpIntT:
        """Return the ids of `text`, int32 [T], checked."""
        return np.asarray(check_ids(self.tokenizer.encode(text), self.vocab_size, name="encode(text)"))

    def decode_bytes(self, ids: ArrayLike) -> bytes:
        """Return the text of `ids` in UTF-8."""
        tokens = np.asarray(check_ids(ids, self.vocab_size, name="ids to decode")).tolist()
        return self.tokenizer.decode(tokens).encode("utf-8", "replace")


@final
@dataclass(frozen=True)
class KnownTokens:
    """A language model that predicts no id at or above `num_tokens`, such as those that pad a vocabulary."""

    model: LanguageModel
    num_tokens: int
    vocab_size: int
    context_length: int

    def apply(self, variables: Variables, contexts: Array) -> Array:
        logits = compute_logits(self.model, variables, contexts)
        return jnp.where(jnp.arange(self.vocab_size)[None] < self.num_tokens, logits, -jnp.inf)


def limit_tokens(model: LanguageModel, num_tokens: int) -> LanguageModel:
    """Return the model, as `KnownTokens` if it has more than `num_tokens` ids."""
    if num_tokens == model.vocab_size:
        return model
    return KnownTokens(model, num_tokens, model.vocab_size, model.context_length)


def make_own(
    model: LanguageModel | None, optimizer: optax.GradientTransformation | None, tokenizer: Any, metrics: Metrics
) -> Own:
    """Return the arguments; a tokenizer of another library is wrapped in an `OwnTokenizer`.

    Raises a ValueError if a metric has the name of a field of `metrics.jsonl`.
    """
    if taken := sorted(_LINE_FIELDS & set(metrics or {})):
        raise ValueError(f"the metric {taken[0]!r} has the name of a field of metrics.jsonl; rename it")
    if not isinstance(tokenizer, CharTokenizer | ByteTokenizer | BPETokenizer | None):
        tokenizer = OwnTokenizer(tokenizer)
    return Own(model, optimizer, tokenizer, metrics)


def tokenizer_checksum(data: Dataset) -> str:
    """Return the SHA-256 of the tokenizer's file, or, for an `OwnTokenizer`, of the training ids."""
    if isinstance(data.tokenizer, OwnTokenizer):
        size = 2**20
        checksum = hashlib.sha256()
        for begin in range(0, len(data.train_ids), size):
            checksum.update(np.asarray(data.train_ids[begin : begin + size]).tobytes())
        return checksum.hexdigest()
    return sha256_of(tokenizer_to_json(data.tokenizer).encode())


def describe_own(own: Own) -> dict[str, Any]:
    """Return what the manifest records of the arguments, except those that are None or that the run saves."""
    described = {
        "model": None if own.model is None else model_to_spec(own.model),
        "optimizer": None if own.optimizer is None else "own",
        "tokenizer": own.tokenizer.name if isinstance(own.tokenizer, OwnTokenizer) else None,
        "metrics": sorted(own.metrics or {}) or None,
    }
    return {name: value for name, value in described.items() if value is not None}


def complete_own(path: Path, recorded: Mapping[str, Any], own: Own, call: str) -> Own:
    """Return `own` with a recorded model of this library. Raise a ValueError unless the manifest records the rest.

    `path` is the run, and `call` the function that needs the arguments, for the remedy.
    """
    if own.model is None and recorded.get("model", {}).get("of_jaxlm"):
        own = own._replace(model=model_from_spec(recorded["model"], path))
    given = describe_own(own)
    for name in sorted(recorded.keys() | given.keys()):
        if recorded.get(name) != given.get(name):
            before, now = (json.dumps(described.get(name))[:200] for described in (recorded, given))
            remedy = f"pass the same: {call}(path, {name}=...)" if name in recorded else "remove it"
            raise ValueError(f"{path} was started with {name} {before}, not {now}; {remedy}")
    return own
