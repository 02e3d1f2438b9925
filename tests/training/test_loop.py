"""The training loop: records, stopping and resuming, early stopping, errors, and known optima."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_training import (
    BIGRAM,
    DROPOUT_MLP,
    IDS,
    MLP,
    SCHEDULED,
    VOCAB,
    LogitsModel,
    assert_same_bits,
    leaves,
    plain_loop,
    train,
    train_and_collect,
)

import jaxlm
from jaxlm.training.state import init_state
from jaxlm.training.step import train_until

EMPTY_HISTORY = {"steps": [], "train_losses": [], "val_perplexities": []}


@pytest.mark.course
def test_train_lm_lowers_the_loss():
    _, history = train(num_steps=100, log_every=99, lr=0.5)
    first, last = history["train_losses"]
    assert first == pytest.approx(np.log(VOCAB), rel=0.02)
    assert last < 0.75 * first  # half of the tokens never occur, so the minimum is ln 3 / ln 6 = 0.61


@pytest.mark.course
@pytest.mark.parametrize(
    ("num_steps", "log_every", "steps"),
    [(7, 3, [0, 3, 6]), (8, 3, [0, 3, 6, 7]), (3, 1, [0, 1, 2]), (5, 100, [0, 4]), (1, 100, [0])],
)
def test_history_holds_each_recorded_step_once(num_steps, log_every, steps):
    records = []
    _, history = train(num_steps=num_steps, log_every=log_every, on_record=records.append)
    assert list(history) == ["steps", "train_losses", "val_perplexities"]
    assert history["steps"] == steps
    assert len(history["train_losses"]) == len(steps)
    assert all(type(value) is float for value in history["train_losses"])
    assert history["val_perplexities"] == []  # no val_ids
    assert {record.validation for record in records} == {None}


@pytest.mark.course
def test_val_perplexity_is_that_after_the_recorded_step():
    val_ids, records = IDS[:50], []
    _, history = train(val_ids=val_ids, on_record=records.append)
    contexts = np.stack([val_ids[:-2], val_ids[1:-1]], axis=1)
    expected = []
    for step in (0, 3, 6):
        log_probs = jax.nn.log_softmax(MLP.apply(train(num_steps=step + 1)[0], contexts))
        expected.append(float(np.exp(-log_probs[np.arange(48), val_ids[2:]].mean())))
    assert history["val_perplexities"] == pytest.approx(expected, rel=1e-5)
    assert [record.step for record in records] == history["steps"]
    assert [record.train_loss for record in records] == history["train_losses"]
    assert [record.validation.perplexity for record in records] == history["val_perplexities"]
    assert {record.validation.num_tokens for record in records} == {48}


@pytest.mark.course
def test_train_lm_of_counts_is_a_type_error():
    with pytest.raises(TypeError, match=r"CountsBigramLM .* int32; call model\.fit\(variables, ids\)"):
        train(jaxlm.CountsBigramLM(VOCAB))


@pytest.mark.course
@pytest.mark.parametrize("start", [None, jaxlm.init(MLP, jax.random.key(5))], ids=["fresh", "given"])
def test_same_key_gives_same_bits(start):
    first, again, other = (train(key=key, variables=start) for key in (1, 1, 2))
    assert_same_bits(first[0], again[0])
    assert first[1] == again[1]
    assert any((one != two).any() for one, two in zip(leaves(first[0]), leaves(other[0]), strict=True))


@pytest.mark.parametrize("to_array", [jnp.array, np.array])
def test_train_lm_keeps_the_callers_variables(to_array):
    start = jax.tree.map(to_array, jaxlm.init(MLP, jax.random.key(5)))
    before = jax.tree.map(np.array, start)
    trained, _ = train(variables=start)
    assert_same_bits(start, before)
    assert all((one != two).any() for one, two in zip(leaves(trained), leaves(start), strict=True))


def test_train_lm_starts_from_init():
    expected = jaxlm.init(MLP, jax.random.fold_in(jax.random.key(9), 2**31 - 1))
    untrained, history = train(key=9, num_steps=0)
    assert_same_bits(untrained, expected)
    assert history == EMPTY_HISTORY
    assert_same_bits(init_state(MLP, SCHEDULED, jax.random.key(9)).params, expected["params"])


def test_train_lm_accepts_any_integer_ids():
    expected, _ = train()
    for ids in (IDS.tolist(), IDS.astype(np.uint8), jnp.asarray(IDS)):
        assert_same_bits(train(ids=ids)[0], expected)


@pytest.mark.parametrize("optimizer", [None, pytest.param(SCHEDULED, marks=pytest.mark.slow)])
def test_log_every_changes_no_bit(optimizer):
    one, three, once = (train(optimizer=optimizer, log_every=every, num_steps=70) for every in (1, 3, 100))
    assert_same_bits(one[0], three[0])
    assert_same_bits(one[0], once[0])
    assert three[1]["train_losses"] == one[1]["train_losses"][::3]


# Only even tokens are trained, so the odd ones of this validation become worse with time.
OVERFITTING = {"val_ids": np.arange(60) % VOCAB, "lr": 1.0, "num_steps": 200, "log_every": 5}


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (MLP, {}),
        pytest.param(MLP, {"optimizer": SCHEDULED}, marks=pytest.mark.slow),
        pytest.param(DROPOUT_MLP, {}, marks=pytest.mark.slow),
        (MLP, {"patience": 2, **OVERFITTING}),
    ],
    ids=["sgd", "scheduled", "dropout", "patience"],
)
def test_resuming_from_any_pause_ends_in_same_bits(model, options):
    options = {"num_steps": 50, "log_every": 20, "val_ids": IDS[:50], **options}
    variables, history, states = train_and_collect(model, pause_every=7, **options)
    assert_same_bits(train(model, **options)[0], variables)
    assert {1, *range(7, history["steps"][-1], 7)} <= {int(state.step) for state in states}
    for state in states:
        resumed, rest = train(model, state=state, **options)
        assert_same_bits(resumed, variables)
        left = [i for i, step in enumerate(history["steps"]) if step >= state.step]
        assert rest == {name: [values[i] for i in left] for name, values in history.items()}
    assert rest == EMPTY_HISTORY  # the last state is the end of the run


def test_on_pause_follows_each_record():
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


@pytest.mark.parametrize(
    ("num_steps", "pause_every", "expected"),
    [
        # 1, 2, 4, ... steps while a call takes under 0.2 s, then half as many if it takes over 0.5 s.
        (161, None, [1, 3, 7, 15, 31, 63, 95, 127, 143, 151, 159, 161]),
        (40, 5, [1, 3, 5, 9, 10, 15, 20, 25, 30, 35, 40]),
    ],
)
def test_on_pause_is_called_by_the_clock(monkeypatch, num_steps, pause_every, expected):
    now, seen = 0.0, [0]
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def on_pause(state):
        nonlocal now
        step = int(state.step)
        now += (step - seen[-1]) * (0.01 if step <= 100 else 0.05)  # seconds per step
        seen.append(step)

    train(num_steps=num_steps, log_every=num_steps, on_pause=on_pause, pause_every=pause_every)
    assert seen[1:] == expected


def test_state_of_another_run_is_a_value_error():
    *_, states = train_and_collect()
    with pytest.raises(ValueError, match=r"hidden.* is float32\[4\], expected float32\[5\]"):
        train(jaxlm.MLPLanguageModel(VOCAB, 2, 3, 5), state=states[0])
    for options in ({"optimizer": optax.adam(0.1)}, {"patience": 1, "val_ids": IDS}):
        with pytest.raises(ValueError, match="another model or optimizer"):
            train(state=states[0], **options)
    with pytest.raises(ValueError, match=r"state is at step 7, outside 0\.\.num_steps=6"):
        train(state=states[-1], num_steps=6)


@pytest.mark.parametrize("patience", [1, 3, 100])
def test_patience_stops_and_returns_the_best(patience):
    _, whole = train(**OVERFITTING)
    nats = np.float32(np.log(whole["val_perplexities"]))
    best = next(
        i
        for i in range(len(nats))
        if nats[i] < nats[:i].min(initial=np.inf) and nats[i] <= nats[i : i + patience + 1].min()
    )
    variables, history = train(patience=patience, **OVERFITTING)
    assert history == {name: values[: best + patience + 1] for name, values in whole.items()}
    assert (len(history["steps"]) < len(whole["steps"])) == (patience < 100)
    until_best, _ = train(**(OVERFITTING | {"num_steps": whole["steps"][best] + 1}))
    assert_same_bits(variables, until_best)


@pytest.mark.slow
@pytest.mark.parametrize("log_every", [1, 100])
def test_infinite_loss_is_an_error_that_names_its_step(log_every):
    records, lr = [], 3e4
    _, losses = plain_loop(BIGRAM, optax.sgd(lr), 50, jax.random.key(0))
    bad_step = int(np.argmin(np.isfinite(losses)))
    assert 2 < bad_step < 49
    with pytest.raises(FloatingPointError, match=f"at step {bad_step}; lower lr={lr}"):
        train(BIGRAM, lr=lr, num_steps=50, log_every=log_every, on_record=records.append)
    assert [record.step for record in records] == list(range(0, bad_step, log_every))


def test_infinite_params_after_the_last_step_are_an_error():
    with pytest.raises(FloatingPointError, match=r"params are no longer finite after step 0; lower lr=3e\+38"):
        train(num_steps=1, lr=3e38, weight_decay=10.0)


def test_training_makes_no_implicit_transfers():
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


def test_train_lm_compiles_once():
    train(val_ids=IDS)
    compiled = train_until._cache_size()
    train(val_ids=IDS, key=1, lr=0.3, weight_decay=0.2, num_steps=11, log_every=5)
    train(jaxlm.MLPLanguageModel(VOCAB, context_length=2, embedding_dim=3, hidden_dim=4))
    train(ids=IDS[:195])
    train(num_steps=300, on_pause=lambda state: None, pause_every=13)
    assert train_until._cache_size() == compiled


@pytest.mark.slow
def test_same_optimizer_compiles_once():
    train(optimizer=SCHEDULED)
    compiled = train_until._cache_size()
    train(optimizer=SCHEDULED, key=1, num_steps=9)
    assert train_until._cache_size() == compiled


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_steps": -1}, "num_steps must be at least 0, got -1"),
        ({"log_every": 0}, "log_every must be at least 1, got 0"),
        ({"pause_every": 0}, "pause_every must be at least 1, got 0"),
        ({"patience": 0, "val_ids": IDS}, "patience must be at least 1, got 0"),
        ({"patience": 2}, "patience=2 needs a validation; pass val_ids"),
        ({"lr": -0.1}, "lr must be finite and at least 0, got -0.1"),
        ({"lr": float("nan")}, "lr must be finite and at least 0, got nan"),
        ({"weight_decay": float("inf")}, "weight_decay must be finite and at least 0, got inf"),
        ({"optimizer": SCHEDULED, "lr": 0.3}, r"lr=0.3 and weight_decay=0.0 apply to the default SGD.*optimizer="),
        ({"optimizer": SCHEDULED, "weight_decay": 0.3}, r"weight_decay=0.3 apply to the default SGD"),
        ({"ids": [0, 1]}, "train_ids.* 3"),
        ({"ids": [0, 1, 6, 2]}, "train_ids.* 6"),
        ({"val_ids": [0, 1]}, "val_ids.* 3"),
        ({"val_ids": [0, 1, 9]}, "val_ids.* 9"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_train_lm_out_of_range_is_a_value_error(options, message):
    with pytest.raises(ValueError, match=message):
        train(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ids": [0.0, 1.0, 2.0]}, "train_ids must be integers, got float"),
        ({"val_ids": [0.0, 1.0, 2.0]}, "val_ids must be integers, got float"),
        ({"lr": "fast"}, "lr must be a number, got 'fast'"),
        ({"lr": optax.constant_schedule(0.1)}, r"lr must be a number.*optimizer=optax\.sgd\(schedule\)"),
        ({"optimizer": optax.sgd}, r"optimizer must be an optax\.GradientTransformation"),
        ({"variables": {"params": {}}}, "MLPLanguageModel cannot be trained .* no arrays"),
        ({"variables": {"params": {"kernel": np.zeros(3, int)}}}, "int.*params must be floats"),
        ({"model": LogitsModel()}, "LogitsModel has no init"),
    ],
)
def test_train_lm_wrong_type_is_a_type_error(options, message):
    with pytest.raises(TypeError, match=message):
        train(**options)
