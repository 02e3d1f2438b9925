"""The jobs of the comparison with PyTorch: the variants of each row, and what is claimed of them.

Imports torch: import it where torch is needed.
"""

import ctypes
import functools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from experiments.speed.pytorch import reference as pytorch_models


@dataclass(frozen=True)
class Sizes:
    """How much a call does. Figures are per unit, so that slow variants may do less."""

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

BATCH_SIZES = 256, 1024, 4096  # for scoring: PyTorch has the one that is quickest

Bounds = tuple[float | None, float | None]  # best PyTorch / jaxlm, course / jaxlm: at least


def all_jobs(sizes: Sizes) -> dict[str, Callable[[], Benchmark]]:
    """Every row's name, and the function that builds it."""
    vocab_size = sizes.vocab_size
    counts = jaxlm.CountsBigramLM(vocab_size)
    bigram = jaxlm.NeuralBigramLM(vocab_size, 32)
    mlp = jaxlm.MLPLanguageModel(vocab_size, 3, 32, 64)
    large = jaxlm.MLPLanguageModel(vocab_size, 8, 64, 256)
    small = jaxlm.MLPLanguageModel(27, 3, 10, 200)
    small_bigram = jaxlm.NeuralBigramLM(27, 27)
    v = f"V={vocab_size}"
    return {
        f"fit, {v}": lambda: fit_row(counts, sizes),
        f"step, neural bigram {v} D=32 B=64": lambda: step_row(bigram, 64, 400, (1.6, 2.5), sizes),
        f"step, MLP {v} N=3 D=32 H=64 B=64": lambda: step_row(mlp, 64, 400, (1.8, 6), sizes),
        f"step, MLP {v} N=8 D=64 H=256 B=256": lambda: step_row(
            large, 256, 50, (1.2, 1.4), sizes, step_flops(large, 256)
        ),
        "step, MLP V=27 N=3 D=10 H=200 B=32": lambda: step_row(small, 32, 5000, (8, 10), sizes),
        "step, neural bigram V=27 D=27 B=32": lambda: step_row(small_bigram, 32, 10_000, (15, 35), sizes),
        f"sample, MLP {v}, one stream": lambda: sample_row(mlp, 1, (6, 6), sizes),
        f"sample, MLP {v}, 64 streams": lambda: sample_row(mlp, 64, (2, None), sizes),
        f"sample, counts {v}, one stream": lambda: sample_table_row(counts, (60, 60), sizes),
        f"perplexity, MLP {v}": lambda: perplexity_row(mlp, (3.5, 4), sizes),
        f"perplexity, neural bigram {v}": lambda: perplexity_row(bigram, (6, None), sizes),
        f"perplexity, counts {v}": lambda: perplexity_table_row(counts, (15, None), sizes),
        "16 runs, MLP V=27 N=3 D=10 H=200 B=32": lambda: sweep_row(small, 32, sizes),
    }


def fit_row(model: jaxlm.CountsBigramLM, sizes: Sizes) -> Benchmark:
    """Counting pairs into a table that is there beforehand; the course's loop counts fewer."""
    ids = zipf_ids(model.vocab_size, sizes.num_pairs + 1)
    kept = [jaxlm.init(model, jax.random.key(0))]  # `fit` takes the table over: each call goes on from the last

    def fit() -> Any:
        kept[0] = model.fit(kept[0], ids)
        return kept[0]

    table = torch.zeros((model.vocab_size, model.vocab_size), dtype=torch.int32)
    stream = torch.tensor(ids, dtype=torch.int64)
    excerpt = ids[: sizes.course_pairs + 1].tolist()
    variants = {
        "jaxlm": Variant(fit, sizes.num_pairs),
        **{
            f"PyTorch {name}": Variant(functools.partial(count, table, stream), sizes.num_pairs)
            for name, count in (
                ("index_put_", pytorch_models.count_by_index_put),
                ("scatter_add_", pytorch_models.count_by_scatter_add),
                ("bincount", pytorch_models.count_by_bincount),
            )
        },
        "course": Variant(functools.partial(pytorch_models.count_one_by_one, table, excerpt), sizes.course_pairs),
    }
    loop = c_loop()
    if loop is not None:
        counts = np.zeros((model.vocab_size, model.vocab_size), np.int32)
        variants["C"] = Variant(functools.partial(loop, ids, counts), sizes.num_pairs)
    against_c = RatioTarget("jaxlm / C loop", "jaxlm", "C", 2, at_most=True)
    return Benchmark("pair", variants, (*against_pytorch((2.5, 1000)), against_c))


def step_row(
    model: jaxlm.LanguageModel,
    batch_size: int,
    num_steps: int,
    bounds: Bounds,
    sizes: Sizes,
    flops: float | None = None,
) -> Benchmark:
    """A step of SGD on random windows, in loops of `num_steps` of ours and a tenth as many of PyTorch's.

    Of PyTorch's compiled step, the model and the loss are compiled; the windows and the update of the parameters
    stay eager, for to compile the step as a whole gains nothing.
    """
    ids = zipf_ids(model.vocab_size, sizes.train_tokens)
    variables = jaxlm.init(model, jax.random.key(0))
    steps = max(int(num_steps * sizes.step_share), 1)

    def train() -> Any:
        trained, _ = jaxlm.train_lm(
            model,
            ids,
            key=jax.random.key(1),
            variables=variables,
            batch_size=batch_size,
            num_steps=steps,
            lr=LR,
            log_every=steps,
        )
        return trained

    few_steps = max(steps // 10, 1)
    train_theirs = functools.partial(
        pytorch_models.train,
        pytorch_models.from_flax(model, variables),
        torch.tensor(ids, dtype=torch.int64),
        context_length=model.context_length,
        batch_size=batch_size,
        num_steps=few_steps,
        lr=LR,
    )
    nats = pytorch_models.compiled(pytorch_models.window_nats, sizes.compile_backend)
    in_python = functools.partial(train_theirs, cut=pytorch_models.cut_in_python)
    variants = {
        "jaxlm": Variant(train, steps),
        "PyTorch eager": Variant(train_theirs, few_steps),
        "PyTorch compiled": Variant(functools.partial(train_theirs, nats=nats), few_steps, True),
        "course": Variant(in_python, few_steps),
    }
    if flops is None:
        return Benchmark("step", variants, against_pytorch(bounds))
    ceiling = RatioTarget("matrix-product ceiling / jaxlm", "product", "jaxlm", 0.65)
    return Benchmark("step", variants | products(flops), (*against_pytorch(bounds), ceiling))


def step_flops(model: jaxlm.MLPLanguageModel, batch_size: int) -> float:
    """Operations in the matrix products of a step: forward, backward to what came in, and to the weights."""
    inputs = model.context_length * model.embedding_dim
    return 6 * batch_size * model.hidden_dim * (inputs + model.vocab_size)


def products(unit_flops: float) -> dict[str, Variant]:
    """Square matrix products: how long a unit would take that did nothing else, at the rate of each."""
    multiply = jax.jit(jnp.matmul)
    squares = {size: jax.random.normal(jax.random.key(size), (size, size)) for size in (512, 1024, 2048)}
    return {
        f"product {size}": Variant(functools.partial(multiply, square, square), 2 * size**3 / unit_flops)
        for size, square in squares.items()
    }


def sample_row(model: jaxlm.LanguageModel, num_streams: int, bounds: Bounds, sizes: Sizes) -> Benchmark:
    """A token drawn from a network; a call of PyTorch's draws a twentieth of ours."""
    variables = jaxlm.init(model, jax.random.key(0))
    prompt = zipf_ids(model.vocab_size, model.context_length)
    prompts = prompt if num_streams == 1 else np.tile(prompt, (num_streams, 1))
    num_tokens = max(sizes.num_tokens // num_streams, 1)
    few_tokens = max(num_tokens // 20, 1)
    module = pytorch_models.from_flax(model, variables)
    window = torch.tensor(np.atleast_2d(prompts), dtype=torch.int64)
    probabilities = pytorch_models.compiled(pytorch_models.next_token_probabilities, sizes.compile_backend)
    generate = functools.partial(pytorch_models.generate, module, window, few_tokens)

    def sample() -> Array:
        return jaxlm.sample(model, variables, prompts, num_tokens, key=jax.random.key(1))

    variants = {
        "jaxlm": Variant(sample, num_tokens * num_streams),
        "PyTorch eager": Variant(generate, few_tokens * num_streams),
        "PyTorch compiled": Variant(
            functools.partial(generate, probabilities=probabilities), few_tokens * num_streams, True
        ),
    }
    if num_streams == 1:
        in_python = functools.partial(pytorch_models.generate_in_python, module, prompt.tolist(), few_tokens)
        variants["course"] = Variant(in_python, few_tokens)
    return Benchmark("token", variants, against_pytorch(bounds))


def sample_table_row(model: jaxlm.CountsBigramLM, bounds: Bounds, sizes: Sizes) -> Benchmark:
    """A token drawn from a table: PyTorch's is made probabilities beforehand, ours are the raw counts.

    Of a long text: the 30 ms in which `sample` makes its own table weigh little among 100,000 tokens.
    """
    num_tokens = 5 * sizes.num_tokens
    variables = fitted(model, sizes)
    few_tokens = max(sizes.num_tokens // 20, 1)
    probabilities = pytorch_models.normalised(pytorch_models.from_jax(variables["counts"]["table"]))

    def sample() -> Array:
        return jaxlm.sample(model, variables, [0], num_tokens, key=jax.random.key(1))

    variants = {"jaxlm": Variant(sample, num_tokens)} | {
        name: Variant(functools.partial(generate, probabilities, 0, few_tokens), few_tokens)
        for name, generate in (
            ("PyTorch eager", pytorch_models.generate_from_table),
            ("course", pytorch_models.generate_from_table_in_python),
        )
    }
    return Benchmark("token", variants, against_pytorch(bounds))


def perplexity_row(model: jaxlm.LanguageModel, bounds: Bounds, sizes: Sizes) -> Benchmark:
    """A window scored by a network, by PyTorch at several batch sizes, of which the quickest counts."""
    variables = jaxlm.init(model, jax.random.key(0))
    ids = zipf_ids(model.vocab_size, sizes.num_windows + model.context_length)
    module = pytorch_models.from_flax(model, variables)
    stream = torch.tensor(ids, dtype=torch.int64)
    score = functools.partial(pytorch_models.perplexity, module, stream, context_length=model.context_length)
    summed_nats = pytorch_models.compiled(pytorch_models.summed_window_nats, sizes.compile_backend)
    in_python = functools.partial(
        pytorch_models.perplexity_in_python,
        module,
        ids.tolist(),
        context_length=model.context_length,
        batch_size=256,
    )
    variants = {
        "jaxlm": Variant(lambda: jaxlm.perplexity(model, variables, ids), sizes.num_windows),
        "PyTorch eager": Variant(quickest_batch_size(score), sizes.num_windows),
        **{
            f"PyTorch compiled, B={batch_size}": Variant(
                functools.partial(score, batch_size=batch_size, summed_nats=summed_nats), sizes.num_windows, True
            )
            for batch_size in BATCH_SIZES
        },
        "course": Variant(in_python, sizes.num_windows),
    }
    return Benchmark("window", variants, against_pytorch(bounds))


def perplexity_table_row(model: jaxlm.CountsBigramLM, bounds: Bounds, sizes: Sizes) -> Benchmark:
    """A window scored by a table of counts: rows where they are needed, or the whole table first."""
    variables = fitted(model, sizes)
    ids = zipf_ids(model.vocab_size, sizes.num_windows + 1, seed=1)
    table, stream = pytorch_models.from_jax(variables["counts"]["table"]), torch.tensor(ids, dtype=torch.int64)
    by_rows = functools.partial(pytorch_models.table_perplexity_by_rows, table, stream)
    calls = {
        "jaxlm": lambda: jaxlm.perplexity(model, variables, ids),
        "PyTorch eager, rows": quickest_batch_size(by_rows),
        "PyTorch eager, table": functools.partial(pytorch_models.table_perplexity_by_table, table, stream),
    }
    variants = {name: Variant(call, sizes.num_windows) for name, call in calls.items()}
    return Benchmark("window", variants, against_pytorch(bounds))


def sweep_row(model: jaxlm.LanguageModel, batch_size: int, sizes: Sizes) -> Benchmark:
    """A step of all of 16 runs, four learning rates with four keys each: together, and one after the other."""
    ids = zipf_ids(model.vocab_size, sizes.train_tokens)
    lrs = np.repeat([0.05, 0.1, 0.2, 0.4], 4)
    keys = jax.random.split(jax.random.key(0), len(lrs))
    num_steps = max(int(2000 * sizes.step_share), 1)

    def one_by_one() -> Any:
        return [
            jaxlm.train_lm(
                model,
                ids,
                key=key,
                batch_size=batch_size,
                num_steps=num_steps,
                lr=float(lr),
                log_every=num_steps,
            )[0]
            for lr, key in zip(lrs, keys, strict=True)
        ]

    def together() -> Any:
        return jaxlm.train_many(
            model,
            ids,
            keys=keys,
            hyperparams={"lr": lrs},
            batch_size=batch_size,
            num_steps=num_steps,
            log_every=num_steps,
        )[0]

    variants = {
        "jaxlm, one program": Variant(together, num_steps),
        "jaxlm, one by one": Variant(one_by_one, num_steps),
    }
    target = RatioTarget("one program / one by one", "jaxlm, one program", "jaxlm, one by one", 0.35, at_most=True)
    return Benchmark("step of all", variants, (target,))


def against_pytorch(bounds: Bounds) -> tuple[RatioTarget, ...]:
    """That the best PyTorch, and the course, take so many times as long; None where nothing is claimed."""
    return tuple(
        RatioTarget(f"{title} / jaxlm", beginning, "jaxlm", bound)
        for title, beginning, bound in zip(("best PyTorch", "course"), ("PyTorch", "course"), bounds, strict=True)
        if bound is not None
    )


def quickest_batch_size(score: Any) -> Any:
    """`score` at that of `BATCH_SIZES` at which it is quickest here, the best of five each."""
    seconds: dict[int, list[float]] = {batch_size: [] for batch_size in BATCH_SIZES}
    for batch_size in [*seconds] * 5:
        begin = time.perf_counter()
        score(batch_size=batch_size)
        seconds[batch_size].append(time.perf_counter() - begin)
    return functools.partial(score, batch_size=min(seconds, key=lambda batch_size: min(seconds[batch_size])))


def fitted(model: jaxlm.CountsBigramLM, sizes: Sizes) -> Any:
    """Counts of the training stream."""
    return model.fit(jaxlm.init(model, jax.random.key(0)), zipf_ids(model.vocab_size, sizes.train_tokens))


def c_loop() -> Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], None] | None:
    """A C loop that adds the pairs of `ids` int32 [T] to `table` int32 [V, V]; None where none compiles."""
    compiler = shutil.which("cc")
    if compiler is None:
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

    def add_pairs(ids: np.ndarray[Any, Any], table: np.ndarray[Any, Any]) -> None:
        pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (ids, table))
        count(next(pointers), ctypes.c_long(len(ids)), next(pointers), ctypes.c_long(len(table)))

    return add_pairs
