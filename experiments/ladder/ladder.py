"""Three language models on one token stream: does each rung of the ladder predict better than the one below?

    python -m experiments.ladder.ladder                   # about 25 s on 2 CPU cores
    python -m experiments.ladder.ladder --quick           # every artefact, in about 10 s
    python -m experiments.ladder.ladder --recipe course   # plain SGD, 500 steps of 64: too little to get there

Expected on tiny Shakespeare, BPE with 4096 tokens, seed 0 (validation perplexity): uniform 4096, unigram 474,
counts bigram 462 with add-one and 181 with the best add-k, neural bigram 121, MLP 108. Characters
(`--tokenizer char`): counts bigram 11.96, neural bigram 12.03, MLP 7.01.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich.console import Console

import jaxlm
from experiments.shared.statistics import mean_and_interval
from jaxlm.devices.selection import choose_device, format_device
from jaxlm.models.baselines import UniformLM, UnigramLM
from jaxlm.models.counts_bigram import best_smoothing
from jaxlm.models.interface import num_init_params
from jaxlm.runs.directory import check_run_path, create_run, new_run_path
from jaxlm.runs.manifest import describe_environment, write_json
from jaxlm.runs.metrics_log import append_metrics
from jaxlm.runs.report.page import render_page
from jaxlm.runs.report.plots import plot_counts, plot_curves
from jaxlm.runs.report.tables import format_samples, results_table
from jaxlm.runs.results import describe_dataset, describe_results, metrics_line, model_row
from jaxlm.runs.setup import SAMPLE_FOLD
from jaxlm.text.dataset import Dataset, line_start_prompt, load_dataset
from jaxlm.training.optimizers import sgd
from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.compilation_cache import enable_compilation_cache
from jaxlm.utils.terminal import print_plain, progress, run_command, stdout_console
from jaxlm.utils.timing import Timing, measure_time


@dataclass(frozen=True)
class LadderConfig:
    """Trains the counts bigram, the neural bigram and the MLP on one token stream, and compares them."""

    corpus: str = "tinyshakespeare"
    """A named corpus: tinyshakespeare, or shakespeare (all the plays)."""
    text: Path | None = None
    """A UTF-8 text file of your own, instead of a named corpus."""
    tokenizer: Literal["char", "byte", "bpe"] = "bpe"
    """What a token is: a character, a byte, or a piece learnt by byte-pair encoding."""
    vocab_size: int | None = None
    """Tokens of the BPE vocabulary, at least 256; None is 4096, or 512 with --quick."""
    seed: int = 0
    """Every random choice of the run follows from it: 0 to 2**32 - 1."""
    seeds: int = 1
    """Train the neural models from so many seeds, --seed and those after it, and show the mean of the perplexities
    with its 95 % interval; samples, pictures and saved models are those of --seed."""
    recipe: Literal["momentum", "course"] = "momentum"
    """How the neural models are trained. momentum: SGD with momentum 0.9, cosine decay and clipping, 6000 steps of
    128 windows. course: plain SGD, 500 steps of 64."""
    steps: int | None = None
    """Training steps of each neural model; None is the recipe's, at most 1000 with --quick."""
    bigram_embedding_dim: int = 64
    """Neural bigram: dimensions of the embedding."""
    mlp_context_length: int = 3
    """MLP: tokens of context."""
    mlp_embedding_dim: int = 32
    """MLP: dimensions of the embedding."""
    mlp_hidden_dim: int = 64
    """MLP: units of the hidden layer."""
    prompt: str | None = None
    """What the samples go on from; None is the start of a line of the validation text."""
    num_tokens: int = 100
    """Tokens to sample from each model."""
    out: Path | None = None
    """The run's folder; None is runs/CORPUS-TOKENIZER-DATE-TIME."""
    overwrite: bool = False
    """Replace the run that --out already holds."""
    device: str = "auto"
    """auto, cpu, gpu, cuda, rocm, tpu or metal."""
    quick: bool = False
    """A smaller vocabulary and fewer steps: every artefact, in seconds."""


@dataclass(frozen=True)
class Recipe:
    """How the neural models are trained; the optimizer is made of a learning rate and the number of steps."""

    num_steps: int
    batch_size: int
    optimizer: Callable[[float, int], optax.GradientTransformation]
    bigram_lr: float
    mlp_lr: float


def momentum_sgd(lr: float, num_steps: int) -> optax.GradientTransformation:
    """SGD with momentum 0.9, the learning rate falling to zero by a half cosine, gradients clipped to norm 1."""
    return sgd(lr, num_steps, schedule="cosine", momentum=0.9, clip_norm=1.0)


# The learning rates of `momentum` are the best of four each on the last 30,000 tokens of the training text; an
# earlier sweep of shorter runs, which placed those four, looked at validation. That of `course` is ours: near 0.4
# the models end about where the course's own do.
RECIPES = {
    "momentum": Recipe(num_steps=6000, batch_size=128, optimizer=momentum_sgd, bigram_lr=2.0, mlp_lr=0.5),
    "course": Recipe(num_steps=500, batch_size=64, optimizer=sgd, bigram_lr=0.4, mlp_lr=0.4),
}


@dataclass(frozen=True)
class Rung:
    """A trained model of the ladder, with its figures."""

    name: str
    title: str
    model: jaxlm.LanguageModel
    variables: Any
    evaluation: jaxlm.Evaluation
    timing: Timing
    records: Sequence[jaxlm.Record] = ()
    perplexities: Sequence[float] = ()  # of each seed, where there are several


def run_ladder(config: LadderConfig, console: Console) -> Path:
    """Runs the experiment and returns the run's folder, in which `results.json` comes last.

    Raises:
        ValueError, OSError, FloatingPointError: what the user can mend, in one line.
    """
    begin = time.perf_counter()
    check_options(config)
    data = load_text(config)
    prompt_ids = choose_prompt(config, data)
    print_plain(
        console,
        f"{data.corpus.source}: {len(data.corpus.text):,} characters, {len(data.train_ids):,} tokens to train, "
        f"{len(data.val_ids):,} to validate, vocabulary {data.tokenizer.vocab_size:,}",
    )
    models = neural_models(config, data.tokenizer.vocab_size)
    device, reason = choose_device(config.device, num_weights=max(map(num_init_params, models)))
    print_plain(console, f"device: {format_device(device)}: {reason}")
    path = config.out or new_run_path(f"{'text' if config.text else config.corpus}-{config.tokenizer}")
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()}
    facts = describe_dataset(data, config.tokenizer)
    with (
        create_run(path, "ladder", settings, device, details=facts, overwrite=config.overwrite) as run,
        jax.default_device(device),
    ):
        rungs = [*baselines(data), *counts_bigrams(data), *neural_rungs(models, config, data, run, console)]
        samples = {rung.title: draw_sample(rung, config, data, prompt_ids) for rung in rungs}
        results = describe_results(
            data,
            config.tokenizer,
            config.seed,
            [describe(rung, data) for rung in rungs],
            data.tokenizer.decode(prompt_ids),
            samples,
            describe_environment(device),
        ) | {"recipe": config.recipe}
        write_artefacts(run, rungs, data, results)
    console.print(results_table(results["models"]))
    best_k = next(row["smoothing"] for row in results["models"] if row["name"] == "counts_bigram_best_k")
    print_plain(console, f"\nbest k = {best_k:.3g}, chosen on the last tenth of the training text\n")
    print_plain(console, format_samples(samples))
    print_plain(console, f"{time.perf_counter() - begin:.0f} s in all; look at {run / 'report.html'}")
    return run


def check_options(config: LadderConfig) -> None:
    """Raises ValueError or FileExistsError for what is wrong before any work is done."""
    if config.out is not None:
        check_run_path(config.out, overwrite=config.overwrite)
    if config.vocab_size is not None and config.tokenizer != "bpe":
        raise ValueError(
            f"--vocab-size {config.vocab_size} is for --tokenizer bpe; {config.tokenizer} has its own"
        )
    if config.steps is not None and config.steps < 1:
        raise ValueError(f"--steps must be at least 1, got {config.steps}")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"--seed must lie in 0..{2**32 - 1}, got {config.seed}")
    if not 1 <= config.seeds <= 2**32 - config.seed:
        raise ValueError(
            f"--seeds must lie in 1..{2**32 - config.seed} with --seed {config.seed}, got {config.seeds}"
        )
    if config.num_tokens < 0:
        raise ValueError(f"--num-tokens must be at least 0, got {config.num_tokens}")


def load_text(config: LadderConfig) -> Dataset:
    """Text -> tokenizer -> ids -> a part to train and a part to validate."""
    context_length = max(config.mlp_context_length, 1)
    default = 512 if config.quick else 4096
    data = load_dataset(
        config.corpus,
        config.text,
        config.tokenizer,
        vocab_size=default if config.vocab_size is None else config.vocab_size,
    )
    num_tokens = len(data.train_ids) + len(data.val_ids)
    needed = 12 * (context_length + 1)  # so that the parts that validate and that choose k hold a window each
    if num_tokens < needed:
        raise ValueError(
            f"{data.corpus.source} has {num_tokens} tokens; the ladder needs {needed}: use a longer text"
        )
    return data


def choose_prompt(config: LadderConfig, data: Dataset) -> np.ndarray[Any, Any]:
    """The ids [P] that the samples go on from."""
    context_length = max(config.mlp_context_length, 1)
    if config.prompt is None:
        return line_start_prompt(data, context_length)
    prompt_ids = data.tokenizer.encode(config.prompt)
    if len(prompt_ids) < context_length:
        raise ValueError(
            f"--prompt {config.prompt!r} makes {len(prompt_ids)} of the {context_length} tokens that the MLP "
            "needs (--mlp-context-length): use a longer prompt"
        )
    return prompt_ids


def neural_models(config: LadderConfig, vocab_size: int) -> tuple[jaxlm.NeuralBigramLM, jaxlm.MLPLanguageModel]:
    """The two models that are trained by gradient."""
    return (
        jaxlm.NeuralBigramLM(vocab_size, config.bigram_embedding_dim),
        jaxlm.MLPLanguageModel(
            vocab_size, config.mlp_context_length, config.mlp_embedding_dim, config.mlp_hidden_dim
        ),
    )


def baselines(data: Dataset) -> Iterator[Rung]:
    """What a model must beat: no knowledge at all, and the frequencies of the tokens."""
    vocab_size = data.tokenizer.vocab_size
    with measure_time() as timing:
        uniform = UniformLM(vocab_size)
        evaluation = jaxlm.evaluate(uniform, {}, data.val_ids)
    yield Rung("uniform", "uniform", uniform, {}, evaluation, timing)
    with measure_time() as timing:
        unigram = UnigramLM(vocab_size)
        counts = jnp.bincount(jnp.asarray(data.train_ids), length=vocab_size)
        evaluation = jaxlm.evaluate(unigram, counts, data.val_ids)
    yield Rung("unigram", "unigram, add 1", unigram, counts, evaluation, timing)


def counts_bigrams(data: Dataset) -> Iterator[Rung]:
    """The counts of pairs, smoothed by one, and by the k that suits held-out training text best."""
    vocab_size = data.tokenizer.vocab_size
    add_one = jaxlm.CountsBigramLM(vocab_size)
    with measure_time() as timing:
        variables = add_one.fit(jaxlm.init(add_one, jax.random.key(0)), data.train_ids)
        evaluation = jaxlm.evaluate(add_one, variables, data.val_ids)
    yield Rung("counts_bigram", "counts bigram, add 1", add_one, variables, evaluation, timing)
    with measure_time() as timing:
        # The last tenth of the training text chooses k; validation never does.
        fitted_ids, held_out_ids = jaxlm.split_ids(data.train_ids)
        table = add_one.fit(jaxlm.init(add_one, jax.random.key(0)), fitted_ids)["counts"]["table"]
        k, _ = best_smoothing(table, held_out_ids, np.logspace(-4, 1, 101))
        add_k = jaxlm.CountsBigramLM(vocab_size, smoothing=k)
        evaluation = jaxlm.evaluate(add_k, variables, data.val_ids)
    yield Rung("counts_bigram_best_k", "counts bigram, best k", add_k, variables, evaluation, timing)


def neural_rungs(
    models: tuple[jaxlm.NeuralBigramLM, jaxlm.MLPLanguageModel],
    config: LadderConfig,
    data: Dataset,
    run: Path,
    console: Console,
) -> Iterator[Rung]:
    """The neural models, trained by the recipe; each record goes to `metrics.jsonl` as soon as it is there."""
    recipe = RECIPES[config.recipe]
    num_steps = min(recipe.num_steps, 1000) if config.quick else recipe.num_steps
    num_steps = num_steps if config.steps is None else config.steps
    names = ("neural_bigram", "neural bigram"), ("mlp", "MLP")
    lrs = recipe.bigram_lr, recipe.mlp_lr
    for index, ((name, title), model, lr) in enumerate(zip(names, models, lrs, strict=True)):
        records: list[jaxlm.Record] = []
        # One run after another: at these sizes `train_many` would take as long, and differ in the last bits.
        train = partial(
            jaxlm.train_lm,
            model,
            data.train_ids,
            val_ids=data.val_ids,
            batch_size=recipe.batch_size,
            num_steps=num_steps,
            optimizer=recipe.optimizer(lr, num_steps),
        )
        with measure_time() as timing, progress(console, title, num_steps) as show:
            variables, _ = train(
                key=jax.random.fold_in(jax.random.key(config.seed), index),
                log_every=recorded_every(num_steps),
                on_record=partial(write_down, name, records, run / "metrics.jsonl", show),
            )
        evaluation = records[-1].validation
        assert evaluation is not None  # train_lm was given val_ids
        perplexities = [evaluation.perplexity]
        for seed in range(config.seed + 1, config.seed + config.seeds):
            try:
                _, history = train(key=jax.random.fold_in(jax.random.key(seed), index), log_every=num_steps)
                perplexities.append(history["val_perplexities"][-1])
            except FloatingPointError as error:  # the others have their figures all the same
                print_plain(console, f"{title}, seed {seed}: {error}")
                perplexities.append(math.inf)
            print_plain(console, f"{title}, seed {seed}: validation perplexity {perplexities[-1]:.2f}")
        several = perplexities if config.seeds > 1 else ()
        yield Rung(name, title, model, variables, evaluation, timing, records, several)


def recorded_every(num_steps: int) -> int:
    """Steps between two validations: there are about 25 of these."""
    return max(num_steps // 24, 1)


def write_down(
    name: str, records: list[jaxlm.Record], path: Path, show: Callable[[int, str], None], record: jaxlm.Record
) -> None:
    """Keeps a record in `records`, in the file, and before the user's eyes."""
    records.append(record)
    line = metrics_line(name, record)
    append_metrics(path, line)
    loss, perplexity = line["train_loss"], line["val_perplexity"]
    show(record.step + 1, f"loss {loss:.3f}, validation perplexity {perplexity:.1f}")


def draw_sample(rung: Rung, config: LadderConfig, data: Dataset, prompt_ids: np.ndarray[Any, Any]) -> str:
    """The prompt and what the model makes of it; every model draws with the same key."""
    key = jax.random.fold_in(jax.random.key(config.seed), SAMPLE_FOLD)
    ids = jaxlm.sample(rung.model, rung.variables, prompt_ids, config.num_tokens, key=key)
    return data.tokenizer.decode(ids)


def describe(rung: Rung, data: Dataset) -> dict[str, Any]:
    """A rung as its object in `results.json`."""
    row = model_row(
        rung.name,
        rung.title,
        rung.model,
        rung.variables,
        rung.evaluation,
        data.val_bytes_per_token,
        is_trained=bool(rung.records),
        compile_seconds=rung.timing.compile_seconds,
        train_seconds=rung.timing.run_seconds,
    )
    if not rung.perplexities:
        return row
    mean, half_width = mean_and_interval(rung.perplexities)
    nats = float(np.mean(np.log(rung.perplexities)))
    several = {
        "perplexities": list(rung.perplexities),
        "perplexity": mean,
        "interval_half_width": half_width,
        "nats_per_token": nats,
        "bits_per_byte": nats / math.log(2) / data.val_bytes_per_token,
    }
    return row | {"seeds": several}


def write_artefacts(run: Path, rungs: Sequence[Rung], data: Dataset, results: Mapping[str, Any]) -> None:
    """The saved models, samples, pictures and page; last `results.json`, as a sign that all is there."""
    by_name = {rung.name: rung for rung in rungs}
    for name in ("counts_bigram", "neural_bigram", "mlp"):
        jaxlm.save_model(run / "models" / name, by_name[name].model, by_name[name].variables, data.tokenizer)
    write_atomically(run / "samples.txt", format_samples(results["samples"]))
    curves = {
        rung.title: [metrics_line(rung.name, each) for each in rung.records] for rung in rungs if rung.records
    }
    floors = {rung.title: rung.evaluation.perplexity for rung in rungs if rung.name.startswith("counts")}
    plot_curves(run / "curves.png", curves, floors, data.tokenizer.vocab_size)
    tokens = [data.tokenizer.decode([token]) for token in range(data.tokenizer.vocab_size)]
    plot_counts(run / "counts.png", np.asarray(by_name["counts_bigram"].variables["counts"]["table"]), tokens)
    title = f"The ladder: {len(rungs)} models, one token stream"
    write_atomically(run / "report.html", render_page(run, results, title=title))
    write_json(run / "results.json", results)


if __name__ == "__main__":
    options = tyro.cli(LadderConfig, prog="ladder")
    enable_compilation_cache()
    sys.exit(run_command(lambda: run_ladder(options, stdout_console())))
