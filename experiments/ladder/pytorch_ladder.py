"""How long does the ladder take in PyTorch, written as in an introductory course?

    python -m experiments.ladder.pytorch_ladder     # about 20 s on 2 CPU cores
    scripts/ladder --recipe course                  # the same work in jaxlm: compare the times

Requires PyTorch, see `experiments/speed/README.md`. The text, the tokens and the sizes are those of the ladder:
500 steps of 64 windows for each network, one eager step at a time, as many validations as the ladder, and 100
sampled tokens per model. Windows are cut and pairs are counted in Python loops. The baselines, the best add-k, the
plots and the page are left out.

Expected: 14 to 16 s for the three models. `scripts/ladder --recipe course` shows 6 s of "compile" and "train" for
the same models, and 3.5 s with a warm compilation cache. The perplexities are 462, 690 and 320 (jaxlm: 462, 690
and 325).
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
from experiments.shared.report import format_records
from jaxlm.text.dataset import Dataset, line_start_prompt


@dataclass(frozen=True, kw_only=True)
class PyTorchLadderOptions(rungs.NetworkOptions):
    """Train the models of the ladder with the recipe "course" in PyTorch on the CPU."""


def prepare(options: PyTorchLadderOptions) -> Experiment:
    """Load the text and import PyTorch."""
    torch = import_torch()
    min_tokens = options.mlp_context_length + 1
    data = rungs.load_text(options, options.tokenizer, options.vocab_size, min_tokens=min_tokens)
    # On the CPU, because PyTorch's tensors are there.
    device = jaxlm.resolve_device("cpu")
    return Experiment("pytorch-ladder", partial(measure, options, torch, data), device=device)


def measure(options: PyTorchLadderOptions, torch: Any, data: Dataset, run: RunContext) -> Findings:
    """Time each of the three models, from its training to its sample."""
    torch.manual_seed(options.seed)
    rows: list[dict[str, Any]] = []
    begin = time.perf_counter()
    for title, perplexity in train_models(options, torch, data):
        rows.append({"title": title, "perplexity": perplexity, "seconds": time.perf_counter() - begin})
        run.log(f"{title}: validation perplexity {perplexity:.2f}, {rows[-1]['seconds']:.1f} s")
        begin = time.perf_counter()
    total = {"title": "all models", "seconds": sum(row["seconds"] for row in rows)}
    columns = {
        "model in PyTorch": "{title}",
        "validation perplexity": "{perplexity:.2f}",
        "seconds": "{seconds:.1f}",
    }
    return Findings({"models": rows, "torch": torch.__version__}, format_records([*rows, total], columns))


def train_models(options: PyTorchLadderOptions, torch: Any, data: Dataset) -> Iterator[tuple[str, float]]:
    """Train and sample one model after another; yield its title and validation perplexity."""
    from experiments.speed.pytorch import reference  # imports torch

    vocab_size = data.tokenizer.vocab_size
    prompt_ids = line_start_prompt(data, options.mlp_context_length)
    train_ids, val_ids, prompt = (ids.tolist() for ids in (data.train_ids, data.val_ids, prompt_ids))
    table = torch.zeros((vocab_size, vocab_size), dtype=torch.int32)
    reference.count_one_by_one(table, train_ids)
    perplexity = reference.table_perplexity(table, torch.tensor(val_ids))
    reference.generate_from_table_in_python(reference.normalize_counts(table), prompt[-1], options.num_tokens)
    yield "counts bigram, add 1", perplexity

    stream, quick_steps = torch.tensor(train_ids), 100 if options.quick else None
    for network in rungs.make_networks(vocab_size, options, rungs.RECIPES["course"], quick_steps):
        module = reference.from_flax(network.model, jaxlm.init(network.model, jax.random.key(options.seed)))
        sizes: dict[str, Any] = {"context_length": network.model.context_length, "batch_size": network.batch_size}
        interval = max(network.num_steps // 24, 1)
        for first in range(0, network.num_steps, interval):
            steps = min(interval, network.num_steps - first)
            cut = reference.cut_in_python
            reference.train(module, stream, num_steps=steps, lr=network.lr, cut=cut, **sizes)
            perplexity = reference.perplexity_in_python(module, val_ids, **sizes | {"batch_size": 256})
        reference.generate_in_python(module, prompt[-network.model.context_length :], options.num_tokens)
        yield network.title, perplexity


if __name__ == "__main__":
    main(PyTorchLadderOptions, prepare)
