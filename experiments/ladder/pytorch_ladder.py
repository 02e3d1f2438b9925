"""How long does the ladder take as a course writes it, in PyTorch, one eager step at a time?

    python -m experiments.ladder.pytorch_ladder                        # about 20 s on 2 CPU cores
    scripts/ladder --recipe course                             # the same work: compare the last lines

It needs `pip install '.[bench]'`. The same text and tokens, 500 steps of 64 windows for each network, as many
validations, a hundred tokens drawn from each model; the windows cut and the pairs counted in Python loops. What
only jaxlm's ladder does beside that, the baselines, the best k, the pictures and the page, is left out here.

Expected: 14 to 16 s for the models, where `scripts/ladder` shows 6 s of "compile" and "train" for the same three,
and 3.5 s from the second time on; perplexities of 462, 690 and 320.
"""

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from rich.console import Console

import jaxlm
from experiments.ladder.ladder import (
    RECIPES,
    LadderConfig,
    check_options,
    choose_prompt,
    load_text,
    neural_models,
    recorded_every,
)
from experiments.speed.pytorch.compare import import_jobs
from jaxlm.utils.terminal import print_plain, run_command, stdout_console


@dataclass(frozen=True)
class CourseConfig:
    """Trains the models of `experiments.ladder.ladder` by the course's recipe, in PyTorch on the CPU."""

    corpus: str = "tinyshakespeare"
    """A named corpus: tinyshakespeare, or shakespeare (all the plays)."""
    text: Path | None = None
    """A UTF-8 text file of your own, instead of a named corpus."""
    tokenizer: Literal["char", "byte", "bpe"] = "bpe"
    """What a token is: a character, a byte, or a piece learnt by byte-pair encoding."""
    vocab_size: int | None = None
    """Tokens of the BPE vocabulary, at least 256; None is 4096."""
    seed: int = 0
    """Every random choice of the run follows from it: 0 to 2**32 - 1."""
    steps: int = RECIPES["course"].num_steps
    """Training steps of each neural model."""
    bigram_embedding_dim: int = 64
    """Neural bigram: dimensions of the embedding."""
    mlp_context_length: int = 3
    """MLP: tokens of context."""
    mlp_embedding_dim: int = 32
    """MLP: dimensions of the embedding."""
    mlp_hidden_dim: int = 64
    """MLP: units of the hidden layer."""
    num_tokens: int = 100
    """Tokens to sample from each model."""

    def as_ladder(self) -> LadderConfig:
        """The same of the ladder."""
        return LadderConfig(recipe="course", device="cpu", **asdict(self))


def run_course(config: CourseConfig, console: Console) -> dict[str, tuple[float, float]]:
    """Each model's validation perplexity, and the seconds that it took.

    Raises:
        ValueError, OSError: what the user can mend, in one line.
    """
    ladder = config.as_ladder()
    check_options(ladder)
    jobs, torch = import_jobs()
    with jax.default_device(jaxlm.resolve_device(ladder.device)):  # that is where PyTorch's tensors are
        return train_and_sample(ladder, config.steps, jobs, torch, console)


def train_and_sample(
    config: LadderConfig, num_steps: int, jobs: Any, torch: Any, console: Console
) -> dict[str, tuple[float, float]]:
    """The three models, one after the other, timed from the text to the samples."""
    begin = time.perf_counter()
    data = load_text(config)
    vocab_size = data.tokenizer.vocab_size
    torch.manual_seed(config.seed)
    train_ids, val_ids, prompt = (
        ids.tolist() for ids in (data.train_ids, data.val_ids, choose_prompt(config, data))
    )
    stream = torch.tensor(train_ids)
    outcome: dict[str, tuple[float, float]] = {}

    def finish(name: str, started: float, perplexity: float) -> None:
        outcome[name] = perplexity, time.perf_counter() - started
        print_plain(console, f"{name}: perplexity {perplexity:.2f}, {outcome[name][1]:.1f} s")

    started = time.perf_counter()
    table = torch.zeros((vocab_size, vocab_size), dtype=torch.int32)
    jobs.pytorch_models.count_one_by_one(table, train_ids)
    perplexity = jobs.pytorch_models.table_perplexity_by_table(table, torch.tensor(val_ids))
    probabilities = jobs.pytorch_models.normalised(table)
    jobs.pytorch_models.generate_from_table_in_python(probabilities, prompt[-1], config.num_tokens)
    finish("counts bigram, add 1", started, perplexity)
    recipe = RECIPES["course"]
    for model, lr in zip(neural_models(config, vocab_size), (recipe.bigram_lr, recipe.mlp_lr), strict=True):
        started = time.perf_counter()
        module = jobs.pytorch_models.from_flax(model, jaxlm.init(model, jax.random.key(config.seed)))
        steps_done, every = 0, recorded_every(num_steps)
        for recorded in sorted({*range(0, num_steps, every), num_steps - 1}):
            jobs.pytorch_models.train(
                module,
                stream,
                context_length=model.context_length,
                batch_size=recipe.batch_size,
                num_steps=recorded + 1 - steps_done,
                lr=lr,
                cut=jobs.pytorch_models.cut_in_python,
            )
            steps_done = recorded + 1
            perplexity = jobs.pytorch_models.perplexity_in_python(
                module, val_ids, context_length=model.context_length, batch_size=256
            )
        jobs.pytorch_models.generate_in_python(module, prompt[-model.context_length :], config.num_tokens)
        finish(type(model).__name__, started, perplexity)
    models_seconds = sum(seconds for _, seconds in outcome.values())
    print_plain(console, f"{models_seconds:.1f} s for the models, {time.perf_counter() - begin:.1f} s in all")
    return outcome


if __name__ == "__main__":
    options = tyro.cli(CourseConfig, prog="course_ladder")
    sys.exit(run_command(lambda: run_course(options, stdout_console())))
