"""artifacts."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlm.checkpoints.model_files import save_model
from jaxlm.evaluation.evaluate import evaluate
from jaxlm.runs.manifest import describe_environment, write_json
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.runs.report.page import render_page
from jaxlm.runs.report.plots import plot_counts, plot_curves
from jaxlm.runs.report.tables import format_samples
from jaxlm.runs.results import TITLES, describe_results, model_row
from jaxlm.runs.setup import SAMPLE_FOLD, TrainingSetup
from jaxlm.sampling.sample import sample
from jaxlm.text.dataset import line_start_prompt
from jaxlm.utils.atomic_files import remove, write_atomically

_SAMPLE_TOKENS = 100


def write_artifacts(
    path: Path, job: TrainingSetup, variables: Any, compile_seconds: float, train_seconds: float
) -> None:
    """The model, its figures, samples, pictures and page; last `results.json`."""
    config, data, title = job.config, job.data, TITLES[job.config.model]
    remove(path / "model")
    save_model(path / "model", job.model, variables, data.tokenizer)
    evaluation = evaluate(job.model, variables, data.val_ids, device=job.device)
    row = model_row(
        config.model,
        title,
        job.model,
        variables,
        evaluation,
        data.val_bytes_per_token,
        is_trained=job.optimizer is not None,
        compile_seconds=compile_seconds,
        train_seconds=train_seconds,
    )
    prompt_ids = line_start_prompt(data, job.model.context_length)
    key = jax.random.fold_in(jax.random.key(config.seed), SAMPLE_FOLD)
    prompt = data.tokenizer.decode(prompt_ids)
    try:
        drawn = sample(job.model, variables, prompt_ids, _SAMPLE_TOKENS, key=key, device=job.device)
        text = data.tokenizer.decode(drawn)
    except ValueError as error:  # counts without smoothing, after a token they never saw
        text = f"{prompt} ({error})"
    results = describe_results(
        data, config.tokenizer, config.seed, [row], prompt, {title: text}, describe_environment(job.device)
    )
    write_atomically(path / "samples.txt", format_samples(results["samples"]))
    if job.optimizer is not None:
        plot_curves(path / "curves.png", {title: read_metrics(path / "metrics.jsonl")}, {}, job.model.vocab_size)
    else:
        tokens = [data.tokenizer.decode([token]) for token in range(data.tokenizer.vocab_size)]
        plot_counts(path / "counts.png", np.asarray(variables["counts"]["table"]), tokens)
    write_atomically(path / "report.html", render_page(path, results, title=f"{title}, {data.corpus.name}"))
    write_json(path / "results.json", results)
