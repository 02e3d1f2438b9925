"""The workloads of the comparison with PyTorch: the variants of each, and the targets for their ratios.

This module imports torch.
"""

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array

import jaxlm
from experiments.shared.benchmark import Benchmark, RatioTarget, Variant
from experiments.shared.synthetic import zipf_ids
from experiments.shared.training import Ids, fit_counts
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

Bounds = tuple[float | None, float | None]  # least ratios of best PyTorch and of course to jaxlm


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
        f"step, neural bigram {v} D=32 B=64": lambda: step_workload(bigram, 64, 400, (1.6, 2.5), sizes),
        f"step, MLP {v} N=3 D=32 H=64 B=64": lambda: step_workload(mlp, 64, 400, (1.8, 6), sizes),
        f"step, MLP {v} N=8 D=64 H=256 B=256": lambda: add_ceiling(
            step_workload(large, 256, 50, (1.2, 1.4), sizes), count_step_flops(large, 256)
        ),
        "step, MLP V=27 N=3 D=10 H=200 B=32": lambda: step_workload(small, 32, 5000, (8, 10), sizes),
        "step, neural bigram V=27 D=27 B=32": lambda: step_workload(small_bigram, 32, 10_000, (15, 35), sizes),
        f"sample, MLP {v}, one stream": lambda: sample_workload(mlp, 1, (6, 6), sizes),
        f"sample, MLP {v}, 64 streams": lambda: sample_workload(mlp, 64, (2, None), sizes),
        f"sample, counts {v}, one stream": lambda: sample_table_workload(counts, (60, 60), sizes),
        f"perplexity, MLP {v}": lambda: perplexity_workload(mlp, (3.5, 4), sizes),
        f"perplexity, neural bigram {v}": lambda: perplexity_workload(bigram, (6, None), sizes),
        f"perplexity, counts {v}": lambda: perplexity_table_workload(counts, (15, None), sizes),
        "16 runs, MLP V=27 N=3 D=10 H=200 B=32": lambda: sweep_workload(small, 32, sizes),
    }


def fit_workload(model: jaxlm.CountsBigramLM, sizes: Sizes) -> Benchmark:
    """Count pairs into an existing table. The course's loop counts fewer."""
    ids = zipf_ids(model.vocab_size, sizes.num_pairs + 1)
    kept = [jaxlm.init(model, jax.random.key(0))]  # `fit` donates the table, so each call continues from the last

    def fit() -> Any:
        kept[0] = model.fit(kept[0], ids, donate=True)
        return kept[0]

    shape = model.vocab_size, model.vocab_size
    table, stream = torch.zeros(shape, dtype=torch.int32), torch.tensor(ids, dtype=torch.int64)
    calls: dict[str, Callable[[], Any]] = {
        "jaxlm": fit,
        "PyTorch index_put_": partial(reference.count_by_index_put, table, stream),
        "PyTorch scatter_add_": partial(reference.count_by_scatter_add, table, stream),
        "PyTorch bincount": partial(reference.count_by_bincount, table, stream),
    }
    variants = {name: Variant(call, sizes.num_pairs) for name, call in calls.items()}
    excerpt = ids[: sizes.course_pairs + 1].tolist()
    variants["course"] = Variant(partial(reference.count_one_by_one, table, excerpt), sizes.course_pairs)
    if (loop := compile_c_loop()) is not None:
        variants["C"] = Variant(partial(loop, ids, np.zeros(shape, np.int32)), sizes.num_pairs)
    against_c = RatioTarget("jaxlm / C loop", "jaxlm", "C", 2, at_most=True)
    return Benchmark("pair", variants, (*pytorch_targets((2.5, 1000)), against_c))


def step_workload(
    model: jaxlm.LanguageModel, batch_size: int, num_steps: int, bounds: Bounds, sizes: Sizes
) -> Benchmark:
    """Do SGD steps on random windows, `num_steps` per call of jaxlm and a tenth of that per call of PyTorch.

    PyTorch's compiled variant compiles model and loss. Windows and updates stay eager: compiling the whole step
    gains nothing.
    """
    ids = zipf_ids(model.vocab_size, sizes.train_tokens)
    variables = jaxlm.init(model, jax.random.key(0))
    steps = max(int(num_steps * sizes.step_share), 1)
    few_steps = max(steps // 10, 1)
    options: dict[str, Any] = {"variables": variables, "batch_size": batch_size, "num_steps": steps, "lr": LR}

    def train() -> Any:
        return jaxlm.train_lm(model, ids, key=jax.random.key(1), log_every=steps, **options)[0]

    train_torch = partial(
        reference.train,
        reference.from_flax(model, variables),
        torch.tensor(ids, dtype=torch.int64),
        context_length=model.context_length,
        batch_size=batch_size,
        num_steps=few_steps,
        lr=LR,
    )
    nats = reference.compile_function(reference.window_nats, sizes.compile_backend)
    variants = {
        "jaxlm": Variant(train, steps),
        "PyTorch eager": Variant(train_torch, few_steps),
        "PyTorch compiled": Variant(partial(train_torch, nats=nats), few_steps, compiles_itself=True),
        "course": Variant(partial(train_torch, cut=reference.cut_in_python), few_steps),
    }
    return Benchmark("step", variants, pytorch_targets(bounds))


def add_ceiling(benchmark: Benchmark, step_flops: float) -> Benchmark:
    """Add square matrix products, as the time of a step that consists of nothing else."""
    multiply = jax.jit(jnp.matmul)
    products = {}
    for size in (512, 1024, 2048):
        square = jax.random.normal(jax.random.key(size), (size, size))
        products[f"product {size}"] = Variant(partial(multiply, square, square), 2 * size**3 / step_flops)
    target = RatioTarget("matrix-product ceiling / jaxlm", "product", "jaxlm", 0.65)
    return Benchmark(benchmark.unit, {**benchmark.variants, **products}, (*benchmark.targets, target))


def count_step_flops(model: jaxlm.MLPLanguageModel, batch_size: int) -> float:
    """Count the FLOPs of a step's matrix products: forward, gradient of the inputs, gradient of the weights."""
    inputs = model.context_length * model.embedding_dim
    return 6 * batch_size * model.hidden_dim * (inputs + model.vocab_size)


def sample_workload(model: jaxlm.LanguageModel, num_streams: int, bounds: Bounds, sizes: Sizes) -> Benchmark:
    """Sample tokens from a network. A call of PyTorch samples a twentieth of the tokens of jaxlm."""
    variables = jaxlm.init(model, jax.random.key(0))
    prompt = zipf_ids(model.vocab_size, model.context_length)
    prompts = prompt if num_streams == 1 else np.tile(prompt, (num_streams, 1))
    num_tokens = max(sizes.num_tokens // num_streams, 1)
    few_tokens = max(num_tokens // 20, 1)
    module = reference.from_flax(model, variables)
    window = torch.tensor(np.atleast_2d(prompts), dtype=torch.int64)
    compiled = reference.compile_function(reference.next_token_probabilities, sizes.compile_backend)
    generate = partial(reference.generate, module, window, few_tokens)
    generate_compiled = partial(generate, probabilities=compiled)

    def sample() -> Array:
        return jaxlm.sample(model, variables, prompts, num_tokens, key=jax.random.key(1))

    variants = {
        "jaxlm": Variant(sample, num_tokens * num_streams),
        "PyTorch eager": Variant(generate, few_tokens * num_streams),
        "PyTorch compiled": Variant(generate_compiled, few_tokens * num_streams, compiles_itself=True),
    }
    if num_streams == 1:
        in_python = partial(reference.generate_in_python, module, prompt.tolist(), few_tokens)
        variants["course"] = Variant(in_python, few_tokens)
    return Benchmark("token", variants, pytorch_targets(bounds))


def sample_table_workload(model: jaxlm.CountsBigramLM, bounds: Bounds, sizes: Sizes) -> Benchmark:
    """Sample tokens from a table: normalized beforehand for PyTorch, raw counts for jaxlm.

    The text is long, so that the 30 ms in which `sample` computes its own table are spread over 100,000 tokens.
    """
    num_tokens, few_tokens = 5 * sizes.num_tokens, max(sizes.num_tokens // 20, 1)
    variables = fit_counts(model, zipf_ids(model.vocab_size, sizes.train_tokens))
    table = reference.normalize_counts(reference.from_jax(variables["counts"]["table"]))

    def sample() -> Array:
        return jaxlm.sample(model, variables, [0], num_tokens, key=jax.random.key(1))

    variants = {
        "jaxlm": Variant(sample, num_tokens),
        "PyTorch eager": Variant(partial(reference.generate_from_table, table, 0, few_tokens), few_tokens),
        "course": Variant(partial(reference.generate_from_table_in_python, table, 0, few_tokens), few_tokens),
    }
    return Benchmark("token", variants, pytorch_targets(bounds))


def perplexity_workload(model: jaxlm.LanguageModel, bounds: Bounds, sizes: Sizes) -> Benchmark:
    """Score windows with a network. PyTorch uses the fastest of several batch sizes."""
    variables = jaxlm.init(model, jax.random.key(0))
    ids = zipf_ids(model.vocab_size, sizes.num_windows + model.context_length)
    module = reference.from_flax(model, variables)
    options: dict[str, Any] = {"context_length": model.context_length}
    score = partial(reference.perplexity, module, torch.tensor(ids, dtype=torch.int64), **options)
    compiled = reference.compile_function(reference.sum_window_nats, sizes.compile_backend)
    in_python = partial(reference.perplexity_in_python, module, ids.tolist(), batch_size=256, **options)
    calls = {
        "jaxlm": partial(jaxlm.perplexity, model, variables, ids),
        "PyTorch eager": select_batch_size(score),
        **{
            f"PyTorch compiled, B={batch_size}": partial(score, batch_size=batch_size, sum_nats=compiled)
            for batch_size in BATCH_SIZES
        },
        "course": in_python,
    }
    variants = {name: Variant(call, sizes.num_windows, "compiled" in name) for name, call in calls.items()}
    return Benchmark("window", variants, pytorch_targets(bounds))


def perplexity_table_workload(model: jaxlm.CountsBigramLM, bounds: Bounds, sizes: Sizes) -> Benchmark:
    """Score windows with a table of counts. PyTorch smooths the needed rows, or the whole table first."""
    variables = fit_counts(model, zipf_ids(model.vocab_size, sizes.train_tokens))
    ids = zipf_ids(model.vocab_size, sizes.num_windows + 1, seed=1)
    table, stream = reference.from_jax(variables["counts"]["table"]), torch.tensor(ids, dtype=torch.int64)
    calls = {
        "jaxlm": partial(jaxlm.perplexity, model, variables, ids),
        "PyTorch eager, rows": select_batch_size(partial(reference.table_perplexity_by_rows, table, stream)),
        "PyTorch eager, table": partial(reference.table_perplexity_by_table, table, stream),
    }
    variants = {name: Variant(call, sizes.num_windows) for name, call in calls.items()}
    return Benchmark("window", variants, pytorch_targets(bounds))


def sweep_workload(model: jaxlm.LanguageModel, batch_size: int, sizes: Sizes) -> Benchmark:
    """Train 16 runs, four learning rates with four keys each, side by side and one after another."""
    ids = zipf_ids(model.vocab_size, sizes.train_tokens)
    lrs = np.repeat([0.05, 0.1, 0.2, 0.4], 4)
    keys = jax.random.split(jax.random.key(0), len(lrs))
    num_steps = max(int(2000 * sizes.step_share), 1)
    options: dict[str, Any] = {"batch_size": batch_size, "num_steps": num_steps, "log_every": num_steps}

    def one_by_one() -> Any:
        pairs = zip(lrs.tolist(), keys, strict=True)
        return [jaxlm.train_lm(model, ids, key=key, lr=lr, **options)[0] for lr, key in pairs]

    def together() -> Any:
        return jaxlm.train_many(model, ids, keys=keys, hyperparams={"lr": lrs}, **options)[0]

    calls = {"jaxlm, one program": together, "jaxlm, one by one": one_by_one}
    variants = {name: Variant(call, num_steps) for name, call in calls.items()}
    target = RatioTarget("one program / one by one", "jaxlm, one program", "jaxlm, one by one", 0.35, at_most=True)
    return Benchmark("step of all", variants, (target,))


def pytorch_targets(bounds: Bounds) -> tuple[RatioTarget, ...]:
    """Return the targets for best PyTorch / jaxlm and course / jaxlm, where there is a bound."""
    return tuple(
        RatioTarget(f"{title} / jaxlm", prefix, "jaxlm", bound)
        for title, prefix, bound in zip(("best PyTorch", "course"), ("PyTorch", "course"), bounds, strict=True)
        if bound is not None
    )


def select_batch_size(score: Any) -> Any:
    """Return `score` with the fastest of `BATCH_SIZES`, by the minimum of five calls each."""
    seconds: dict[int, list[float]] = {batch_size: [] for batch_size in BATCH_SIZES}
    for batch_size in [*seconds] * 5:
        begin = time.perf_counter()
        score(batch_size=batch_size)
        seconds[batch_size].append(time.perf_counter() - begin)
    return partial(score, batch_size=min(seconds, key=lambda batch_size: min(seconds[batch_size])))


def compile_c_loop() -> Callable[[Ids, Ids], None] | None:
    """Return a C loop that adds the pairs of int32 ids [T] to a table [V, V], or None without a compiler."""
    if (compiler := shutil.which("cc")) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "count.c"), Path(folder, "count.so")
        source.write_text(
            "void count(const int *ids, long num_ids, int *table, long vocab_size) {\n"
            "  for (long i = 0; i + 1 < num_ids; i++) table[ids[i] * vocab_size + ids[i + 1]]++;\n"
            "}\n"
        )
        command = [compiler, "-O3", "-shared", "-fPIC", "-o", str(library), str(source)]
        try:
            subprocess.run(command, check=True, capture_output=True)  # noqa: S603
            count = ctypes.CDLL(str(library)).count
        except (subprocess.CalledProcessError, OSError):
            return None

    def add_pairs(ids: Ids, table: Ids) -> None:
        pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (ids, table))
        count(next(pointers), ctypes.c_long(len(ids)), next(pointers), ctypes.c_long(len(table)))

    return add_pairs
