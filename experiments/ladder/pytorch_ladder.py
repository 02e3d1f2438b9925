"""How long does the ladder take in PyTorch, written as in an introductory course?

    python -m experiments.ladder.pytorch_ladder     # about 20 s on 2 CPU cores
    scripts/ladder --recipe course                  # the same work in jaxlm: compare the times

Requires `pip install '.[bench]'`. The text, the tokens and the sizes are those of the ladder: 500 steps of 64
windows for each network, one eager step at a time, as many validations as the ladder, and 100 sampled tokens per
model. Windows are cut and pairs are counted in Python loops. The baselines, the best add-k, the plots and the page
are left out.

Expected: 14 to 16 s for the three models. `scripts/ladder --recipe course` shows 6 s of "compile" and "train" for
the same models, and 3.5 s with a warm compilation cache. Perplexities 462, 690 and 320.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

import jaxlm
from experiments.ladder import rungs
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.machine import import_torch
from experiments.shared.tables import format_table
from experiments.shared.training import Ids
from jaxlm.text.dataset import Dataset
from jaxlm.utils.checks import check_at_least


@dataclass(frozen=True, kw_only=True)
class PyTorchLadderOptions(rungs.NetworkOptions):
    """Train the models of the ladder with the recipe "course" in PyTorch on the CPU."""

    steps: int = rungs.RECIPES["course"].num_steps
    """Training steps of each network, at most 100 with --quick."""


def prepare(options: PyTorchLadderOptions) -> Experiment:
    """Check the options, load the text and import PyTorch."""
    check_at_least("--steps", options.steps, 1)
    check_at_least("--num-tokens", options.num_tokens, 0)
    torch = import_torch()
    data = rungs.load_text(
        options, options.tokenizer, options.vocab_size, context_length=max(options.mlp_context_length, 1)
    )
    prompt_ids = rungs.choose_prompt(None, data, options.mlp_context_length)
    # On the CPU, because PyTorch's tensors are there.
    device = jaxlm.resolve_device("cpu")
    return Experiment("pytorch-ladder", partial(measure, options, torch, data, prompt_ids), device=device)


def measure(
    options: PyTorchLadderOptions, torch: Any, data: Dataset, prompt_ids: Ids, run: RunContext
) -> Findings:
    """Time each of the three models, from its training to its sample."""
    torch.manual_seed(options.seed)
    rows: list[dict[str, Any]] = []
    begin = time.perf_counter()
    for title, perplexity in train_models(options, torch, data, prompt_ids):
        seconds = time.perf_counter() - begin
        rows.append({"title": title, "perplexity": perplexity, "seconds": seconds})
        run.log(f"{title}: validation perplexity {perplexity:.2f}, {seconds:.1f} s")
        begin = time.perf_counter()
    table = [[row["title"], f"{row['perplexity']:.2f}", f"{row['seconds']:.1f}"] for row in rows]
    table.append(["all models", "", f"{sum(row['seconds'] for row in rows):.1f}"])
    results = {"models": rows, "torch": torch.__version__}
    return Findings(results, format_table(["model in PyTorch", "validation perplexity", "seconds"], table))


def train_models(
    options: PyTorchLadderOptions, torch: Any, data: Dataset, prompt_ids: Ids
) -> Iterator[tuple[str, float]]:
    """Train and sample one model after another; yield its title and validation perplexity."""
    from experiments.speed.pytorch import reference  # imports torch

    vocab_size = data.tokenizer.vocab_size
    train_ids, val_ids, prompt = (ids.tolist() for ids in (data.train_ids, data.val_ids, prompt_ids))
    table = torch.zeros((vocab_size, vocab_size), dtype=torch.int32)
    reference.count_one_by_one(table, train_ids)
    perplexity = reference.table_perplexity_by_table(table, torch.tensor(val_ids))
    reference.generate_from_table_in_python(reference.normalize_counts(table), prompt[-1], options.num_tokens)
    yield "counts bigram, add 1", perplexity

    recipe, stream = rungs.RECIPES["course"], torch.tensor(train_ids)
    num_steps = min(options.steps, 100) if options.quick else options.steps
    validated_steps = sorted({*range(0, num_steps, rungs.validation_interval(num_steps)), num_steps - 1})
    networks = rungs.make_networks(vocab_size, options, recipe)
    for network, lr in zip(networks, (recipe.bigram_lr, recipe.mlp_lr), strict=True):
        context_length = network.model.context_length
        module = reference.from_flax(network.model, jaxlm.init(network.model, jax.random.key(options.seed)))
        steps_done = 0
        for step in validated_steps:
            reference.train(
                module,
                stream,
                context_length=context_length,
                batch_size=recipe.batch_size,
                num_steps=step + 1 - steps_done,
                lr=lr,
                cut=reference.cut_in_python,
            )
            steps_done = step + 1
            perplexity = reference.perplexity_in_python(
                module, val_ids, context_length=context_length, batch_size=256
            )
        reference.generate_in_python(module, prompt[-context_length:], options.num_tokens)
        yield network.title, perplexity


if __name__ == "__main__":
    main(PyTorchLadderOptions, prepare)
