"""Write the results of a finished run: model, samples, plots, report and figures."""

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

ARTIFACTS = ("results.json", "report.html", "samples.txt", "curves.png", "counts.png", "model")
_SAMPLE_TOKENS = 100


def write_artifacts(
    path: Path, setup: TrainingSetup, variables: Any, compile_seconds: float, train_seconds: float
) -> None:
    """Write `ARTIFACTS` to the run directory, `results.json` last."""
    config, data, model, title = setup.config, setup.data, setup.model, TITLES[setup.config.model]
    remove(path / "model")
    save_model(path / "model", model, variables, data.tokenizer)
    row = model_row(
        config.model,
        title,
        model,
        variables,
        evaluate(model, variables, data.val_ids, device=setup.device),
        data.val_bytes_per_token,
        is_trained=setup.optimizer is not None,
        compile_seconds=compile_seconds,
        train_seconds=train_seconds,
    )
    prompt_ids = line_start_prompt(data, model.context_length)
    prompt = data.tokenizer.decode(prompt_ids)
    key = jax.random.fold_in(jax.random.key(config.seed), SAMPLE_FOLD)
    try:
        text = data.tokenizer.decode(
            sample(model, variables, prompt_ids, _SAMPLE_TOKENS, key=key, device=setup.device)
        )
    except ValueError as error:  # without smoothing, a token that the counts lack has no successor
        text = f"{prompt} ({error})"
    environment = describe_environment(setup.device)
    results = describe_results(data, config.tokenizer, config.seed, [row], prompt, {title: text}, environment)
    write_atomically(path / "samples.txt", format_samples({title: text}))
    if setup.optimizer is not None:
        plot_curves(path / "curves.png", {title: read_metrics(path / "metrics.jsonl")}, {}, model.vocab_size)
    else:
        tokens = [data.tokenizer.decode([token]) for token in range(data.tokenizer.vocab_size)]
        plot_counts(path / "counts.png", np.asarray(variables["counts"]["table"]), tokens)
    write_atomically(path / "report.html", render_page(path, results, title=f"{title}, {data.corpus.name}"))
    write_json(path / "results.json", results)
