"""Write the results of a finished run: figures as plain JSON, model, sample, plots and report."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlm.checkpoints.model_files import save_model
from jaxlm.evaluation.evaluate import Evaluation, evaluate
from jaxlm.evaluation.loss import bits_per_byte
from jaxlm.models import CountsBigramLM, LanguageModel
from jaxlm.models.interface import num_params
from jaxlm.runs.manifest import describe_environment, write_json
from jaxlm.runs.own import limit_tokens
from jaxlm.runs.report.page import render_page
from jaxlm.runs.report.plots import plot_counts
from jaxlm.runs.report.tables import format_samples
from jaxlm.runs.setup import SAMPLE_FOLD, TrainingSetup
from jaxlm.sampling.sample import sample
from jaxlm.text.dataset import Dataset, line_start_prompt
from jaxlm.training.state import Record
from jaxlm.utils.atomic_files import write_atomically

ARTIFACTS = ("results.json", "report.html", "samples.txt", "curves.png", "counts.png", "model")
_SAMPLE_TOKENS = 100


def model_row(
    name: str,
    title: str,
    model: LanguageModel,
    variables: Any,
    evaluation: Evaluation,
    bytes_per_token: float,
    *,
    compile_seconds: float | None,
    train_seconds: float | None,
) -> dict[str, Any]:
    """Return the figures of a model: an entry of `models` in `results.json`, and a row of the tables.

    `evaluation` is on the validation tokens, which have `bytes_per_token` UTF-8 bytes on average.
    """
    row = {
        "name": name,
        "title": title,
        "context_length": model.context_length,
        "size": num_params(variables),
        "size_unit": "parameters" if isinstance(variables, dict) and "params" in variables else "counts",
        **evaluation._asdict(),
        "bits_per_byte": bits_per_byte(evaluation.nats_per_token, bytes_per_token),
        "compile_seconds": compile_seconds,
        "train_seconds": train_seconds,
    }
    return row | ({"smoothing": model.smoothing} if isinstance(model, CountsBigramLM) else {})


def describe_results(
    data: Dataset, tokenizer_name: str, seed: int, models: Any, prompt: str, samples: Any, device: jax.Device
) -> dict[str, Any]:
    """Return the document `results.json`, with rows of `model_row` and samples by title."""
    document = {"schema_version": 1, "seed": seed, **describe_dataset(data, tokenizer_name)}
    return document | {"models": models, "prompt": prompt, "samples": samples} | describe_environment(device)


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
    nats, perplexity, _ = record.validation or (None, None, None)
    line = {"model": name, "step": record.step, "train_loss": record.train_loss}
    return line | {"val_nats_per_token": nats, "val_perplexity": perplexity}


def write_artifacts(
    path: Path,
    setup: TrainingSetup,
    variables: Any,
    compile_seconds: float,
    train_seconds: float,
    evaluation: Evaluation | None = None,
) -> None:
    """Write `ARTIFACTS` to the run directory, `results.json` last. None evaluates the model."""
    config, data, model, title = setup.config, setup.data, setup.model, setup.title
    save_model(path / "model", model, variables, setup.saved_tokenizer)
    evaluation = evaluation or evaluate(model, variables, data.val_ids, **setup.placement)
    seconds = {"compile_seconds": compile_seconds, "train_seconds": train_seconds}
    row = model_row(setup.name, title, model, variables, evaluation, data.val_bytes_per_token, **seconds)
    if setup.metrics:
        row["metrics"] = setup.compute_metrics(variables, data.val_ids)
    prompt_ids = line_start_prompt(data, model.context_length)
    prompt = data.tokenizer.decode(prompt_ids)
    key = jax.random.fold_in(jax.random.key(config.seed), SAMPLE_FOLD)
    try:
        known = limit_tokens(model, data.tokenizer.vocab_size)
        ids = sample(known, variables, prompt_ids, _SAMPLE_TOKENS, key=key, device=setup.device)
        text = data.tokenizer.decode(ids)
    except ValueError as error:  # without smoothing, an unseen token has no successor
        text = f"{prompt} ({error})"
    samples = {title: text}
    results = describe_results(data, setup.tokenizer_name, config.seed, [row], prompt, samples, setup.device)
    write_atomically(path / "samples.txt", format_samples(samples))
    if isinstance(model, CountsBigramLM):
        tokens = [data.tokenizer.decode([token]) for token in range(data.tokenizer.vocab_size)]
        try:
            plot_counts(path / "counts.png", np.asarray(variables["counts"]["table"]), tokens)
        except Exception as error:  # the run is worth more than its picture
            logging.getLogger(__name__).warning("%s: cannot draw the picture: %s", path, error)
    write_atomically(path / "report.html", render_page(path, results, title=f"{title}, {data.corpus.name}"))
    write_json(path / "results.json", results)
