"""What a run says of its models, as plain JSON: `results.json`, and the lines of `metrics.jsonl`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from jaxlm.evaluation.evaluate import Evaluation
from jaxlm.evaluation.loss import bits_per_byte
from jaxlm.models import CountsBigramLM, LanguageModel
from jaxlm.models.interface import num_params
from jaxlm.text.dataset import Dataset
from jaxlm.training.loop import Record

_SCHEMA_VERSION = 1

# What an option of training calls a model -> what a table does.
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
    """A model with its figures: an object of `results.json`, a row of the tables.

    Args:
        evaluation: of the validation text, whose tokens stand for `bytes_per_token` each.
        is_trained: by steps, so that its numbers are parameters; otherwise they are counts.
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
    """The document of `results.json`: what was learnt from, by whom, how well, and in what words.

    Args:
        models: objects of `model_row`.
        samples: a model's title -> the prompt, and what the model made of it.
        environment: versions, platform and device.
    """
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
    """The text and its tokens, without the text."""
    return {
        "corpus": {name: value for name, value in asdict(data.corpus).items() if name != "text"},
        "tokenizer": {"name": tokenizer_name, "vocab_size": data.tokenizer.vocab_size},
        "tokens": {"train": len(data.train_ids), "validation": len(data.val_ids)},
        "validation_bytes_per_token": data.val_bytes_per_token,
    }


def metrics_line(name: str, record: Record) -> dict[str, Any]:
    """A record as its line of `metrics.jsonl`. No times, so that the same run writes the same bytes."""
    validation = record.validation
    return {
        "model": name,
        "step": record.step,
        "train_loss": record.train_loss,
        "val_nats_per_token": None if validation is None else validation.nats_per_token,
        "val_perplexity": None if validation is None else validation.perplexity,
    }
