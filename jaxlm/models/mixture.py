"""Several language models as one: a convex combination of their probabilities."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlm.models.interface import (
    LanguageModel,
    check_contexts,
    compute_logits,
    compute_training_logits,
    init,
    target_scorer,
)

_SUM_TOLERANCE = 1e-6
_LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class MixtureLM:
    """`p(w | context) = sum_i weights[i] * p_i(w | context)`, its variables a tuple of the models' own.

    Each model sees the last tokens of the context that it needs; `jaxlm.mixture_weights` fits the weights. Jelinek
    & Mercer (1980), "Interpolated Estimation of Markov Source Parameters from Sparse Data"; Bengio et al. (2003),
    section 4.2, mix the network with a trigram.

    Raises:
        ValueError: there is no model, the vocabularies differ, or the weights are no distribution over the models.
    """

    models: tuple[LanguageModel, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("MixtureLM: there is no model to mix")
        if len(self.weights) != len(self.models):
            raise ValueError(f"MixtureLM: {len(self.models)} models need as many weights, got {len(self.weights)}")
        if not all(0 <= weight <= 1 for weight in self.weights) or not math.isclose(
            sum(self.weights), 1, abs_tol=_SUM_TOLERANCE
        ):
            raise ValueError(
                f"MixtureLM: the weights must be at least 0 and sum to 1, got {list(self.weights)}, "
                f"which sum to {sum(self.weights)}"
            )
        for model in self.models:
            if model.vocab_size != self.models[0].vocab_size:
                raise ValueError(
                    f"MixtureLM: {type(model).__name__} has vocab_size={model.vocab_size}, "
                    f"{type(self.models[0]).__name__} {self.models[0].vocab_size}: mix models of one vocabulary"
                )

    @property
    def vocab_size(self) -> int:
        return self.models[0].vocab_size

    @property
    def context_length(self) -> int:
        return max(model.context_length for model in self.models)

    def init(self, key: Array, contexts: Array) -> Any:
        """The fresh variables of each model."""
        return tuple(init(model, jax.random.fold_in(key, index)) for index, model in enumerate(self.models))

    def apply(self, variables: Any, contexts: Array) -> Array:
        """Contexts [B, N] -> log-probabilities [B, V]."""
        return self._mix([_log_softmax(compute_logits(*part)) for part in self._parts(variables, contexts)])

    def apply_in_training(self, variables: Any, contexts: Array, key: Array) -> Array:
        """As `NoisyModel` has it: each model under the noise of a key of its own."""
        return self._mix(
            [
                _log_softmax(compute_training_logits(*part, key=jax.random.fold_in(key, index)))
                for index, part in enumerate(self._parts(variables, contexts))
            ]
        )

    def target_log_probs(self, variables: Any, contexts: Array) -> Callable[[Array, Array], Array]:
        """As `TargetScorer` has it: counts among the models look up the target alone."""
        parts = [_target_log_probs(*part) for part in self._parts(variables, contexts)]
        return lambda rows, targets: self._mix([part(rows, targets) for part in parts])

    def _parts(self, variables: Any, contexts: Array) -> list[tuple[LanguageModel, Any, Array]]:
        """Each model, its variables, and of the contexts the last tokens, which it sees."""
        contexts = check_contexts(contexts, self.context_length)
        return [
            (model, own, contexts[:, self.context_length - model.context_length :])
            for model, own in zip(self.models, self.variables_of_each(variables), strict=True)
        ]

    def variables_of_each(self, variables: Any) -> tuple[Any, ...]:
        """The models' own variables. Raises a ValueError where there are not as many."""
        if not isinstance(variables, tuple | list) or len(variables) != len(self.models):
            raise ValueError(f"MixtureLM: the variables must be a tuple of those of its {len(self.models)} models")
        return tuple(variables)

    def _mix(self, log_probs: list[Array]) -> Array:
        weights = jnp.array(self.weights, log_probs[0].dtype).reshape(-1, *[1] * log_probs[0].ndim)
        stacked = jnp.stack(log_probs)
        # Of the largest of them, and 0 where all are -inf, so that nothing is lost and nothing is NaN.
        largest = jnp.maximum(stacked.max(axis=0), _LOWEST)
        return jnp.log((weights * jnp.exp(stacked - largest[None])).sum(axis=0)) + largest


def _log_softmax(logits: Array) -> Array:
    """Log-probabilities [B, V]; a row that is -inf throughout stays so, where it would become NaN."""
    is_impossible = (logits == -jnp.inf).all(axis=1, keepdims=True)
    return jnp.where(is_impossible, -jnp.inf, jax.nn.log_softmax(jnp.where(is_impossible, 0, logits)))


def _target_log_probs(model: LanguageModel, variables: Any, contexts: Array) -> Callable[[Array, Array], Array]:
    if (scorer := target_scorer(model)) is not None:
        return scorer.target_log_probs(variables, contexts)
    log_probs = _log_softmax(compute_logits(model, variables, contexts))
    return lambda rows, targets: log_probs[rows, targets]
