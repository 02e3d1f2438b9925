"""Does each rung of the ladder predict the next token better than the rung below?

    python -m experiments.ladder.ladder                   # about 25 s on 2 CPU cores
    python -m experiments.ladder.ladder --quick           # writes every file, about 10 s
    python -m experiments.ladder.ladder --recipe course   # plain SGD, 500 steps of 64 windows: too short

The ladder fits six models to one token stream and evaluates them on the same validation text: the uniform model,
the unigram, the bigram counts with add-one and with the best add-k, the neural bigram, and the MLP. The last tenth
of the training text selects k.

Expected on tiny Shakespeare, BPE with 4096 tokens, seed 0 (validation perplexity): uniform 4096, unigram 474,
counts bigram 462 with add-one and 181 with the best add-k, neural bigram 121, MLP 108. Characters
(`--tokenizer char`): counts bigram 11.96, neural bigram 12.03, MLP 7.01.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

import jaxlm
from experiments.ladder import rungs
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from jaxlm.devices.selection import choose_device, format_device
from jaxlm.models.interface import num_init_params
from jaxlm.runs.metrics_log import append_metrics
from jaxlm.runs.page.build import build_page
from jaxlm.runs.page.describe import PageModel
from jaxlm.runs.report.page import render_page
from jaxlm.runs.report.plots import plot_counts, plot_curves
from jaxlm.runs.report.tables import format_samples, results_table
from jaxlm.runs.results import describe_dataset, describe_results, metrics_line, model_row
from jaxlm.runs.setup import SAMPLE_FOLD
from jaxlm.text.dataset import Dataset, line_start_prompt
from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.checks import check_at_least
from jaxlm.utils.statistics import mean_and_interval
from jaxlm.utils.terminal import progress
from jaxlm.utils.timing import measure_time


@dataclass(frozen=True, kw_only=True)
class LadderOptions(rungs.NetworkOptions):
    """Train bigram counts, a neural bigram and an MLP on one token stream, and compare them."""

    seeds: int = 1
    """Number of seeds per network: --seed and the ones after it. With several, the table shows the mean perplexity
    and its 95 % interval. Samples, plots and saved models are those of --seed."""
    recipe: Literal["momentum", "course"] = "momentum"
    """Training of the networks. momentum: SGD with momentum 0.9, cosine decay and clipping, 6000 steps of 128
    windows. course: plain SGD, 500 steps of 64 windows."""
    steps: int | None = None
    """Training steps of each network. None: those of the recipe, at most 1000 with --quick."""
    device: str = "auto"
    """auto, cpu, gpu, cuda, rocm, tpu or metal."""


def prepare(options: LadderOptions) -> Experiment:
    """Check the options, load the text and choose the device."""
    if options.steps is not None:
        check_at_least("--steps", options.steps, 1)
    check_at_least("--seeds", options.seeds, 1)
    check_at_least("--num-tokens", options.num_tokens, 0)
    # The last tenth of the training text, which selects k, is shorter than the validation text. Two windows there
    # leave one here.
    min_tokens = 2 * (options.mlp_context_length + 1)
    data = rungs.load_text(options, options.tokenizer, options.vocab_size, min_tokens=min_tokens)
    networks = rungs.make_networks(
        data.tokenizer.vocab_size, options, rungs.RECIPES[options.recipe], options.steps
    )
    num_weights = max(num_init_params(network.model) for network in networks)
    device, reason = choose_device(options.device, num_weights=num_weights)
    return Experiment(
        "ladder",
        partial(measure, options, data, networks, reason),
        device=device,
        details=describe_dataset(data, options.tokenizer),
    )


def measure(
    options: LadderOptions, data: Dataset, networks: Sequence[rungs.Network], device_reason: str, run: RunContext
) -> Findings:
    """Train, evaluate and sample every rung; write the models, the plots and the page."""
    run.log(
        f"{data.corpus.source}: {len(data.corpus.text):,} characters, {len(data.train_ids):,} training tokens, "
        f"{len(data.val_ids):,} validation tokens, vocabulary {data.tokenizer.vocab_size:,}"
    )
    run.log(f"device: {format_device(run.device)}: {device_reason}")
    trained = rungs.fit_baselines(data)
    trained += [train_rung(network, options, data, run) for network in networks]
    prompt_ids, samples = line_start_prompt(data, options.mlp_context_length), {}
    for rung in trained:
        key = jax.random.fold_in(jax.random.key(options.seed), SAMPLE_FOLD)  # the same for every model
        ids = jaxlm.sample(rung.model, rung.variables, prompt_ids, options.num_tokens, key=key)
        samples[rung.title] = data.tokenizer.decode(ids)
    models = [describe_rung(rung, data) for rung in trained]
    prompt = data.tokenizer.decode(prompt_ids)
    results = describe_results(data, options.tokenizer, options.seed, models, prompt, samples, run.device)
    results["recipe"] = options.recipe
    write_artifacts(run.path, trained, data, results)
    run.console.print(results_table(models))
    best_k = next(row["smoothing"] for row in models if row["name"] == "counts_bigram_best_k")
    run.log(f"\nbest k = {best_k:.3g}, chosen on the last tenth of the training text\n")
    run.log(format_samples(samples))
    run.log(f"open {run.path / 'report.html'} and {run.path / 'play.html'}")
    return Findings(results)


def train_rung(network: rungs.Network, options: LadderOptions, data: Dataset, run: RunContext) -> rungs.Rung:
    """Train the network once per seed. Write the records of the first seed to `metrics.jsonl` as they arrive."""
    records, interval = [], max(network.num_steps // 24, 1)
    with measure_time() as timing, progress(run.console, network.title, network.num_steps - 1) as update:
        for state, record in rungs.train_network(network, data, seed=options.seed, log_every=interval):
            if record is not None:
                records.append(record)
                variables = state.variables
                line = metrics_line(network.name, record)
                append_metrics(run.path / "metrics.jsonl", line)
                status = f"loss {line['train_loss']:.3f}, validation perplexity {line['val_perplexity']:.1f}"
                update(record.step, status)
    evaluation = records[-1].validation
    assert evaluation is not None  # because `train_network` passes val_ids
    # Not `train_many`: at these sizes it takes as long, and its results differ in the last bits.
    later_seeds = range(options.seed + 1, options.seed + options.seeds)
    perplexities = [evaluation.perplexity, *(train_again(network, data, seed, run) for seed in later_seeds)]
    run.log(f"{network.title}, by seed: {', '.join(f'{perplexity:.2f}' for perplexity in perplexities)}")
    arguments = (network.name, network.title, network.model, variables, evaluation, timing)
    return rungs.Rung(*arguments, records, perplexities)


def train_again(network: rungs.Network, data: Dataset, seed: int, run: RunContext) -> float:
    """Train the network from another seed and return its validation perplexity, infinite if it diverges."""
    try:
        *_, (_, record) = rungs.train_network(network, data, seed=seed, log_every=network.num_steps)
    except FloatingPointError as error:  # the other seeds keep their figures
        run.log(f"{network.title}, seed {seed}: {error}")
        return math.inf
    assert record is not None
    assert record.validation is not None
    return record.validation.perplexity


def describe_rung(rung: rungs.Rung, data: Dataset) -> dict[str, Any]:
    """Return the rung's entry in `results.json`."""
    row = model_row(
        rung.name,
        rung.title,
        rung.model,
        rung.variables,
        rung.evaluation,
        data.val_bytes_per_token,
        compile_seconds=rung.timing.compile_seconds,
        train_seconds=rung.timing.run_seconds,
    )
    if len(rung.perplexities) < 2:
        return row
    mean, half_width = mean_and_interval(rung.perplexities)
    nats = float(np.mean(np.log(rung.perplexities)))
    over_seeds = {
        "perplexities": list(rung.perplexities),
        "perplexity": mean,
        "interval_half_width": half_width,
        "nats_per_token": nats,
        "bits_per_byte": jaxlm.bits_per_byte(nats, data.val_bytes_per_token),
    }
    return row | {"seeds": over_seeds}


def write_artifacts(path: Path, trained: Sequence[rungs.Rung], data: Dataset, results: Mapping[str, Any]) -> None:
    """Write the saved models, the samples, the plots, the report, and the page that samples in a browser."""
    by_name = {rung.name: rung for rung in trained}
    shown = []
    for name in ("counts_bigram", "neural_bigram", "mlp"):
        rung, folder = by_name[name], path / "models" / name
        jaxlm.save_model(folder, rung.model, rung.variables, data.tokenizer)
        shown.append(PageModel(rung.title, str(folder), rung.model, rung.variables, rung.evaluation.perplexity))
    write_atomically(path / "samples.txt", format_samples(results["samples"]))
    networks = [rung for rung in trained if rung.records]
    curves = {rung.title: [metrics_line(rung.name, each) for each in rung.records] for rung in networks}
    floors = {rung.title: rung.evaluation.perplexity for rung in trained if rung.name.startswith("counts")}
    plot_curves(path / "curves.png", curves, floors, data.tokenizer.vocab_size)
    tokens = [data.tokenizer.decode([token]) for token in range(data.tokenizer.vocab_size)]
    plot_counts(path / "counts.png", np.asarray(by_name["counts_bigram"].variables["counts"]["table"]), tokens)
    page = render_page(path, results, title=f"The ladder: {len(trained)} models, one token stream")
    write_atomically(path / "report.html", page)
    title = f"The ladder on {data.corpus.name}"
    write_atomically(path / "play.html", build_page(shown, data.tokenizer, title=title, prompt=results["prompt"]))


if __name__ == "__main__":
    main(LadderOptions, prepare)
