"""Fit counts and train networks in one call."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jaxlm
from jaxlm.text.dataset import Dataset
from jaxlm.training.optimizers import sgd
from jaxlm.utils.timing import Timing, measure_time

Ids = np.ndarray[Any, Any]
Floats = np.ndarray[Any, np.dtype[np.float64]]


class Trained(NamedTuple):
    """A trained model, its validation perplexity (NaN without validation) and its training time."""

    model: jaxlm.LanguageModel
    variables: Any
    perplexity: float
    timing: Timing = Timing()


def fit_counts(model: jaxlm.CountsBigramLM | jaxlm.CountsNgramLM, ids: Any) -> Any:
    """Return the model's variables with the n-grams of ids [T] counted."""
    return model.fit(jaxlm.init(model, jax.random.key(0)), ids)


def evaluate_counts(model: jaxlm.CountsBigramLM | jaxlm.CountsNgramLM, data: Dataset) -> Trained:
    """Count the training text and validate; the time is not measured."""
    variables = fit_counts(model, data.train_ids)
    return Trained(model, variables, jaxlm.perplexity(model, variables, data.val_ids))


def make_count_call(model: jaxlm.CountsBigramLM, ids: Ids) -> Callable[[], Any]:
    """Return a function that adds the pairs of ids [T] to a table, which it donates to the next call."""
    kept = [jaxlm.init(model, jax.random.key(0))]

    def fit() -> Any:
        kept[0] = model.fit(kept[0], ids, donate=True)
        return kept[0]

    return fit


def momentum_sgd(lr: Any, num_steps: int, clip_norm: float | None = 1.0) -> optax.GradientTransformation:
    """Return SGD with momentum 0.9, cosine decay of the learning rate to zero, and gradient clipping."""
    return sgd(lr, num_steps, schedule="cosine", momentum=0.9, clip_norm=clip_norm)


def train(model: jaxlm.LanguageModel, train_ids: Any, num_steps: int, **options: Any) -> Trained:
    """Train with `jaxlm.train_lm`, and validate after the last step if `val_ids` is given."""
    with measure_time() as timing:
        variables, history = jaxlm.train_lm(model, train_ids, num_steps=num_steps, log_every=num_steps, **options)
    return Trained(model, variables, (history["val_perplexities"] or [float("nan")])[-1], timing)


def train_side_by_side(
    model: jaxlm.LanguageModel, train_ids: Any, num_steps: int, **options: Any
) -> tuple[list[Any], list[Any]]:
    """Train with `jaxlm.train_many` and return each run's variables and history."""
    stacked, histories = jaxlm.train_many(model, train_ids, num_steps=num_steps, log_every=num_steps, **options)
    return [jax.tree.map(lambda leaf, run=run: leaf[run], stacked) for run in range(len(histories))], histories
