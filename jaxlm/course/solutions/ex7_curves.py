"""Exercise 7: plot training curves.

A curve shows what a final number hides: whether training has ended, diverged or begun to overfit. The loss of
single batches is noisy; the validation perplexity is what counts, and the counts bigram is the baseline to beat.

Your functions of exercise 5 are pure, so the loop that records can stay outside: train some steps, validate,
repeat.

Questions. Write each answer after its `>`.

1. Why is the loss drawn in nats and the validation in perplexity? Which loss equals perplexity 100?
   > The loss is what is minimized; perplexity reads as a number of choices. log 100 = 4.6 nats.
2. The training loss still falls and the validation perplexity rises. What is happening, and what do you do?
   > Overfitting: the model learns the training text by heart. Stop, or use a smaller model or more text.
3. Why is the first point of the curve at a loss of about log V?
   > A fresh model is uniform, and a uniform choice among V tokens costs log V nats.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
from jax import Array
from matplotlib.figure import Figure

History = dict[str, list[float]]


def record_curves(
    train: Callable[[Any, int, int], tuple[Any, Array]],
    validate: Callable[[Any], float],
    params: Any,
    num_steps: int,
    every: int,
) -> tuple[Any, History]:
    """Train and record the steps 0, every, 2 * every, ..., and the last one, num_steps - 1, each once.

    `train(params, first, n)` takes n steps and returns the parameters and the n losses. A record is the number of
    the step, the loss of its batch, and `validate` of the parameters after it. Return the final parameters and
    {"steps": [...], "train_losses": [...], "val_perplexities": [...]}, lists of Python numbers.
    """
    history: History = {"steps": [], "train_losses": [], "val_perplexities": []}
    first = 0
    for step in sorted({*range(0, num_steps, every), num_steps - 1}):
        params, losses = train(params, first, step + 1 - first)
        history["steps"].append(step)
        history["train_losses"].append(float(losses[-1]))
        history["val_perplexities"].append(float(validate(params)))
        first = step + 1
    return params, history


def plot_curves(history: History, baseline: float) -> Figure:
    """Return a figure with the training loss on the left axes, and the validation perplexity on the right ones.

    The right axes also have a horizontal line at `baseline`, the perplexity of the counts bigram. The two axes are
    side by side, `figure.subplots(1, 2)`; each has an x label, a y label and a legend. `Figure(figsize=...)` needs
    no global state, unlike `plt.figure`.
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(history["steps"], history["train_losses"], label="training loss")
    right.plot(history["steps"], history["val_perplexities"], label="validation perplexity")
    right.axhline(baseline, color="gray", linestyle="--", label="counts bigram")
    for axes, label in ((left, "nats per token"), (right, "perplexity")):
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.legend()
    return figure


def own_law(course: Any, random: Any) -> Iterator[tuple[Any, Any]]:
    """If the parameter counts the steps, each record's validation is one more than its step.

    Write a law of your own for `record_curves`. It must hold for a correct solution, and catch at least 3 of our
    wrong ones. What can `train` return, so that you know the whole history before?
    """
    for num_steps, every in ((3, 2), (int(random.integers(5, 9)), 3)):
        numbered = lambda steps, first, n: (steps + n, jnp.arange(first, first + n))  # noqa: E731
        _, history = course.record_curves(numbered, lambda steps: steps, 0, num_steps, every)
        yield history["steps"], history["train_losses"]
        yield [step + 1 for step in history["steps"]], history["val_perplexities"]
        yield num_steps - 1, history["steps"][-1]
