"""The laws of exercise 7: what is recorded, and what the figure shows."""

from typing import Any

import jax.numpy as jnp

from jaxlm.course.law import Comparisons, Implementation, Random, make_laws

SETTINGS = ((1, 5), (3, 1), (7, 3), (8, 3))  # numbers of steps, and steps between records


def record(course: Implementation, num_steps: int, every: int) -> tuple[Any, Any, list[int]]:
    """Record a training whose parameters count its steps. Also return the numbers of all steps taken."""
    taken: list[int] = []

    def train(params: int, first: int, n: int) -> tuple[int, Any]:
        taken.extend(range(first, first + n))
        return params + n, 100.0 + jnp.arange(first, first + n)

    return *course.record_curves(train, lambda params: 10.0 * params, 0, num_steps, every), taken


def recorded_steps(num_steps: int, every: int) -> list[int]:
    return [step for step in range(num_steps) if step % every == 0 or step == num_steps - 1]


def records_include_the_last_step(course: Implementation, random: Random) -> Comparisons:
    """Records are made at the steps 0, every, 2 * every, ... and at the last step, each once."""
    for num_steps, every in SETTINGS:
        _, history, _ = record(course, num_steps, every)
        yield recorded_steps(num_steps, every), history["steps"]


def losses_are_of_their_step(course: Implementation, random: Random) -> Comparisons:
    """A record holds the loss of its own step, neither a mean nor that of a neighbour."""
    for num_steps, every in SETTINGS:
        _, history, _ = record(course, num_steps, every)
        yield [100.0 + step for step in recorded_steps(num_steps, every)], history["train_losses"]


def validation_is_after_the_step(course: Implementation, random: Random) -> Comparisons:
    """A record holds the validation perplexity of the parameters after its step."""
    for num_steps, every in SETTINGS:
        _, history, _ = record(course, num_steps, every)
        yield [10.0 * (step + 1) for step in recorded_steps(num_steps, every)], history["val_perplexities"]


def every_step_is_taken_once(course: Implementation, random: Random) -> Comparisons:
    """Every step is taken once, in order, and the final parameters are returned."""
    for num_steps, every in SETTINGS:
        params, _, taken = record(course, num_steps, every)
        yield (num_steps, list(range(num_steps))), (params, taken)


def histories_are_plain_numbers(course: Implementation, random: Random) -> Comparisons:
    """A history holds three lists of Python numbers, which can be saved as JSON."""
    _, history, _ = record(course, 3, 1)
    yield ["steps", "train_losses", "val_perplexities"], sorted(history)
    kinds = sorted({type(value).__name__ for values in history.values() for value in values})
    yield "float,int", ",".join(kinds)


def draw_figure(course: Implementation, random: Random) -> tuple[Any, Any]:
    history = {"steps": [0, 10, 14]} | {
        name: random.uniform(1, 5, 3).tolist() for name in ("train_losses", "val_perplexities")
    }
    return history, course.plot_curves(history, 3.5)


def curves_show_the_history(course: Implementation, random: Random) -> Comparisons:
    """The left axes show the losses by step, the right axes the validation perplexities by step."""
    history, figure = draw_figure(course, random)
    yield 2, len(figure.axes)
    for axes, name in zip(figure.axes, ("train_losses", "val_perplexities"), strict=True):
        line = axes.lines[0]
        yield (history["steps"], history[name]), (list(line.get_xdata()), list(line.get_ydata()))


def baseline_is_horizontal(course: Implementation, random: Random) -> Comparisons:
    """The right axes have a second line: horizontal, at the perplexity of the baseline."""
    _, figure = draw_figure(course, random)
    yield [[3.5, 3.5]], [list(line.get_ydata())[:2] for line in figure.axes[1].lines[1:]]


def axes_are_labelled(course: Implementation, random: Random) -> Comparisons:
    """The left and the right axes each have an x label, a y label and a legend."""
    _, figure = draw_figure(course, random)
    yield 2, len(figure.axes)
    for side, axes in zip(("left", "right"), figure.axes, strict=True):
        found = {"x label": axes.get_xlabel(), "y label": axes.get_ylabel(), "legend": axes.get_legend()}
        missing = [f"no {name} on the {side} axes" for name in found if not found[name]]
        yield f"all on the {side} axes", ", ".join(missing) or f"all on the {side} axes"


LAWS = make_laws(
    7,
    records_include_the_last_step,
    losses_are_of_their_step,
    validation_is_after_the_step,
    every_step_is_taken_once,
    histories_are_plain_numbers,
    curves_show_the_history,
    baseline_is_horizontal,
    axes_are_labelled,
)
