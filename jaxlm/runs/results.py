"""The figures of a run as plain JSON: `results.json` and the records of `metrics.jsonl`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from jaxlm.evaluation.evaluate import Evaluation
from jaxlm.evaluation.loss import bits_per_byte
from jaxlm.models import CountsBigramLM, LanguageModel
from jaxlm.models.interface import num_params
from jaxlm.text.dataset import Dataset
from jaxlm.training.state import Record

_SCHEMA_VERSION = 1

# Titles in tables and plots, by --model.
TITLES = {"counts": "counts bigram", "bigram": "neural bigram", "mlp": "MLP"}


def model_row(
    name: str,
    title: str,
    model: LanguageModel,
    variables: Any,
    evaluation: Evaluation,
    bytes_per_token: float,
    *,
    is_trained: bool,
    compile_seconds: float | None,
    train_seconds: float | None,
) -> dict[str, Any]:
    """Return the figures of a model: an object of `results.json` and a row of the tables.

    Args:
        evaluation: Result on the validation tokens, which have `bytes_per_token` UTF-8 bytes on average.
        is_trained: True for trained parameters, False for counts.
    """
    row = {
        "name": name,
        "title": title,
        "context_length": model.context_length,
        "size": num_params(variables),
        "size_unit": "parameters" if is_trained else "counts",
        "nats_per_token": evaluation.nats_per_token,
        "perplexity": evaluation.perplexity,
        "bits_per_byte": bits_per_byte(evaluation.nats_per_token, bytes_per_token),
        "num_tokens": evaluation.num_tokens,
        "compile_seconds": compile_seconds,
        "train_seconds": train_seconds,
    }
    return row | ({"smoothing": model.smoothing} if isinstance(model, CountsBigramLM) else {})


def describe_results(
    data: Dataset,
    tokenizer_name: str,
    seed: int,
    models: Sequence[Mapping[str, Any]],
    prompt: str,
    samples: Mapping[str, str],
    environment: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the document `results.json`. `models` are of `model_row`; `samples` start with the prompt."""
    return {
        "schema_version": _SCHEMA_VERSION,
        "seed": seed,
        **describe_dataset(data, tokenizer_name),
        "models": list(models),
        "prompt": prompt,
        "samples": dict(samples),
        **environment,
    }


def describe_dataset(data: Dataset, tokenizer_name: str) -> dict[str, Any]:
    """Return corpus, tokenizer and numbers of tokens, without the text."""
    return {
        "corpus": {name: value for name, value in asdict(data.corpus).items() if name != "text"},
        "tokenizer": {"name": tokenizer_name, "vocab_size": data.tokenizer.vocab_size},
        "tokens": {"train": len(data.train_ids), "validation": len(data.val_ids)},
        "validation_bytes_per_token": data.val_bytes_per_token,
    }


def metrics_line(name: str, record: Record) -> dict[str, Any]:
    """Return a record as a line of `metrics.jsonl`, without times, so that equal runs write equal bytes."""
    validation = record.validation
    return {
        "model": name,
        "step": record.step,
        "train_loss": record.train_loss,
        "val_nats_per_token": None if validation is None else validation.nats_per_token,
        "val_perplexity": None if validation is None else validation.perplexity,
    }
