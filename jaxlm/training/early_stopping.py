"""Early stopping: keep the parameters with the lowest validation loss, and stop when it no longer improves."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.training.state import Record, TrainState
from jaxlm.utils.checks import check_at_least


class EarlyStopping(NamedTuple):
    """The parameters with the lowest validation loss so far, as a pytree. The arrays of R runs are [R, ...]."""

    params: Any
    nats_per_token: Any  # float32 []
    records_since: Any  # int32 []


def update_best(best: EarlyStopping, params: Any, nats_per_token: float | list[float]) -> EarlyStopping:
    """Return the best after one more record of one run, or of each of R runs."""
    nats = np.asarray(nats_per_token, np.float32)
    is_better = np.asarray(nats < best.nats_per_token)

    def choose(new: Any, old: Any) -> Any:
        if is_better.ndim == 0:
            return new if is_better else old
        return jnp.where(is_better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    records_since = np.where(is_better, 0, best.records_since + 1).astype(np.int32)[()]
    nats = np.where(is_better, nats, best.nats_per_token)[()]
    return EarlyStopping(jax.tree.map(choose, params, best.params), nats, records_since)


def stop_early(
    training: Iterable[tuple[TrainState, Record | None]],
    patience: int | None,
    best: EarlyStopping | None = None,
) -> Iterator[tuple[TrainState, Record | None, EarlyStopping]]:
    """Yield each item of `training` with the best parameters so far; stop when the validation no longer improves.

    Args:
        training: from `train`, with `val_ids`; a record without validation is a ValueError.
        patience: stop after this many consecutive records without a lower validation loss, at least 1. With None,
            never stop.
        best: the best of an earlier session, when resuming; None otherwise.

    Yields:
        the state, its record, and the best: the initial parameters until a validation loss is finite.

    >>> from jaxlm import NeuralBigramLM, train
    >>> from jax import random
    >>> training = train(NeuralBigramLM(3, 4), [0, 1, 2] * 9, val_ids=[0, 0], key=random.key(0), log_every=5)
    >>> *_, (state, record, best) = stop_early(training, patience=2)
    >>> record.step, bool(best.nats_per_token < record.validation.nats_per_token)
    (10, True)
    """
    if patience is not None:
        check_at_least("patience", patience, 1)
    for state, record in training:
        if best is None:
            best = EarlyStopping(state.params, np.float32(np.inf), np.int32(0))
        if record is not None:
            if record.validation is None:
                raise ValueError(f"patience={patience} needs a validation loss; pass val_ids")
            best = update_best(best, state.params, record.validation.nats_per_token)
        yield state, record, best
        if patience is not None and best.records_since >= patience:
            return
