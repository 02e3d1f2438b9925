"""The MLP in NumPy, as its users write it: a baseline of `experiments.speed.jit.compare`.

`params` are the five arrays of `jaxlm.MLPLanguageModel`: embedding [V, D], hidden kernel [N * D, H] and bias [H],
projection kernel [H, V] and bias [V].
"""

from typing import Any

import numpy as np

Floats = np.ndarray[Any, Any]
Ids = np.ndarray[Any, Any]


def numpy_forward(params: tuple[Floats, ...], contexts: Ids) -> tuple[Floats, Floats, Floats]:
    """Return the outputs of the layers: concatenated embeddings [B, N * D], hidden [B, H], logits [B, V]."""
    embedding, hidden_kernel, hidden_bias, kernel, bias = params
    concatenated = embedding[contexts].reshape(len(contexts), -1)
    hidden = np.tanh(concatenated @ hidden_kernel + hidden_bias)
    return concatenated, hidden, hidden @ kernel + bias


def numpy_nats(logits: Floats, targets: Ids) -> Floats:
    """Return `-log softmax(logits)[target]` for each row, [B]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(targets)), targets]


def numpy_train(params: tuple[Floats, ...], contexts: Ids, targets: Ids, lr: float) -> Any:
    """Do one step of SGD in place, with hand-written gradients. Return the mean nats before the step."""
    embedding, hidden_kernel, _, kernel, _ = params
    concatenated, hidden, logits = numpy_forward(params, contexts)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    rows = np.arange(len(targets))
    mean = -np.log(probabilities[rows, targets]).mean()
    d_logits = probabilities
    d_logits[rows, targets] -= 1
    d_logits /= len(targets)
    d_hidden = d_logits @ kernel.T * (1 - hidden**2)
    d_concatenated = d_hidden @ hidden_kernel.T
    d_embedding = np.zeros_like(embedding)
    np.add.at(d_embedding, contexts, d_concatenated.reshape(*contexts.shape, -1))
    d_hidden_kernel, d_kernel = concatenated.T @ d_hidden, hidden.T @ d_logits
    gradients = d_embedding, d_hidden_kernel, d_hidden.sum(axis=0), d_kernel, d_logits.sum(axis=0)
    for param, gradient in zip(params, gradients, strict=True):
        param -= lr * gradient
    return mean
