"""Fit the weights of a mixture of language models on held-out text."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from jaxlm._types import Device, Variables
from jaxlm.evaluation.evaluate import PURE_NATS, window_nats
from jaxlm.models.interface import LanguageModel
from jaxlm.text.batching import check_stream
from jaxlm.utils.checks import check_not_traced

_MAX_STEPS = 1000
_TOLERANCE = 1e-9  # nats per token; EM stops if a step gains less


def mixture_weights(
    models: Sequence[LanguageModel],
    variables: Sequence[Variables],
    held_out_ids: ArrayLike,
    *,
    batch_size: int = 256,
    device: Device = "auto",
) -> tuple[float, ...]:
    """Return the weights of `MixtureLM` that maximize the likelihood of a held-out text, by EM.

    Host function; not for use inside `jit`. Each EM step sets a model's weight to the mean posterior probability
    that the model produced the token. The log-likelihood is concave in the weights, so EM finds its maximum.

    Args:
        models: at least one, all with the same vocabulary.
        variables: one entry per model.
        held_out_ids: integers [T], longer than the longest context, used for neither training nor validation. Each
            predicted token needs a positive probability under some model.
        batch_size, device: as in `evaluate`.

    Source: Dempster, Laird & Rubin (1977); Jelinek & Mercer (1980).

    >>> from jaxlm import UniformLM, UnigramLM
    >>> models, variables = (UniformLM(2), UnigramLM(2)), ({}, np.array([8, 0]))  # P(0) = 0.5 and 0.9
    >>> [round(weight, 2) for weight in mixture_weights(models, variables, [0, 0, 0, 0, 1])]  # P(0) = 0.8
    [0.25, 0.75]
    """
    check_not_traced("mixture_weights", PURE_NATS, variables, held_out_ids)
    if not models or len(models) != len(variables):
        raise ValueError(
            f"models and variables must have the same length, at least 1, got {len(models)} and {len(variables)}"
        )
    longest = max(model.context_length for model in models)
    stream = check_stream(held_out_ids, models[0].vocab_size, min_length=longest + 1, name="held_out_ids")
    streams = [stream[longest - model.context_length :] for model in models]  # with the same targets
    nats = [
        window_nats(model, own, ids, batch_size=batch_size, device=device)
        for model, own, ids in zip(models, variables, streams, strict=True)
    ]
    stacked = np.stack(nats).astype(np.float64)  # [models, windows]
    lowest = stacked.min(axis=0)
    if not np.isfinite(lowest).all():
        raise ValueError(
            f"token {int(np.argmax(~np.isfinite(lowest))) + longest} of held_out_ids has no probability under any "
            "model; add a model without zeros, such as counts with smoothing"
        )
    likelihoods = np.exp(lowest - stacked)  # relative to the best model
    weights, before = np.full(len(models), 1 / len(models)), -np.inf
    for _ in range(_MAX_STEPS):
        mixed = weights @ likelihoods
        now = float(np.log(mixed).mean())
        if now - before < _TOLERANCE:
            break
        before, weights = now, weights * (likelihoods / mixed).mean(axis=1)
    return tuple(float(weight) for weight in weights / weights.sum())
