"""Training steps against arithmetic in NumPy and a plain loop over Optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_training import (
    DROPOUT_MLP,
    IDS,
    MLP,
    SCHEDULED,
    VOCAB,
    LogitsModel,
    assert_close,
    assert_same_bits,
    plain_loop,
    train_lm,
)

import jaxlm

OPTIMIZER = jaxlm.sgd(0.5, 50, schedule="cosine", momentum=0.9)


@pytest.mark.parametrize(
    ("model", "options", "optimizer"),
    [
        (MLP, {"lr": 0.5, "weight_decay": 0.1}, optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.5))),
        pytest.param(MLP, {"optimizer": optax.adam(0.05)}, optax.adam(0.05), marks=pytest.mark.slow),
        pytest.param(MLP, {"optimizer": SCHEDULED}, SCHEDULED, marks=pytest.mark.slow),
        pytest.param(DROPOUT_MLP, {"lr": 0.3}, optax.sgd(0.3), marks=pytest.mark.slow),
        (MLP, {"num_steps": 70}, optax.sgd(0.1)),
        pytest.param(MLP, {"batch_size": 40_000}, optax.sgd(0.1), marks=pytest.mark.slow),  # 2 steps per block
    ],
    ids=["sgd", "adam", "clip_momentum_cosine", "dropout", "70_steps", "large_batch"],
)
def test_train_lm_equals_plain_loop(model, options, optimizer):
    key = jax.random.key(4)
    options = {"num_steps": 7, **options}
    expected, losses = plain_loop(model, optimizer, options["num_steps"], key, options.get("batch_size", 32))
    trained, history = jaxlm.train_lm(model, IDS, key=key, log_every=3, **options)
    np.testing.assert_allclose(history["train_losses"], np.array(losses)[history["steps"]], rtol=1e-5)
    assert_close(trained, expected)


@pytest.mark.slow
def test_train_lm_equals_plain_loop_with_rbg_keys():
    """Under `vmap`, this generator draws other numbers than in a loop."""
    key = jax.random.key(5, impl="rbg")
    expected, _ = plain_loop(MLP, optax.sgd(0.1), 7, key)
    assert_close(jaxlm.train_lm(MLP, IDS, key=key, num_steps=7)[0], expected)


def train_by_scan(state, key, optimizer=OPTIMIZER):
    def step(state, _):
        batch = jaxlm.get_batch(IDS, 2, 32, key=jax.random.fold_in(key, state.step))
        return jaxlm.train_step(MLP, optimizer, state, batch, key=key)

    return jax.lax.scan(step, state, length=7)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [OPTIMIZER, SCHEDULED], ids=["jaxlm", "optax"])
def test_train_step_under_scan_equals_train_lm(optimizer):
    key = jax.random.key(0)
    start = jaxlm.init_state(MLP, optimizer, key=key)
    state, losses = jax.jit(train_by_scan, static_argnums=2)(start, key, optimizer)
    variables, history = train_lm(optimizer=optimizer, log_every=1)
    assert int(state.step) == 7
    assert_same_bits(state.variables, variables)
    assert losses.tolist() == history["train_losses"]


@pytest.mark.slow
def test_train_step_under_vmap_equals_train_lm():
    keys = jax.random.split(jax.random.key(0), 4)
    states = jax.vmap(lambda key: jaxlm.init_state(MLP, OPTIMIZER, key=key))(keys)
    states, _ = jax.jit(jax.vmap(train_by_scan))(states, keys)
    for run, key in enumerate(keys):
        expected, _ = jaxlm.train_lm(MLP, IDS, key=key, num_steps=7, optimizer=OPTIMIZER)
        assert_close(jax.tree.map(lambda leaf, run=run: leaf[run], states.variables), expected, rtol=1e-6)


@pytest.mark.slow
def test_train_lm_accumulates_gradients_with_multi_steps():
    """Two steps of a batch end where one step on both batches does."""
    optimizer = optax.MultiSteps(optax.sgd(0.1), every_k_schedule=2)
    accumulated, _ = train_lm(optimizer=optimizer, num_steps=2)
    key = jax.random.key(0)
    batches = [jaxlm.get_batch(IDS, 2, 32, key=jax.random.fold_in(key, i)) for i in range(2)]
    state = jaxlm.init_state(MLP, optax.sgd(0.1), key=key)
    both = jaxlm.Batch(*map(jnp.concatenate, zip(*batches, strict=True)))
    step = jax.jit(jaxlm.train_step, static_argnums=(0, 1))
    assert_close(accumulated, step(MLP, optax.sgd(0.1), state, both, key=key)[0].variables)


@pytest.mark.slow
def test_train_lm_learns_a_bare_dict():
    variables = {"logits": jnp.zeros(VOCAB)}
    for lr in (1.0, 0.1, 0.01):
        variables, _ = train_lm(LogitsModel(), variables=variables, lr=lr, num_steps=1000)
    shares = np.bincount(IDS[1:], minlength=VOCAB) / (len(IDS) - 1)
    np.testing.assert_allclose(jax.nn.softmax(variables["logits"]), shares, atol=0.01)


class ScaledModel(LogitsModel):
    """Logits with a factor that is not trained."""

    def apply(self, variables, contexts):
        logits = variables["params"]["logits"] * variables["constants"]["scale"]
        return super().apply({"logits": logits}, contexts)


@pytest.mark.slow
def test_collections_other_than_params_stay_constant():
    constants = {"scale": jnp.float32(3), "count": jnp.int32(7)}
    trained, _ = train_lm(
        ScaledModel(), variables={"params": {"logits": jnp.zeros(VOCAB)}, "constants": constants}
    )
    plain, _ = train_lm(LogitsModel(), variables={"logits": jnp.zeros(VOCAB)}, lr=0.9)
    assert_same_bits(trained["constants"], constants)
    # A factor s multiplies the steps of the logits by s^2, so lr=0.1 acts like 0.9.
    np.testing.assert_allclose(trained["params"]["logits"] * 3, plain["logits"], rtol=1e-5)


def halve_where_worse(updates, state, params, *, value, grad, value_fn):
    """Halve the updates if half of them does not lower the loss: a line search of one step."""
    further = value_fn(optax.apply_updates(params, jax.tree.map(lambda leaf: leaf / 2, updates)))
    return jax.tree.map(lambda leaf: jnp.where(further < value, leaf, leaf / 2), updates), state


def pull_to_start(updates, start, params):
    return jax.tree.map(lambda update, s, p: update + 0.01 * (s - p), updates, start, params), start


LINE_SEARCH = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), halve_where_worse)
# Its state is the params themselves: one buffer, which must not be donated twice.
PULL_TO_START = optax.GradientTransformation(lambda params: params, pull_to_start)
NOISE = optax.add_noise(0.01, 0.55, key=jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [
        optax.chain(optax.sgd(0.5), LINE_SEARCH, PULL_TO_START),
        optax.polyak_sgd(1.0),
        optax.chain(NOISE, optax.sgd(0.5)),
    ],
    ids=["line_search_and_params", "polyak", "keys"],
)
def test_train_lm_accepts_optimizer(optimizer):
    _, history = train_lm(num_steps=20, optimizer=optimizer)
    assert history["train_losses"][-1] < history["train_losses"][0]
