"""The weights of a mixture of language models, from text that none of them was trained on."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxlm.evaluation.evaluate import window_nats
from jaxlm.models import LanguageModel
from jaxlm.text.batching import check_stream

_MAX_STEPS = 1000
_TOLERANCE = 1e-9  # nats per token that another step of EM gains


def mixture_weights(
    models: Sequence[LanguageModel],
    variables: Sequence[Any],
    held_out_ids: ArrayLike,
    *,
    batch_size: int = 256,
    device: str | jax.Device = "auto",
) -> tuple[float, ...]:
    """The weights under which a `MixtureLM` of the models makes the held-out text likeliest, by EM.

    The likelihood is concave in the weights, so that EM ends at its maximum: each step gives a model the mean
    share that it has in the probability of a token (Dempster, Laird & Rubin 1977; Jelinek & Mercer 1980).

    Args:
        models: of one vocabulary.
        variables: those of each.
        held_out_ids: integers [T], T > N of the model with the longest context; neither trained nor validated on.

    Raises:
        TypeError, ValueError: as `evaluate`; or every model gives some token no probability.
    """
    if not models or len(models) != len(variables):
        raise ValueError(f"{len(models)} models need as many variables, at least one, got {len(variables)}")
    longest = max(model.context_length for model in models)
    stream = np.asarray(
        check_stream(held_out_ids, models[0].vocab_size, min_length=longest + 1, name="held_out_ids")
    )
    nats = np.stack(
        [
            window_nats(model, own, stream[longest - model.context_length :], batch_size=batch_size, device=device)
            for model, own in zip(models, variables, strict=True)
        ]
    ).astype(np.float64)  # [models, windows]
    least = nats.min(axis=0)
    if not np.isfinite(least).all():
        raise ValueError(
            f"token {int(np.argmax(~np.isfinite(least))) + longest} of held_out_ids has no probability under any "
            "model; mix in one that gives every token some, as counts with smoothing do"
        )
    likelihoods = np.exp(least - nats)  # relative to the best model's
    weights, before = np.full(len(models), 1 / len(models)), -np.inf
    for _ in range(_MAX_STEPS):
        mixed = weights @ likelihoods
        now = float(np.log(mixed).mean())
        if now - before < _TOLERANCE:
            break
        before, weights = now, weights * (likelihoods / mixed).mean(axis=1)
    return tuple(float(weight) for weight in weights / weights.sum())
