"""The mixture: a convex combination of the probabilities of several language models."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from jaxlm._types import FloatBV, IntBN, KeyLike, TargetLogProbs, Variables
from jaxlm.models.interface import (
    LanguageModel,
    center_logits,
    check_contexts,
    compute_logits,
    init,
    target_log_probs,
)
from jaxlm.models.jit import HasHyperparams, check_model, is_abstract


@final
@dataclass(frozen=True)
class MixtureLM:
    """Mix models: `P(w | context) = sum_i weights[i] P_i(w | context)`. `jaxlm.mixture_weights` fits the weights.

    Each model reads the last tokens of the context, as many as its own `context_length`. Variables: a tuple with
    those of each model.

    Args:
        models: at least one, all with the same vocabulary.
        weights: one per model, at least 0, with the sum 1.

    Source: Jelinek & Mercer (1980), "Interpolated Estimation of Markov Source Parameters from Sparse Data"; Bengio
    et al. (2003), section 4.2, for a network and a trigram.

    >>> import jaxlm, numpy as np
    >>> model = MixtureLM((jaxlm.UniformLM(4), jaxlm.UnigramLM(4)), weights=(0.5, 0.5))
    >>> variables = {}, jnp.array([5, 1, 1, 1])
    >>> print(np.exp(model.apply(variables, jnp.zeros((1, 0), jnp.int32))).round(3))
    [[0.375 0.208 0.208 0.208]]
    """

    models: tuple[LanguageModel, ...]
    weights: tuple[float, ...]
    _types: tuple[type, ...] = field(init=False, repr=False)  # because named tuples of two types can be equal

    def __post_init__(self) -> None:
        object.__setattr__(self, "_types", tuple(map(type, self.models)))
        if not self.models:
            raise ValueError("MixtureLM: models must not be empty")
        if len(self.weights) != len(self.models):
            wanted = f"one entry per model ({len(self.models)})"
            raise ValueError(f"MixtureLM: weights must have {wanted}, got {len(self.weights)}")
        if not any(map(is_abstract, self.weights)):
            total = sum(self.weights)
            if not (all(0 <= weight <= 1 for weight in self.weights) and abs(total - 1) <= 1e-6):
                got = f"{list(self.weights)} with the sum {total}"
                raise ValueError(f"MixtureLM: weights must be in [0, 1] and sum to 1, got {got}")
        for model in self.models:
            check_model(model)
            if model.vocab_size != self.vocab_size:
                raise ValueError(
                    f"MixtureLM: {type(model).__name__} has vocab_size={model.vocab_size}, "
                    f"{type(self.models[0]).__name__} {self.vocab_size}; all models must have the same vocabulary"
                )

    @property
    def vocab_size(self) -> int:
        return self.models[0].vocab_size

    @property
    def context_length(self) -> int:
        return max(model.context_length for model in self.models)

    def map_hyperparams(self, function: Callable[[Any], Any]) -> "MixtureLM":
        """See `HasHyperparams`."""
        models = (
            each.map_hyperparams(function) if isinstance(each, HasHyperparams) else each for each in self.models
        )
        return replace(self, models=tuple(models), weights=tuple(map(function, self.weights)))

    def init(self, key: KeyLike, contexts: IntBN) -> Variables:
        """Return fresh variables of each model."""
        return tuple(init(model, jax.random.fold_in(key, index)) for index, model in enumerate(self.models))

    def apply(self, variables: Variables, contexts: ArrayLike) -> FloatBV:
        """Return log-probabilities for contexts [B, N]."""
        return self._mix([_log_probs(compute_logits(*part)) for part in self._parts(variables, contexts)])

    def target_log_probs(self, variables: Variables, contexts: ArrayLike) -> TargetLogProbs:
        """See `SupportsTargetLogProbs`. Models of counts look up only the targets."""
        parts = [target_log_probs(*part) for part in self._parts(variables, contexts)]
        return lambda rows, targets: self._mix([part(rows, targets) for part in parts])

    def variables_of_each(self, variables: Variables) -> tuple[Variables, ...]:
        """Return `variables` as a tuple, after checking that there is one entry per model."""
        is_tuple = isinstance(variables, tuple | list)
        if not is_tuple or len(variables) != len(self.models):
            got = f"{len(variables)} entries" if is_tuple else f"a {type(variables).__name__}"
            wanted = f"a tuple with one entry per model ({len(self.models)})"
            raise ValueError(f"MixtureLM: variables must be {wanted}, got {got}")
        return tuple(variables)

    def _parts(self, variables: Variables, contexts: ArrayLike) -> list[tuple[LanguageModel, Variables, IntBN]]:
        """Return each model, its variables, and the contexts cut to its context length."""
        contexts = check_contexts(contexts, self.context_length)
        return [
            (model, own, contexts[:, self.context_length - model.context_length :])
            for model, own in zip(self.models, self.variables_of_each(variables), strict=True)
        ]

    @jax.named_scope("mix")
    def _mix(self, log_probs: list[Array]) -> Array:
        stacked = jnp.stack(log_probs)
        weights = jnp.array(self.weights, stacked.dtype).reshape(-1, *[1] * (stacked.ndim - 1))
        # Products flush subnormal weights to 0, so `logsumexp` must treat them as 0 too.
        weights = jnp.where(weights < np.finfo(np.float32).tiny, 0, weights)
        return jax.nn.logsumexp(stacked, axis=0, b=weights)


def _log_probs(logits: FloatBV) -> FloatBV:
    centered, log_sums = center_logits(logits)
    return centered - log_sums[:, None]
