"""How long does the ladder take as a course writes it, in PyTorch, one eager step at a time?

    python -m experiments.course_ladder                        # about 20 s on 2 CPU cores
    scripts/ladder --recipe course                             # the same work: compare the last lines

It needs `pip install '.[bench]'`. The same text and tokens, 500 steps of 64 windows for each network, as many
validations, a hundred tokens drawn from each model; the windows cut and the pairs counted in Python loops. What
only jaxlm's ladder does beside that, the baselines, the best k, the pictures and the page, is left out here.

Expected: 14 to 16 s for the models, where `scripts/ladder` shows 6 s of "compile" and "train" for the same three,
and 3.5 s from the second time on; perplexities of 462, 690 and 320.
"""

import sys
import time

import jax
import tyro
from rich.console import Console

import jaxlm
from experiments.ladder import RECIPES, LadderConfig, load_data, neural_models, recorded_every
from experiments.pytorch_comparison import import_jobs
from jaxlm.console import exit_code, say, standard_output


def run_course(config: LadderConfig, console: Console) -> dict[str, tuple[float, float]]:
    """Each model's validation perplexity, and the seconds that it took.

    Raises:
        ValueError, OSError: what the user can mend, in one line.
    """
    jobs, torch = import_jobs()

    begin = time.perf_counter()
    data = load_data(config)
    vocab_size = data.tokenizer.vocab_size
    torch.manual_seed(config.seed)
    train_ids, val_ids, prompt = (ids.tolist() for ids in (data.train_ids, data.val_ids, data.prompt_ids))
    stream = torch.tensor(train_ids)
    outcome: dict[str, tuple[float, float]] = {}

    def finish(name: str, started: float, perplexity: float) -> None:
        outcome[name] = perplexity, time.perf_counter() - started
        say(console, f"{name}: perplexity {perplexity:.2f}, {outcome[name][1]:.1f} s")

    started = time.perf_counter()
    table = torch.zeros((vocab_size, vocab_size), dtype=torch.int32)
    jobs.pytorch_models.count_one_by_one(table, train_ids)
    perplexity = jobs.pytorch_models.table_perplexity_by_table(table, torch.tensor(val_ids))
    probabilities = jobs.pytorch_models.normalised(table)
    jobs.pytorch_models.generate_from_table_in_python(probabilities, prompt[-1], config.num_tokens)
    finish("counts bigram, add 1", started, perplexity)
    recipe = RECIPES["course"]
    num_steps = config.steps or recipe.num_steps
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
    say(console, f"{models_seconds:.1f} s for the models, {time.perf_counter() - begin:.1f} s in all")
    return outcome


if __name__ == "__main__":
    options = tyro.cli(LadderConfig, prog="course_ladder")
    sys.exit(exit_code(lambda: run_course(options, standard_output())))
