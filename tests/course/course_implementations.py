"""`jaxlm.reference` and jaxlm itself as implementations of the exercises."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import jaxlm
from jaxlm import reference
from jaxlm.course.implementations import load_solutions
from jaxlm.models.counts_bigram import add_pairs


@dataclass(frozen=True)
class FunctionLM:
    """A function of params and contexts as a language model."""

    function: Any
    vocab_size: int
    context_length: int

    def apply(self, params, contexts):
        return self.function(params, contexts)


def as_model(function, params, contexts):
    logits = jax.eval_shape(function, params, contexts)
    return FunctionLM(function, logits.shape[1], contexts.shape[1])


def require_columns(contexts, number):
    if contexts.shape[1:] != (number,):
        raise ValueError(f"contexts must have shape [B, {number}], got {list(contexts.shape)}")


# jaxlm.reference checks no arguments: the two checks of the exercises are made here.


def reference_bigram_logits(params, contexts):
    require_columns(contexts, 1)
    return reference.bigram_logits(params, contexts)


def reference_perplexity(predict, ids, context_length, batch_size):
    if len(ids) <= context_length:
        raise ValueError("no window")
    return float(reference.perplexity(predict, ids, context_length))


def reference_log_probs(table, smoothing):
    """`smooth` needs k > 0; 0 is replaced by a number so small that its logarithm is -inf in the exercise."""
    log_probs = reference.smooth(table, smoothing or 1e-30)
    return log_probs if smoothing else jnp.where(table == 0, -jnp.inf, log_probs)


def reference_train(model, draw, params, first, num_steps, lr, *, key):
    keys = jax.vmap(lambda step: jax.random.fold_in(key, step))(first + jnp.arange(num_steps))
    return reference.train(model, params, jax.vmap(draw)(keys), lr)


def reference_train_step(model, params, batch, lr):
    params, losses = reference.train(model, params, jax.tree.map(lambda leaf: leaf[None], batch), lr)
    return params, losses[0]


def reference_sample(predict, prompt, num_tokens, *, key, temperature=1.0):
    tokens = reference.sample(predict, prompt, num_tokens, key=key, temperature=temperature)
    return jnp.concatenate([prompt, tokens], axis=1).astype(jnp.int32)


def load_reference():
    return load_solutions()._replace(
        windows=lambda ids, n: reference.cut_windows(ids, jnp.arange(len(ids) - n), n),
        get_batch=lambda ids, n, batch_size, *, key: reference.cut_windows(
            ids, jax.random.randint(key, (batch_size,), 0, len(ids) - n), n
        ),
        fit=lambda table, ids: table + reference.count_pairs(ids, len(table)),
        log_probs=reference_log_probs,
        init_bigram=reference.init_bigram,
        bigram_logits=reference_bigram_logits,
        init_mlp=reference.init_mlp,
        mlp_logits=reference.mlp_logits,
        token_nats=reference.token_nats,
        perplexity=reference_perplexity,
        sample=reference_sample,
        train_step=reference_train_step,
        train=reference_train,
    )


def to_variables(params):
    """Return parameters of an exercise as Flax variables."""
    dense = {"hidden": "hidden", "output": "projection"}
    layers = {
        flax_name: {"kernel": params[name], "bias": params[f"{name}_bias"]}
        for name, flax_name in dense.items()
        if name in params
    }
    return {"params": {"embedding": {"embedding": params["embedding"]}, **layers}}


def to_params(variables):
    """Return Flax variables as parameters of an exercise."""
    layers = variables["params"]
    params = {"embedding": layers["embedding"]["embedding"]}
    for name, flax_name in (("hidden", "hidden"), ("output", "projection")):
        if flax_name in layers:
            params |= {name: layers[flax_name]["kernel"], f"{name}_bias": layers[flax_name]["bias"]}
    return params


def fit(table, ids):
    model = jaxlm.CountsBigramLM(len(table))
    if isinstance(ids, jax.core.Tracer):  # `fit` is a host function
        return add_pairs(jnp.copy(table), ids, len(ids) - 1)
    return model.fit({"counts": {"table": table}}, ids)["counts"]["table"]


def log_probs(table, smoothing):
    model = jaxlm.CountsBigramLM(len(table), smoothing)
    return model.apply({"counts": {"table": table}}, jnp.arange(len(table)))


def init_bigram(vocab_size, embedding_dim, *, key):
    return to_params(jaxlm.init(jaxlm.NeuralBigramLM(vocab_size, embedding_dim), key))


def bigram_logits(params, contexts):
    return jaxlm.NeuralBigramLM(*params["embedding"].shape).apply(to_variables(params), contexts)


def init_mlp(vocab_size, context_length, embedding_dim, hidden_dim, *, key):
    return to_params(
        jaxlm.init(jaxlm.MLPLanguageModel(vocab_size, context_length, embedding_dim, hidden_dim), key)
    )


def mlp_logits(params, contexts):
    (vocab_size, embedding_dim), (width, hidden_dim) = params["embedding"].shape, params["hidden"].shape
    model = jaxlm.MLPLanguageModel(vocab_size, width // embedding_dim, embedding_dim, hidden_dim)
    return model.apply(to_variables(params), contexts)


def perplexity(predict, ids, context_length, batch_size):
    contexts = jnp.zeros((1, context_length), jnp.int32)
    model = as_model(lambda params, contexts: predict(contexts), {}, contexts)
    return jaxlm.perplexity(model, {}, ids, batch_size=batch_size)


def sample(predict, prompt, num_tokens, *, key, temperature=1.0):
    model = as_model(lambda params, contexts: predict(contexts), {}, prompt)
    tokens = jaxlm.generate(model, {}, prompt, key=key, num_tokens=num_tokens, temperature=temperature)
    return jnp.concatenate([prompt.astype(jnp.int32), tokens], axis=1)


def train_step(model, params, batch, lr):
    model, optimizer = as_model(model, params, batch[0]), jaxlm.sgd(lr)
    state = jaxlm.init_state(model, optimizer, key=jax.random.key(0), variables=params)
    state, loss = jaxlm.train_step(model, optimizer, state, batch, key=jax.random.key(0))
    return state.variables, loss


def train(model, draw, params, first, num_steps, lr, *, key):
    optimizer = jaxlm.sgd(lr)
    model = as_model(model, params, jax.eval_shape(draw, key)[0])
    state = jaxlm.init_state(model, optimizer, key=jax.random.key(0), variables=params)

    def step(state, number):
        return jaxlm.train_step(
            model, optimizer, state, draw(jax.random.fold_in(key, number)), key=jax.random.key(0)
        )

    state, losses = jax.lax.scan(step, state, first + jnp.arange(num_steps))
    return state.variables, losses


def load_jaxlm():
    return load_solutions()._replace(
        windows=lambda ids, n: tuple(jaxlm.windows(ids, n)),
        get_batch=lambda ids, n, batch_size, *, key: tuple(jaxlm.get_batch(ids, n, batch_size, key=key)),
        fit=fit,
        log_probs=log_probs,
        init_bigram=init_bigram,
        bigram_logits=bigram_logits,
        init_mlp=init_mlp,
        mlp_logits=mlp_logits,
        token_nats=jaxlm.token_nats,
        perplexity=perplexity,
        sample=sample,
        train_step=train_step,
        train=train,
    )
