"""Training: the course's five behaviours, each step against arithmetic written out here, and known optima."""

import functools
import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlm
from jaxlm.training import loop as training

VOCAB = 6
IDS = np.random.default_rng(0).integers(0, VOCAB, 200) // 2 * 2  # only even tokens: there is something to learn
SMALL_MLP = jaxlm.MLPLanguageModel(VOCAB, context_length=2, embedding_dim=3, hidden_dim=4)
SMALL_BIGRAM = jaxlm.NeuralBigramLM(VOCAB, embedding_dim=VOCAB)


@dataclass(frozen=True)
class Unigram:
    """A reader's own model, no Flax module: one logit a token; its variables are a bare dict."""

    vocab_size: int
    context_length: int = 1

    def apply(self, variables, contexts):
        return jnp.broadcast_to(variables["logits"][None, :], (len(contexts), self.vocab_size))


@dataclass(frozen=True)
class ScaledUnigram(Unigram):
    """The same beside a collection that is not trained."""

    def apply(self, variables, contexts):
        scaled = {"logits": variables["params"]["logits"] * variables["constants"]["scale"]}
        return super().apply(scaled, contexts)


def train(model=SMALL_MLP, ids=IDS, key=0, **options):
    return jaxlm.train_lm(model, ids, key=jax.random.key(key), **({"num_steps": 7, "log_every": 3} | options))


def train_well(model, ids, variables=None):
    """The variables after SGD at a high rate and then at low ones, which settles the noise of the batches."""
    for key, lr in enumerate([1.0, 0.1, 0.01]):
        variables, _ = train(model, ids, key, variables=variables, lr=lr, num_steps=3000, log_every=3000)
    return variables


def leaves(variables):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(variables)]


def assert_same_bits(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(leaves(left), leaves(right), strict=True):
        np.testing.assert_array_equal(one, other)


def mean_nats(params, model, contexts, targets):
    log_probabilities = jax.nn.log_softmax(model.apply({"params": params}, contexts))
    return -log_probabilities[np.arange(len(targets)), targets].mean()


@functools.partial(jax.jit, static_argnames=("model", "optimizer"))
def plain_step(model, optimizer, params, opt_state, contexts, targets):
    loss, gradients = jax.value_and_grad(mean_nats)(params, model, contexts, targets)
    updates, opt_state = optimizer.update(gradients, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss


def replay(model, optimizer, num_steps, *, key):
    """A plain Python loop of optax: the variables after `num_steps`, and the losses up to one not finite."""
    params = jaxlm.init(model, jax.random.fold_in(key, 2**31 - 1))["params"]
    opt_state = optimizer.init(params)
    losses = []
    for step in range(num_steps):
        contexts, targets = jaxlm.get_batch(IDS, model.context_length, 32, key=jax.random.fold_in(key, step))
        params, opt_state, loss = plain_step(model, optimizer, params, opt_state, contexts, targets)
        losses.append(float(loss))
        if not np.isfinite(loss):
            break
    return {"params": params}, losses


@pytest.mark.course
def test_the_loss_falls():
    _, history = train(num_steps=100, log_every=99, lr=0.5)
    first, last = history["train_losses"]
    assert first == pytest.approx(np.log(VOCAB), rel=0.02)
    assert last < 0.75 * first  # half of the tokens never occur: ln 3 / ln 6 = 0.61 is the least


@pytest.mark.course
@pytest.mark.parametrize(
    ("num_steps", "log_every", "steps"),
    [
        (7, 3, [0, 3, 6]),
        (8, 3, [0, 3, 6, 7]),
        (3, 1, [0, 1, 2]),
        (5, 100, [0, 4]),
        (1, 100, [0]),
        (0, 100, []),
    ],
)
def test_history_has_three_lists_and_every_recorded_step_once(num_steps, log_every, steps):
    _, history = train(num_steps=num_steps, log_every=log_every)
    assert list(history) == ["steps", "train_losses", "val_perplexities"]
    assert history["steps"] == steps
    assert len(history["train_losses"]) == len(steps)
    assert all(type(value) is float for value in history["train_losses"])


def test_without_val_ids_there_are_no_val_perplexities():
    assert train()[1]["val_perplexities"] == []


@pytest.mark.course
def test_with_val_ids_there_is_one_val_perplexity_a_record():
    val_ids = IDS[:50]
    _, history = train(val_ids=val_ids)
    after = [train(num_steps=step + 1)[0]["params"] for step in (0, 3, 6)]
    contexts = np.stack([val_ids[:-2], val_ids[1:-1]], axis=1)
    expected = [float(np.exp(mean_nats(params, SMALL_MLP, contexts, val_ids[2:]))) for params in after]
    assert history["val_perplexities"] == pytest.approx(expected, rel=1e-5)


def test_weight_decay_shrinks_the_weights():
    def norm(weight_decay):
        variables, _ = train(num_steps=100, weight_decay=weight_decay)
        return sum((leaf**2).sum() for leaf in leaves(variables)) ** 0.5

    assert norm(0.5) < 0.5 * norm(0.0)


@pytest.mark.course
def test_a_counts_model_is_a_type_error_that_says_fit():
    model = jaxlm.CountsBigramLM(VOCAB)
    with pytest.raises(TypeError, match=r"CountsBigramLM holds int32.*call model\.fit\(variables, ids\)"):
        train(model)


@pytest.mark.course
@pytest.mark.parametrize("start", [None, jaxlm.init(SMALL_MLP, jax.random.key(5))], ids=["fresh", "given"])
def test_the_same_key_gives_the_same_bits_and_another_key_others(start):
    first, again, other = (train(key=key, variables=start) for key in (1, 1, 2))
    assert_same_bits(first[0], again[0])
    assert first[1] == again[1]
    assert any((one != two).any() for one, two in zip(leaves(first[0]), leaves(other[0]), strict=True))


@pytest.mark.parametrize("leaf_of", [jnp.array, np.array])
def test_the_callers_variables_stay_untouched(leaf_of):
    start = jax.tree.map(leaf_of, jaxlm.init(SMALL_MLP, jax.random.key(5)))
    before = jax.tree.map(np.array, start)
    trained, _ = train(variables=start)
    assert_same_bits(start, before)
    assert all((one != two).any() for one, two in zip(leaves(trained), leaves(start), strict=True))


# One step, and then every step.


def test_one_sgd_step_with_weight_decay_is_torchs():
    """`g += weight_decay * p; p -= lr * g`, with the gradient of softmax cross-entropy written out."""
    key, batch_size, lr, weight_decay = jax.random.key(3), 5, 0.5, 0.2
    start = jax.tree.map(
        lambda leaf: np.random.default_rng(leaf.size).normal(size=leaf.shape).astype(np.float32),
        jaxlm.init(SMALL_BIGRAM, key),
    )
    embedding = start["params"]["embedding"]["embedding"]
    kernel, bias = start["params"]["projection"]["kernel"], start["params"]["projection"]["bias"]
    contexts, targets = jaxlm.get_batch(IDS, 1, batch_size, key=jax.random.fold_in(key, 0))
    contexts, targets = np.asarray(contexts)[:, 0], np.asarray(targets)

    embedded = embedding[contexts].astype(np.float64)  # [B, D]
    weights = np.exp(embedded @ kernel + bias)
    probabilities = weights / weights.sum(axis=1, keepdims=True)  # [B, V]
    loss = -np.log(probabilities[np.arange(batch_size), targets]).mean()
    logit_gradient = (probabilities - np.eye(VOCAB)[targets]) / batch_size
    embedding_gradient = np.zeros_like(embedding)
    np.add.at(embedding_gradient, contexts, logit_gradient @ kernel.T)
    gradients = [embedding_gradient, logit_gradient.sum(axis=0), embedded.T @ logit_gradient]

    options = {"batch_size": batch_size, "lr": lr, "weight_decay": weight_decay}
    trained, history = train(SMALL_BIGRAM, variables=start, key=3, num_steps=1, **options)
    assert history["train_losses"] == [pytest.approx(loss, rel=1e-6)]
    assert jax.tree.structure(trained) == jax.tree.structure(start)
    for got, param, gradient in zip(leaves(trained), [embedding, bias, kernel], gradients, strict=True):
        expected = param - lr * (gradient + weight_decay * param)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


SCHEDULED = optax.chain(
    optax.clip_by_global_norm(0.3), optax.sgd(optax.cosine_decay_schedule(0.5, 7), momentum=0.9)
)


@pytest.mark.parametrize(
    ("options", "optimizer"),
    [
        ({"lr": 0.5, "weight_decay": 0.1}, optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.5))),
        pytest.param({"optimizer": optax.adam(0.05)}, optax.adam(0.05), marks=pytest.mark.slow),
        ({"optimizer": SCHEDULED}, SCHEDULED),
    ],
    ids=["sgd", "adam", "clip_momentum_cosine"],
)
def test_step_i_trains_on_the_batch_of_fold_in_i_and_nothing_else(options, optimizer):
    expected, losses = replay(SMALL_MLP, optimizer, 7, key=jax.random.key(4))
    trained, history = train(key=4, **options)
    np.testing.assert_allclose(history["train_losses"], np.array(losses)[[0, 3, 6]], rtol=1e-5)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6), trained, expected)


@pytest.mark.parametrize("optimizer", [None, SCHEDULED], ids=["sgd", "clip_momentum_cosine"])
def test_how_steps_are_grouped_changes_no_bit(optimizer):
    """Seventy steps are more than the windows of two draws."""
    one, three, all_at_once = (train(optimizer=optimizer, log_every=every, num_steps=70) for every in (1, 3, 100))
    assert_same_bits(one[0], three[0])
    assert_same_bits(one[0], all_at_once[0])
    assert three[1]["train_losses"] == one[1]["train_losses"][::3]


@pytest.mark.slow
@pytest.mark.parametrize("num_ids", [1, 1000])
def test_how_many_windows_are_drawn_at_once_changes_no_bit(monkeypatch, num_ids):
    expected, _ = train(num_steps=70)
    with monkeypatch.context() as patched:
        patched.setattr(training, "_IDS_PER_DRAW", num_ids)
        training.train_until.clear_cache()  # the constant is part of the compiled program
        regrouped, _ = train(num_steps=70)
    training.train_until.clear_cache()
    assert_same_bits(regrouped, expected)


def test_keys_of_another_generator_give_step_i_its_batch_too():
    key = jax.random.key(5, impl="rbg")
    expected, losses = replay(SMALL_MLP, optax.sgd(0.1), 7, key=key)
    trained, history = jaxlm.train_lm(SMALL_MLP, IDS, key=key, num_steps=7, log_every=3)
    np.testing.assert_allclose(history["train_losses"], np.array(losses)[[0, 3, 6]], rtol=1e-5)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6), trained, expected)


def test_without_variables_the_start_is_init_with_the_last_fold():
    expected = jaxlm.init(SMALL_MLP, jax.random.fold_in(jax.random.key(9), 2**31 - 1))
    untrained, history = train(key=9, num_steps=0)
    assert_same_bits(untrained, expected)
    assert history == {"steps": [], "train_losses": [], "val_perplexities": []}


def test_the_ids_may_be_of_any_integer_type_or_a_jax_array():
    expected, _ = train()
    for ids in (IDS.tolist(), IDS.astype(np.uint8), jnp.asarray(IDS)):
        assert_same_bits(train(ids=ids)[0], expected)


def test_on_record_gets_what_history_gets():
    records = []
    _, history = train(val_ids=IDS[:50], on_record=records.append)
    assert [record.step for record in records] == history["steps"] == [0, 3, 6]
    assert [record.train_loss for record in records] == history["train_losses"]
    assert [record.validation.perplexity for record in records] == history["val_perplexities"]
    assert {record.validation.num_tokens for record in records} == {48}
    train(on_record=records.append)
    assert records[-1].validation is None


# Pauses, and going on.


def copied(state):
    """A host copy that the next step cannot take over."""
    return jax.tree.map(lambda leaf: np.array(jax.device_get(leaf)), state)


@pytest.mark.parametrize(
    "optimizer", [None, optax.sgd(optax.cosine_decay_schedule(0.5, 50), momentum=0.9)], ids=["sgd", "momentum"]
)
def test_a_run_that_goes_on_from_any_pause_ends_in_the_same_bits(optimizer):
    options = {"num_steps": 50, "log_every": 20, "val_ids": IDS[:50], "optimizer": optimizer}
    states = []
    variables, history = train(on_pause=lambda state: states.append(copied(state)), pause_every=7, **options)
    assert_same_bits(train(**options)[0], variables)
    assert {1, 7, 14, 21, 28, 35, 41, 42, 49, 50} <= {int(state.step) for state in states}
    for state in states:
        went_on, rest = train(state=state, **options)
        assert_same_bits(went_on, variables)
        left = [number for number, step in enumerate(history["steps"]) if step >= state.step]
        assert rest == {name: [values[number] for number in left] for name, values in history.items()}


def test_a_pause_comes_after_the_record_of_its_step():
    events = []
    train(
        num_steps=10,
        log_every=4,
        on_record=lambda record: events.append(("record", record.step)),
        on_pause=lambda state: events.append(("pause", int(state.step) - 1)),
        pause_every=10,
    )
    for step in (0, 4, 8, 9):
        assert events.index(("pause", step)) == events.index(("record", step)) + 1
    assert len(set(events)) == len(events)


def test_pauses_come_by_the_clock(monkeypatch):
    """Calls are of twice as many steps while they take under 0.2 s, and of half as many when over 0.5 s."""

    def stops(num_steps, pause_every=None):
        now = 0.0
        monkeypatch.setattr("jaxlm.training.time.monotonic", lambda: now)
        previous, seen = 0, []
        for stop in training._chunk_ends(0, num_steps, num_steps, pause_every, by_clock=True):
            now += (stop - previous) * (0.01 if stop <= 100 else 0.05)
            previous = stop
            seen.append(stop)
        return seen

    # Step 0 is recorded; then 1, 2, 4, 8, 16, 32 steps (0.32 s: enough), then halved at 0.05 s a step.
    assert stops(161) == [1, 3, 7, 15, 31, 63, 95, 127, 143, 151, 159, 161]
    assert stops(40, pause_every=5) == [1, 3, 5, 9, 10, 15, 20, 25, 30, 35, 40]


def test_without_a_pause_to_make_calls_end_at_records_alone():
    assert list(training._chunk_ends(0, 100, 30, None, by_clock=False)) == [1, 31, 61, 91, 100]
    assert list(training._chunk_ends(31, 100, 30, None, by_clock=False)) == [61, 91, 100]


def test_what_a_pause_raises_ends_the_run():
    def stop(state):
        raise KeyboardInterrupt

    records = []
    with pytest.raises(KeyboardInterrupt):
        train(on_record=records.append, on_pause=stop)
    assert [record.step for record in records] == [0]


def test_a_state_at_the_end_leaves_nothing_to_do():
    states = []
    variables, _ = train(on_pause=lambda state: states.append(copied(state)))
    again, history = train(state=states[-1])
    assert_same_bits(again, variables)
    assert history == {"steps": [], "train_losses": [], "val_perplexities": []}


def test_pausing_compiles_nothing_more():
    train(num_steps=300, log_every=100)
    compiled = training.train_until._cache_size()
    train(num_steps=300, log_every=100, on_pause=lambda state: None, pause_every=13)
    assert training.train_until._cache_size() == compiled


def test_a_state_of_another_run_is_an_error():
    states = []
    train(on_pause=lambda state: states.append(copied(state)))
    with pytest.raises(ValueError, match=r"hidden.* is float32\[4\], here it is float32\[5\]"):
        train(model=jaxlm.MLPLanguageModel(VOCAB, 2, 3, 5), state=states[0])
    with pytest.raises(ValueError, match="another model or optimizer"):
        train(optimizer=optax.adam(0.1), state=states[0])
    with pytest.raises(ValueError, match="state is of step 7; num_steps=6 ends before it"):
        train(state=states[-1], num_steps=6)
    with pytest.raises(ValueError, match="pause_every must be at least 1, got 0"):
        train(pause_every=0)


def test_the_initial_state_is_what_a_run_starts_from():
    optimizer = optax.sgd(0.5, momentum=0.9)
    fresh = training.init_state(SMALL_MLP, optimizer, jax.random.key(0))
    assert_same_bits(train(state=fresh, optimizer=optimizer)[0], train(optimizer=optimizer)[0])


# Dropout.


THIN_MLP = jaxlm.MLPLanguageModel(VOCAB, 2, 3, 40, dropout=0.5)


def test_step_i_has_the_noise_of_two_folds():
    """The loss of each step, as arithmetic on the params before it: windows and noise are known by themselves."""
    key, lr, num_steps = jax.random.key(0), 0.3, 3
    variables = jaxlm.init(THIN_MLP, jax.random.fold_in(key, 2**31 - 1))
    losses = []
    for step in range(num_steps):
        contexts, targets = jaxlm.get_batch(IDS, 2, 32, key=jax.random.fold_in(key, step))
        noise_key = jax.random.fold_in(jax.random.fold_in(key, 2**31 - 2), step)

        def loss_of(params, contexts=contexts, targets=targets, noise_key=noise_key):
            logits = THIN_MLP.apply({"params": params}, contexts, dropout_key=noise_key)
            return -jax.nn.log_softmax(logits)[np.arange(32), targets].mean()

        loss, gradients = jax.value_and_grad(loss_of)(variables["params"])
        losses.append(float(loss))
        variables = {"params": jax.tree.map(lambda p, g: p - lr * g, variables["params"], gradients)}
    trained, history = train(THIN_MLP, lr=lr, num_steps=num_steps, log_every=1)
    np.testing.assert_allclose(history["train_losses"], losses, rtol=1e-5)
    for found, wanted in zip(leaves(trained), leaves(variables), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_a_run_with_dropout_goes_on_to_the_same_bits():
    states = []
    variables, _ = train(THIN_MLP, on_pause=lambda state: states.append(copied(state)), pause_every=2)
    for state in states:
        assert_same_bits(train(THIN_MLP, state=state)[0], variables)


# Early stopping.


# Only even tokens train, so that in time every odd one here costs more.
OVERFITTING = {"val_ids": np.arange(60) % VOCAB, "lr": 1.0, "num_steps": 200, "log_every": 5}


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_ends_the_training_and_returns_the_best(patience):
    _, whole = train(**OVERFITTING)
    nats = np.float32(np.log(whole["val_perplexities"]))
    best = next(
        i
        for i in range(len(nats))
        if nats[i] < nats[:i].min(initial=np.inf) and nats[i] <= nats[i : i + patience + 1].min()
    )
    variables, history = train(patience=patience, **OVERFITTING)
    assert history == {name: values[: best + patience + 1] for name, values in whole.items()}
    assert len(history["steps"]) < len(whole["steps"])
    until_best, _ = train(**(OVERFITTING | {"num_steps": whole["steps"][best] + 1}))
    assert_same_bits(variables, until_best)


def test_patience_that_does_not_end_returns_the_best_too():
    _, whole = train(**OVERFITTING)
    best = int(np.argmin(whole["val_perplexities"]))
    variables, history = train(patience=100, **OVERFITTING)
    assert history == whole
    until_best, _ = train(**(OVERFITTING | {"num_steps": whole["steps"][best] + 1}))
    assert_same_bits(variables, until_best)


def test_a_run_with_patience_goes_on_to_the_same_bits():
    states, options = [], {"patience": 2, **OVERFITTING}
    variables, history = train(on_pause=lambda state: states.append(copied(state)), pause_every=3, **options)
    assert int(states[-1].best.records_since) == 2
    for state in states:
        went_on, rest = train(state=state, **options)
        assert_same_bits(went_on, variables)
        assert rest["steps"] == [step for step in history["steps"] if step >= state.step]


def test_patience_needs_a_validation():
    with pytest.raises(ValueError, match="patience=2 waits for a better validation; pass val_ids"):
        train(patience=2)
    with pytest.raises(ValueError, match="patience must be at least 1, got 0"):
        train(patience=0, val_ids=IDS)
    states = []
    train(on_pause=lambda state: states.append(copied(state)))
    with pytest.raises(ValueError, match="another model or optimizer"):
        train(patience=1, val_ids=IDS, state=states[0])


# Divergence.


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_not_finite_is_an_error_that_names_the_first_such_step(log_every):
    lr = 3e4
    _, losses = replay(SMALL_BIGRAM, optax.sgd(lr), 50, key=jax.random.key(0))
    bad_step = len(losses) - 1
    assert 2 < bad_step < 49
    assert not np.isfinite(losses[-1])
    records = []
    with pytest.raises(FloatingPointError, match=f"at step {bad_step}; lower lr={lr}"):
        train(SMALL_BIGRAM, lr=lr, num_steps=50, log_every=log_every, on_record=records.append)
    assert [record.step for record in records] == list(range(0, bad_step, log_every))


# A reader's own model.


def test_a_model_that_is_no_flax_module_learns_from_a_bare_dict():
    start = {"logits": jnp.zeros(VOCAB)}
    trained = train_well(Unigram(VOCAB), IDS, variables=start)
    assert list(trained) == ["logits"]
    share = np.bincount(IDS[1:], minlength=VOCAB) / (len(IDS) - 1)
    np.testing.assert_allclose(jax.nn.softmax(trained["logits"]), share, atol=0.01)


def test_collections_beside_params_are_used_and_stay_constant():
    start = {"params": {"logits": jnp.zeros(VOCAB)}, "constants": {"scale": jnp.float32(3), "count": jnp.int32(7)}}
    trained, _ = train(ScaledUnigram(VOCAB), variables=start)
    plain, _ = train(Unigram(VOCAB), variables={"logits": jnp.zeros(VOCAB)}, lr=0.9)
    assert_same_bits(trained["constants"], start["constants"])
    # A scale s outside the parameter makes the logits move s^2 times as far: lr 0.1 acts like 0.9.
    np.testing.assert_allclose(trained["params"]["logits"] * 3, plain["logits"], rtol=1e-5)


def test_a_model_without_init_must_be_given_variables():
    with pytest.raises(TypeError, match=r"Unigram has no init.*pass them"):
        train(Unigram(VOCAB))


# Known optima.


def markov_chain(length):
    """A chain in which every token follows every other, some seldom: no zero for a softmax to chase."""
    rng = np.random.default_rng(7)
    rows = rng.dirichlet(np.full(VOCAB, 0.7), VOCAB) * 0.9 + 0.1 / VOCAB
    return np.array(list(itertools.accumulate(range(length), lambda token, _: rng.choice(VOCAB, p=rows[token]))))


def counted_bigram_nats(ids):
    """The least mean nats per token that any bigram reaches on `ids`: its maximum likelihood."""
    counts = np.zeros((VOCAB, VOCAB))
    for pair in itertools.pairwise(ids):
        counts[pair] += 1
    before, after = ids[:-1], ids[1:]
    return -np.log(counts[before, after] / counts.sum(axis=1)[before]).mean()


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(SMALL_BIGRAM, id="neural_bigram"),
        pytest.param(
            jaxlm.MLPLanguageModel(VOCAB, context_length=1, embedding_dim=VOCAB, hidden_dim=16),
            id="mlp_of_one_token",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_trained_bigram_ends_close_above_the_counted_optimum_and_never_below(model):
    ids = markov_chain(200)
    optimum = counted_bigram_nats(ids)
    reached = jaxlm.evaluate(model, train_well(model, ids), ids).nats_per_token
    assert optimum - 1e-6 <= reached < 1.03 * optimum


def test_two_tokens_of_context_learn_what_a_bigram_cannot():
    ids = np.tile([0, 0, 1, 1], 50)  # after one token either may come; after two, only one
    assert counted_bigram_nats(ids) == pytest.approx(np.log(2), rel=1e-3)
    mlp_nats, bigram_nats = (
        jaxlm.evaluate(model, train_well(model, ids), ids).nats_per_token for model in (SMALL_MLP, SMALL_BIGRAM)
    )
    assert mlp_nats < 0.01
    assert bigram_nats > 0.999 * np.log(2)


# Compilation, transfers and memory.


def test_nothing_goes_to_the_device_unasked_while_training():
    """From the first record to the last: a copy that nobody asked for would be an error."""
    guards = []

    def guard(record):
        if not guards:
            guards.append(jax.transfer_guard("disallow"))
            guards[0].__enter__()

    try:
        _, history = train(val_ids=IDS, on_record=guard)
        with pytest.raises(Exception, match="Disallowed host-to-device"):
            jnp.ones(3) + np.ones(3)
    finally:
        guards[0].__exit__(None, None, None)
    assert history["steps"] == [0, 3, 6]


def test_memory_does_not_grow_with_the_text_or_the_steps():
    def temporary_bytes(text_length):
        params = jaxlm.init(SMALL_MLP, jax.random.key(0))["params"]
        state = training.TrainState(jnp.int32(0), params, optax.sgd(0.1).init(params))
        ids = jnp.zeros(text_length, jnp.int32)
        lowered = training.train_until.lower(
            SMALL_MLP, optax.sgd(0.1), 32, state, {}, ids, jax.random.key(0), 998, 10**9, 0.1, 0.0
        )
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert 0 < temporary_bytes(1000) == temporary_bytes(1_000_000) < 2**20


def test_a_second_call_another_lr_and_another_length_compile_nothing():
    train(val_ids=IDS)
    compiled = training.train_until._cache_size()
    train(val_ids=IDS, key=1, lr=0.3, weight_decay=0.2, num_steps=11, log_every=5)
    equal_model = jaxlm.MLPLanguageModel(VOCAB, context_length=2, embedding_dim=3, hidden_dim=4)
    train(equal_model)
    train(ids=IDS[:195])
    assert training.train_until._cache_size() == compiled


def test_a_second_call_with_the_same_optimizer_compiles_nothing():
    train(optimizer=SCHEDULED)
    compiled = training.train_until._cache_size()
    train(optimizer=SCHEDULED, key=1, num_steps=9)
    assert training.train_until._cache_size() == compiled


# Errors.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_steps": -1}, "num_steps must be at least 0, got -1"),
        ({"log_every": 0}, "log_every must be at least 1, got 0"),
        ({"lr": -0.1}, "lr must be finite and at least 0, got -0.1"),
        ({"lr": float("nan")}, "lr must be finite and at least 0, got nan"),
        ({"weight_decay": float("inf")}, "weight_decay must be finite and at least 0, got inf"),
        ({"optimizer": SCHEDULED, "lr": 0.3}, r"lr=0.3 and weight_decay=0.0 are for the default SGD.*optimizer="),
        ({"optimizer": SCHEDULED, "weight_decay": 0.3}, r"weight_decay=0.3 are for the default SGD"),
        ({"ids": [0, 1]}, "train_ids: 2 tokens are too few, one context and its target need 3"),
        ({"ids": [0, 1, 6, 2]}, r"train_ids: 6 is outside 0\.\.5"),
        ({"ids": [0, -1, 5, 2]}, r"train_ids: -1 is outside 0\.\.5"),
        ({"ids": np.zeros((4, 4), int)}, r"train_ids must be one stream of shape \[T\], got shape \[4, 4\]"),
        ({"val_ids": [0, 1]}, "val_ids: 2 tokens are too few, one context and its target need 3"),
        ({"val_ids": [0, 1, 9]}, r"val_ids: 9 is outside 0\.\.5"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
    ],
)
def test_an_argument_out_of_range_is_a_value_error_that_names_value_and_limit(options, message):
    with pytest.raises(ValueError, match=message):
        train(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ids": [0.0, 1.0, 2.0]}, "train_ids must be integers, got float"),
        ({"val_ids": [0.0, 1.0, 2.0]}, "val_ids must be integers, got float"),
        ({"lr": optax.constant_schedule(0.1)}, r"lr must be a number.*optimizer=optax\.sgd\(schedule\)"),
        ({"variables": {"params": {}}}, "MLPLanguageModel holds nothing"),
        ({"variables": {"params": {"kernel": np.zeros(3, int)}}}, "holds int.*params must be floats"),
    ],
)
def test_a_wrong_type_is_a_type_error_that_says_what_to_pass(options, message):
    with pytest.raises(TypeError, match=message):
        train(**options)


def test_an_optimizer_may_hold_the_params_themselves():
    """One buffer, held by the params and by the optimizer's state, cannot be donated twice."""
    towards_start = optax.GradientTransformation(
        init=lambda params: params,
        update=lambda updates, start, params: (
            jax.tree.map(lambda update, s, p: update + 0.01 * (s - p), updates, start, params),
            start,
        ),
    )
    optimizer = optax.chain(optax.sgd(0.1), towards_start)
    _, history = train(num_steps=20, optimizer=optimizer)
    assert history["train_losses"][-1] < history["train_losses"][0]


def test_an_optimizer_may_ask_for_the_loss():
    """Polyak's step needs the loss; a line search needs the loss elsewhere: here, half a step further."""

    def halve_where_worse(updates, state, params, *, value, grad, value_fn):
        further = value_fn(optax.apply_updates(params, jax.tree.map(lambda leaf: leaf / 2, updates)))
        return jax.tree.map(lambda leaf: jnp.where(further < value, leaf, leaf / 2), updates), state

    line_search = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), halve_where_worse)
    for optimizer in (optax.polyak_sgd(1.0), optax.chain(optax.sgd(0.5), line_search)):
        _, history = train(num_steps=20, optimizer=optimizer)
        assert history["train_losses"][-1] < history["train_losses"][0]


@pytest.mark.slow
def test_an_optimizer_may_hold_random_keys():
    noisy = optax.chain(optax.add_noise(0.01, 0.55, key=jax.random.key(0)), optax.sgd(0.5))
    _, history = train(num_steps=20, optimizer=noisy)
    assert history["train_losses"][-1] < history["train_losses"][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": "fast"}, "lr must be a number, got 'fast'"),
        ({"lr": optax.constant_schedule(0.1)}, "for a schedule pass optimizer=optax.sgd"),
        ({"optimizer": optax.sgd}, "optimizer must be an optax.GradientTransformation"),
    ],
)
def test_what_is_no_rate_and_no_optimizer_is_a_type_error(options, message):
    with pytest.raises(TypeError, match=message):
        train(**options)


def test_params_broken_by_the_last_step_are_an_error():
    with pytest.raises(FloatingPointError, match=r"params are no longer finite after step 0; lower lr=3e\+38"):
        train(num_steps=1, lr=3e38, weight_decay=10.0)
