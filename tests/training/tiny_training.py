"""Tiny models, short training runs, and comparisons for the tests of this folder."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxlm

VOCAB = 6
IDS = np.random.default_rng(0).integers(0, VOCAB, 200) // 2 * 2  # even tokens only, so there is something to learn
MLP = jaxlm.MLPLanguageModel(VOCAB, context_length=2, embedding_dim=3, hidden_dim=4)
BIGRAM = jaxlm.NeuralBigramLM(VOCAB, embedding_dim=VOCAB)
# One object for all files, so that its programs are compiled once.
SCHEDULED = optax.chain(
    optax.clip_by_global_norm(0.3), optax.sgd(optax.cosine_decay_schedule(0.5, 50), momentum=0.9)
)
DROPOUT_MLP = jaxlm.MLPLanguageModel(VOCAB, 2, 3, 40, dropout=0.5)


@dataclass(frozen=True)
class LogitsModel:
    """A user's own model without Flax: the variables are the logits [V] of every context."""

    vocab_size: int = VOCAB
    context_length: int = 1

    def apply(self, variables, contexts):
        return jnp.broadcast_to(variables["logits"][None, :], (len(contexts), self.vocab_size))


def train_lm(model=MLP, ids=IDS, key=0, **options):
    return jaxlm.train_lm(model, ids, key=jax.random.key(key), **({"num_steps": 7, "log_every": 3} | options))


def train(model=MLP, ids=IDS, key=0, **options):
    return jaxlm.train(model, ids, key=jax.random.key(key), **({"num_steps": 7, "log_every": 3} | options))


@functools.partial(jax.jit, static_argnames=("model", "optimizer"))
def plain_step(model, optimizer, params, opt_state, contexts, targets, dropout_key):
    def mean_nats(params):
        rngs = {"dropout": dropout_key}
        options = {"deterministic": False, "rngs": rngs} if getattr(model, "dropout", 0) else {}
        logits = model.apply({"params": params}, contexts, **options)
        return -jax.nn.log_softmax(logits)[np.arange(len(targets)), targets].mean()

    loss, gradients = jax.value_and_grad(mean_nats)(params)
    updates, opt_state = optimizer.update(gradients, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss


def plain_loop(model, optimizer, num_steps, key, batch_size=32):
    """Return the variables after `num_steps` of a plain loop, and the losses of all steps."""
    params = jaxlm.init(model, jax.random.fold_in(key, 2**31 - 1))["params"]
    opt_state = optimizer.init(params)
    losses = []
    for step in range(num_steps):
        batch = jaxlm.get_batch(IDS, model.context_length, batch_size, key=jax.random.fold_in(key, step))
        dropout_key = jax.random.fold_in(jax.random.fold_in(key, 2**31 - 2), step)
        params, opt_state, loss = plain_step(model, optimizer, params, opt_state, *batch, dropout_key)
        losses.append(float(loss))
    return {"params": params}, losses


def leaves(variables):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(variables)]


def assert_same_bits(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(leaves(left), leaves(right), strict=True):
        np.testing.assert_array_equal(one, other)


def assert_close(left, right, rtol=1e-4, atol=1e-6):
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=rtol, atol=atol), left, right)
