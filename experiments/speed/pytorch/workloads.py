"""The workloads of the comparison with PyTorch: the variants of each, and their ratios.

This module imports torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
import torch

import jaxlm
from experiments.shared.benchmark import Benchmark, Ratio, Variant
from experiments.shared.synthetic import zipf_ids
from experiments.shared.training import fit_counts, make_count_call
from experiments.speed.pytorch import reference


@dataclass(frozen=True)
class Sizes:
    """Work per call. Figures are per unit, so slow variants can do less."""

    vocab_size: int = 4096
    num_pairs: int = 9_300_000
    course_pairs: int = 20_000
    train_tokens: int = 309_843
    step_share: float = 1.0
    num_tokens: int = 20_000
    num_windows: int = 34_410
    compile_backend: str = "inductor"


QUICK = Sizes(64, 2_000, 100, 2_000, 0.01, 50, 300, "eager")

LR = 0.1
BATCH_SIZES = 256, 1024, 4096  # for perplexity; the fastest counts for PyTorch
RATIOS = Ratio("best PyTorch / jaxlm", "PyTorch", "jaxlm"), Ratio("course / jaxlm", "course", "jaxlm")


def make_workloads(sizes: Sizes) -> dict[str, Callable[[], Benchmark]]:
    """Return the function that builds each workload, by title."""
    vocab_size = sizes.vocab_size
    counts = jaxlm.CountsBigramLM(vocab_size)
    bigram = jaxlm.NeuralBigramLM(vocab_size, 32)
    mlp = jaxlm.MLPLanguageModel(vocab_size, 3, 32, 64)
    large = jaxlm.MLPLanguageModel(vocab_size, 8, 64, 256)
    small = jaxlm.MLPLanguageModel(27, 3, 10, 200)
    small_bigram = jaxlm.NeuralBigramLM(27, 27)
    v = f"V={vocab_size}"
    return {
        f"fit, {v}": lambda: fit_workload(counts, sizes),
        f"step, neural bigram {v} D=32 B=64": lambda: step_workload(bigram, 64, 400, sizes),
        f"step, MLP {v} N=3 D=32 H=64 B=64": lambda: step_workload(mlp, 64, 400, sizes),
        f"step, MLP {v} N=8 D=64 H=256 B=256": lambda: step_workload(large, 256, 50, sizes),
        "step, MLP V=27 N=3 D=10 H=200 B=32": lambda: step_workload(small, 32, 5000, sizes),
        "step, neural bigram V=27 D=27 B=32": lambda: step_workload(small_bigram, 32, 10_000, sizes),
        f"sample, MLP {v}, one stream": lambda: sample_workload(mlp, 1, sizes),
        f"sample, MLP {v}, 64 streams": lambda: sample_workload(mlp, 64, sizes),
        f"sample, counts {v}, one stream": lambda: sample_table_workload(counts, sizes),
        f"perplexity, MLP {v}": lambda: perplexity_workload(mlp, sizes),
        f"perplexity, neural bigram {v}": lambda: perplexity_workload(bigram, sizes),
        f"perplexity, counts {v}": lambda: perplexity_table_workload(counts, sizes),
    }


def fit_workload(model: jaxlm.CountsBigramLM, sizes: Sizes) -> Benchmark:
    """Count pairs into an existing table. The loop of the course counts fewer pairs per call."""
    ids = zipf_ids(model.vocab_size, sizes.num_pairs + 1)
    table = torch.zeros((model.vocab_size, model.vocab_size), dtype=torch.int32)
    stream = torch.tensor(ids, dtype=torch.int64)
    calls: dict[str, Callable[[], Any]] = {
        "jaxlm": make_count_call(model, ids),
        "PyTorch index_put_": partial(reference.count_by_index_put, table, stream),
        "PyTorch scatter_add_": partial(reference.count_by_scatter_add, table, stream),
        "PyTorch bincount": partial(reference.count_by_bincount, table, stream),
    }
    variants = {name: Variant(call, sizes.num_pairs) for name, call in calls.items()}
    excerpt = ids[: sizes.course_pairs + 1].tolist()
    variants["course"] = Variant(partial(reference.count_one_by_one, table, excerpt), sizes.course_pairs)
    return Benchmark("pair", variants, RATIOS)


def step_workload(model: jaxlm.LanguageModel, batch_size: int, num_steps: int, sizes: Sizes) -> Benchmark:
    """Do SGD steps on random windows, `num_steps` per call of jaxlm and a tenth of that per call of PyTorch.

    PyTorch's compiled variant compiles model and loss. Windows and updates stay eager: compiling the whole step
    gains nothing.
    """
    ids = zipf_ids(model.vocab_size, sizes.train_tokens)
    variables = jaxlm.init(model, jax.random.key(0))
    steps = max(int(num_steps * sizes.step_share), 1)
    few_steps = max(steps // 10, 1)
    options: dict[str, Any] = {"variables": variables, "batch_size": batch_size, "num_steps": steps, "lr": LR}
    train = partial(jaxlm.train_lm, model, ids, key=jax.random.key(1), log_every=steps, **options)
    module, stream = reference.from_flax(model, variables), torch.tensor(ids, dtype=torch.int64)
    few: dict[str, Any] = {"batch_size": batch_size, "num_steps": few_steps, "lr": LR}
    train_torch = partial(reference.train, module, stream, context_length=model.context_length, **few)
    nats = compile_function(reference.window_nats, sizes)
    variants = {
        "jaxlm": Variant(train, steps),
        "PyTorch eager": Variant(train_torch, few_steps),
        "PyTorch compiled": Variant(partial(train_torch, nats=nats), few_steps, compiles_itself=True),
        "course": Variant(partial(train_torch, cut=reference.cut_in_python), few_steps),
    }
    return Benchmark("step", variants, RATIOS)


def sample_workload(model: jaxlm.LanguageModel, num_streams: int, sizes: Sizes) -> Benchmark:
    """Sample tokens from a network. A call of PyTorch samples a twentieth of the tokens of jaxlm."""
    variables = jaxlm.init(model, jax.random.key(0))
    prompt = zipf_ids(model.vocab_size, model.context_length)
    prompts = prompt if num_streams == 1 else np.tile(prompt, (num_streams, 1))
    num_tokens = max(sizes.num_tokens // num_streams, 1)
    few_tokens = max(num_tokens // 20, 1)
    module = reference.from_flax(model, variables)
    window = torch.tensor(np.atleast_2d(prompts), dtype=torch.int64)
    compiled = compile_function(reference.next_probabilities, sizes)
    generate = partial(reference.generate, module, window, few_tokens)
    generate_compiled = partial(generate, probabilities=compiled)
    sample = partial(jaxlm.sample, model, variables, prompts, num_tokens, key=jax.random.key(1))
    variants = {
        "jaxlm": Variant(sample, num_tokens * num_streams),
        "PyTorch eager": Variant(generate, few_tokens * num_streams),
        "PyTorch compiled": Variant(generate_compiled, few_tokens * num_streams, compiles_itself=True),
    }
    if num_streams == 1:
        in_python = partial(reference.generate_in_python, module, prompt.tolist(), few_tokens)
        variants["course"] = Variant(in_python, few_tokens)
    return Benchmark("token", variants, RATIOS)


def sample_table_workload(model: jaxlm.CountsBigramLM, sizes: Sizes) -> Benchmark:
    """Sample tokens from a table: normalized beforehand for PyTorch, raw counts for jaxlm.

    The text is long, so that the 30 ms in which `sample` computes its own table are spread over 100,000 tokens.
    """
    num_tokens, few_tokens = 5 * sizes.num_tokens, max(sizes.num_tokens // 20, 1)
    variables = fit_counts(model, zipf_ids(model.vocab_size, sizes.train_tokens))
    table = reference.normalize_counts(reference.from_jax(variables["counts"]["table"]))
    sample = partial(jaxlm.sample, model, variables, [0], num_tokens, key=jax.random.key(1))
    variants = {
        "jaxlm": Variant(sample, num_tokens),
        "PyTorch eager": Variant(partial(reference.generate_from_table, table, 0, few_tokens), few_tokens),
        "course": Variant(partial(reference.generate_from_table_in_python, table, 0, few_tokens), few_tokens),
    }
    return Benchmark("token", variants, RATIOS)


def perplexity_workload(model: jaxlm.LanguageModel, sizes: Sizes) -> Benchmark:
    """Score windows with a network."""
    variables = jaxlm.init(model, jax.random.key(0))
    ids = zipf_ids(model.vocab_size, sizes.num_windows + model.context_length)
    module = reference.from_flax(model, variables)
    options: dict[str, Any] = {"context_length": model.context_length}
    score = partial(reference.perplexity, module, torch.tensor(ids, dtype=torch.int64), **options)
    compiled = compile_function(reference.window_nats, sizes)
    calls: dict[str, Callable[[], Any]] = {"jaxlm": partial(jaxlm.perplexity, model, variables, ids)}
    for size in BATCH_SIZES:
        calls[f"PyTorch eager, B={size}"] = partial(score, batch_size=size)
        calls[f"PyTorch compiled, B={size}"] = partial(score, batch_size=size, nats=compiled)
    calls["course"] = partial(reference.perplexity_in_python, module, ids.tolist(), batch_size=256, **options)
    variants = {name: Variant(call, sizes.num_windows, "compiled" in name) for name, call in calls.items()}
    return Benchmark("window", variants, RATIOS)


def perplexity_table_workload(model: jaxlm.CountsBigramLM, sizes: Sizes) -> Benchmark:
    """Score windows with a table of counts. PyTorch smooths the whole table first."""
    variables = fit_counts(model, zipf_ids(model.vocab_size, sizes.train_tokens))
    ids = zipf_ids(model.vocab_size, sizes.num_windows + 1, seed=1)
    table, stream = reference.from_jax(variables["counts"]["table"]), torch.tensor(ids, dtype=torch.int64)
    calls = {
        "jaxlm": partial(jaxlm.perplexity, model, variables, ids),
        "PyTorch eager": partial(reference.table_perplexity, table, stream),
    }
    variants = {name: Variant(call, sizes.num_windows) for name, call in calls.items()}
    return Benchmark("window", variants, RATIOS)


def compile_function(function: Callable[..., Any], sizes: Sizes) -> Callable[..., Any]:
    """Compile a function with `torch.compile`, one program per shape."""
    torch.compiler.reset()  # it keeps eight programs per function, then stops compiling
    return torch.compile(function, fullgraph=True, dynamic=False, backend=sizes.compile_backend)
