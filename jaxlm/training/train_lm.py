"""Train one model and return its variables."""

from typing import Any, TypedDict

import jax
import optax
from jax import Array
from numpy.typing import ArrayLike

from jaxlm.models.interface import LanguageModel
from jaxlm.training.early_stopping import stop_early
from jaxlm.training.loop import train


class History(TypedDict):
    """The log of a training run, with one value per recorded step."""

    steps: list[int]
    train_losses: list[float]
    val_perplexities: list[float]  # empty without validation


def empty_history() -> History:
    """Return a history without records."""
    return {"steps": [], "train_losses": [], "val_perplexities": []}


def train_lm(
    model: LanguageModel,
    train_ids: ArrayLike,
    *,
    key: Array,
    variables: Any = None,
    val_ids: ArrayLike | None = None,
    batch_size: int = 32,
    num_steps: int = 1000,
    lr: float | None = None,
    weight_decay: float = 0.0,
    optimizer: optax.GradientTransformation | None = None,
    log_every: int = 100,
    patience: int | None = None,
    device: str | jax.Device = "auto",
) -> tuple[Any, History]:
    """Train a model on random windows of `train_ids` to minimize the mean nats per token.

    Host function; not for use inside `jit`: use `init_state` and `train_step` there.

    Step i trains on `get_batch(train_ids, N, batch_size, key=jax.random.fold_in(key, i))`. Dropout in step i uses
    `fold_in(fold_in(key, 2**31 - 2), i)`. Nothing else is random, so a resumed run ends in the same bits.

    Args:
        train_ids: integers [T], T > N.
        variables: initial variables, not modified; None means `init(model, jax.random.fold_in(key, 2**31 - 1))`.
            Only the collection "params" is trained if there is one, otherwise everything.
        val_ids: integers [T'], T' > N, evaluated after every recorded step.
        batch_size: windows per step.
        lr: learning rate of SGD; None means 0.1.
        weight_decay: L2 coefficient of SGD; `weight_decay * param` is added to the gradient, as in PyTorch.
        optimizer: replaces SGD with a constant rate, as in `optimizer=jaxlm.sgd(0.3, 1000, momentum=0.9)`. With
            another optax optimizer, pass the same object again to reuse the compiled program.
        log_every: record the steps 0, log_every, 2 * log_every, ... and the last one.
        patience: stop after this many records in a row without a better validation, and return the variables of
            the best one. Its perplexity is optimistic, because it was selected on `val_ids`.

    Returns:
        the trained variables, and the history, with one value per recorded step:
        `{"steps": [...], "train_losses": [...], "val_perplexities": [...]}`, the last empty without `val_ids`.

    Raises:
        FloatingPointError: a loss, or a param at a recorded step, is not finite; the message names the step.

    >>> from jaxlm import NeuralBigramLM
    >>> model, key = NeuralBigramLM(vocab_size=3, embedding_dim=4), jax.random.key(0)
    >>> variables, history = train_lm(model, [0, 1, 2] * 9, key=key, num_steps=50, lr=1.0)
    >>> history["steps"], history["train_losses"][-1] < 0.1
    ([0, 49], True)
    """
    training = train(
        model,
        train_ids,
        key=key,
        variables=variables,
        val_ids=val_ids,
        batch_size=batch_size,
        num_steps=num_steps,
        lr=lr,
        weight_decay=weight_decay,
        optimizer=optimizer,
        log_every=log_every,
        device=device,
    )
    if patience is not None and val_ids is None:
        raise ValueError(f"patience={patience} needs a validation; pass val_ids")
    history = empty_history()
    for state, record, best in stop_early(training, patience):
        result = state if best is None else state._replace(params=best.params)
        if record is not None:
            history["steps"].append(record.step)
            history["train_losses"].append(record.train_loss)
            if record.validation is not None:
                history["val_perplexities"].append(record.validation.perplexity)
    return result.variables, history
