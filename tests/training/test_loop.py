"""The training loop: records, chunks, errors, and known optima."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_training import (
    BIGRAM,
    IDS,
    MLP,
    SCHEDULED,
    VOCAB,
    LogitsModel,
    assert_same_bits,
    leaves,
    plain_loop,
    train,
    train_lm,
)

import jaxlm
from jaxlm.training import loop
from jaxlm.training.state import init_state
from jaxlm.training.step import train_chunk

EMPTY_HISTORY = {"steps": [], "train_losses": [], "val_perplexities": []}


@pytest.mark.course
def test_train_lm_lowers_the_loss():
    _, history = train_lm(num_steps=100, log_every=99, lr=0.5)
    first, last = history["train_losses"]
    assert first == pytest.approx(np.log(VOCAB), rel=0.02)
    assert last < 0.75 * first  # half of the tokens never occur, so the minimum is ln 3 / ln 6 = 0.61


@pytest.mark.course
@pytest.mark.parametrize(
    ("num_steps", "log_every", "steps"),
    [(7, 3, [0, 3, 6]), (8, 3, [0, 3, 6, 7]), (3, 1, [0, 1, 2]), (5, 100, [0, 4]), (1, 100, [0])],
)
def test_history_holds_each_recorded_step_once(num_steps, log_every, steps):
    _, history = train_lm(num_steps=num_steps, log_every=log_every)
    assert list(history) == ["steps", "train_losses", "val_perplexities"]
    assert history["steps"] == steps
    assert len(history["train_losses"]) == len(steps)
    assert all(type(value) is float for value in history["train_losses"])
    assert history["val_perplexities"] == []  # no val_ids


@pytest.mark.course
def test_val_perplexity_is_that_after_the_recorded_step():
    val_ids = IDS[:50]
    _, history = train_lm(val_ids=val_ids)
    contexts = np.stack([val_ids[:-2], val_ids[1:-1]], axis=1)
    expected = []
    for step in (0, 3, 6):
        log_probs = jax.nn.log_softmax(MLP.apply(train_lm(num_steps=step + 1)[0], contexts))
        expected.append(float(np.exp(-log_probs[np.arange(48), val_ids[2:]].mean())))
    assert history["val_perplexities"] == pytest.approx(expected, rel=1e-5)
    records = [record for _, record in train(val_ids=val_ids) if record is not None]
    assert [record.step for record in records] == history["steps"]
    assert [record.train_loss for record in records] == history["train_losses"]
    assert [record.validation.perplexity for record in records] == history["val_perplexities"]
    assert {record.validation.num_tokens for record in records} == {48}


@pytest.mark.course
def test_train_lm_of_counts_is_a_type_error():
    with pytest.raises(TypeError, match=r"CountsBigramLM .* int32; call model\.fit\(variables, ids\)"):
        train_lm(jaxlm.CountsBigramLM(VOCAB))


@pytest.mark.course
@pytest.mark.parametrize("start", [None, jaxlm.init(MLP, jax.random.key(5))], ids=["fresh", "given"])
def test_same_key_gives_same_bits(start):
    first, again, other = (train_lm(key=key, variables=start) for key in (1, 1, 2))
    assert_same_bits(first[0], again[0])
    assert first[1] == again[1]
    assert any((one != two).any() for one, two in zip(leaves(first[0]), leaves(other[0]), strict=True))


@pytest.mark.parametrize("to_array", [jnp.array, np.array])
def test_train_lm_keeps_the_callers_variables(to_array):
    start = jax.tree.map(to_array, jaxlm.init(MLP, jax.random.key(5)))
    before = jax.tree.map(np.array, start)
    trained, _ = train_lm(variables=start)
    assert_same_bits(start, before)
    assert all((one != two).any() for one, two in zip(leaves(trained), leaves(start), strict=True))


def test_train_lm_starts_from_init():
    expected = jaxlm.init(MLP, jax.random.fold_in(jax.random.key(9), 2**31 - 1))
    untrained, history = train_lm(key=9, num_steps=0)
    assert_same_bits(untrained, expected)
    assert history == EMPTY_HISTORY
    assert_same_bits(init_state(MLP, SCHEDULED, key=jax.random.key(9)).params, expected["params"])


def test_train_lm_accepts_any_integer_ids():
    expected, _ = train_lm()
    for ids in (IDS.tolist(), IDS.astype(np.uint8), jnp.asarray(IDS)):
        assert_same_bits(train_lm(ids=ids)[0], expected)


@pytest.mark.parametrize("optimizer", [None, pytest.param(SCHEDULED, marks=pytest.mark.slow)])
def test_log_every_changes_no_bit(optimizer):
    one, three, once = (train_lm(optimizer=optimizer, log_every=every, num_steps=70) for every in (1, 3, 100))
    assert_same_bits(one[0], three[0])
    assert_same_bits(one[0], once[0])
    assert three[1]["train_losses"] == one[1]["train_losses"][::3]


def test_train_yields_the_start_and_each_record_once():
    items = list(train(num_steps=10, log_every=4, yield_every=10))
    assert [int(state.step) for state, _ in items] == sorted({int(state.step) for state, _ in items})
    assert int(items[0][0].step) == 0
    assert items[0][1] is None
    assert [(record.step, int(state.step)) for state, record in items if record] == [
        (0, 1),
        (4, 5),
        (8, 9),
        (9, 10),
    ]


def test_yielded_states_stay_valid():
    states = [state for state, _ in train(log_every=1)]
    assert_same_bits(states[0].variables, train_lm(num_steps=0)[0])
    assert_same_bits(states[-1].variables, train_lm()[0])


@pytest.mark.parametrize(
    ("num_steps", "yield_every", "expected"),
    [
        # 0.01 s per step, then 0.05 s: chunks of 30, then 6 steps take 0.3 s. They grow by at most 16 times.
        (161, None, [1, 17, 47, 77, 107, 113, 119, 125, 131, 137, 143, 149, 155, 161]),
        (40, 5, [1, 5, 10, 15, 20, 25, 30, 35, 40]),
    ],
)
def test_chunks_end_by_the_clock(monkeypatch, num_steps, yield_every, expected):
    times = [0.0]  # before and after each chunk
    for first, stop in itertools.pairwise([0, *expected]):
        times += [times[-1], times[-1] + (stop - first) * (0.01 if stop <= 100 else 0.05)]  # seconds per step
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(monotonic=iter(times[1:]).__next__))
    states = [state for state, _ in train(num_steps=num_steps, log_every=num_steps, yield_every=yield_every)]
    assert [int(state.step) for state in states[1:]] == expected


def test_state_of_another_run_is_a_value_error():
    states = [state for state, _ in train()]
    with pytest.raises(ValueError, match=r"hidden.* is float32\[4\], expected float32\[5\]"):
        train(jaxlm.MLPLanguageModel(VOCAB, 2, 3, 5), state=states[0])
    with pytest.raises(ValueError, match="state is of a different model or optimizer"):
        train(state=states[0], optimizer=optax.adam(0.1))
    with pytest.raises(ValueError, match=r"state.step must be in \[0, 6\], got 7; raise num_steps"):
        train(state=states[-1], num_steps=6)


@pytest.mark.slow
@pytest.mark.parametrize("log_every", [1, 100])
def test_infinite_loss_is_an_error_that_names_its_step(log_every):
    records, lr = [], 3e4
    _, losses = plain_loop(BIGRAM, optax.sgd(lr), 50, jax.random.key(0))
    bad_step = int(np.argmin(np.isfinite(losses)))
    assert 2 < bad_step < 49
    with pytest.raises(FloatingPointError, match=f"at step {bad_step}; lower the learning rate"):
        records.extend(record for _, record in train(BIGRAM, lr=lr, num_steps=50, log_every=log_every) if record)
    assert [record.step for record in records] == list(range(0, bad_step, log_every))


def test_infinite_params_after_the_last_step_are_an_error():
    with pytest.raises(FloatingPointError, match=r"parameters are not finite after step 0; lower the"):
        train_lm(num_steps=1, lr=3e38, weight_decay=10.0)


def test_a_state_that_is_not_finite_is_not_yielded():
    """Each step multiplies the logits by 1e20. After step 1, one of them is infinite, and no step is recorded."""
    optimizer = optax.stateless(lambda _, params: jax.tree.map(lambda leaf: 1e20 * leaf, params))
    options = {"variables": {"logits": jnp.eye(VOCAB)[5]}, "optimizer": optimizer, "log_every": 100}
    steps = []
    with pytest.raises(FloatingPointError, match="the loss is nan at step 2"):
        steps.extend(int(state.step) for state, _ in train(LogitsModel(), yield_every=1, **options))
    assert steps == [0, 1]


def test_a_resumed_training_has_the_rate_of_its_optimizer():
    start, _ = next(train(lr=0.1))
    *_, (state, _) = train(state=start, lr=0.5)
    assert_same_bits(state.variables, train_lm(lr=0.5)[0])


def test_training_makes_no_implicit_transfers():
    training = train(val_ids=IDS)
    next(training)
    steps = [next(training)[1].step]  # compiling transfers constants
    with jax.transfer_guard("disallow"):
        steps += [record.step for _, record in training if record is not None]
        with pytest.raises(Exception, match="Disallowed host-to-device"):
            jnp.ones(3) + np.ones(3)
    assert steps == [0, 3, 6]


def test_train_lm_compiles_once():
    train_lm(val_ids=IDS)
    compiled = train_chunk._cache_size()
    train_lm(val_ids=IDS, key=1, lr=0.3, weight_decay=0.2, num_steps=11, log_every=5)
    train_lm(lr=1, weight_decay=0)
    train_lm(jaxlm.MLPLanguageModel(VOCAB, context_length=2, embedding_dim=3, hidden_dim=4))
    train_lm(ids=IDS[:195])
    list(train(num_steps=300, yield_every=13))
    assert train_chunk._cache_size() == compiled


@pytest.mark.slow
def test_optimizers_of_equal_structure_compile_once():
    def optimizer(lr, num_steps):
        return jaxlm.sgd(lr, num_steps, schedule="cosine", momentum=0.9 * lr, weight_decay=lr, clip_norm=1 / lr)

    train_lm(optimizer=optimizer(0.1, 7))
    compiled = train_chunk._cache_size()
    train_lm(optimizer=optimizer(0.2, 9), key=1, num_steps=9)
    assert train_chunk._cache_size() == compiled
    adam = optax.adam(0.1)
    train_lm(optimizer=adam)
    train_lm(optimizer=adam, key=1, num_steps=9)
    assert train_chunk._cache_size() == compiled + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_steps": -1}, "num_steps must be at least 0, got -1"),
        ({"log_every": 0}, "log_every must be at least 1, got 0"),
        ({"patience": 0, "val_ids": IDS}, "patience must be at least 1, got 0"),
        ({"lr": -0.1}, r"lr must be in \[0, inf\), got -0.1"),
        ({"lr": float("nan")}, r"lr must be in \[0, inf\), got nan"),
        ({"weight_decay": float("inf")}, r"weight_decay must be in \[0, inf\), got inf"),
        (
            {"optimizer": SCHEDULED, "lr": 0.3},
            r"lr=0.3 and weight_decay=0.0 apply to the default SGD.*your optimizer",
        ),
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
        train_lm(**options)


def test_yield_every_out_of_range_is_a_value_error():
    with pytest.raises(ValueError, match="yield_every must be at least 1, got 0"):
        train(yield_every=0)  # at the call, not at the first item


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ids": [0.0, 1.0, 2.0]}, "train_ids must be integers, got float"),
        ({"val_ids": [0.0, 1.0, 2.0]}, "val_ids must be integers, got float"),
        ({"lr": "fast"}, "lr must be a number, got 'fast'"),
        ({"weight_decay": None}, "weight_decay must be a number, got None"),
        ({"lr": optax.constant_schedule(0.1)}, r"lr must be a number.*optimizer=optax\.sgd\(schedule\)"),
        ({"optimizer": optax.sgd}, r"optimizer must be an optax\.GradientTransformation"),
        ({"variables": {"params": {}}}, "MLPLanguageModel cannot be trained .* no arrays"),
        ({"variables": {"params": {"kernel": np.zeros(3, int)}}}, "int.*trained parameters must be floats"),
        ({"model": LogitsModel()}, "LogitsModel has no init"),
    ],
)
def test_train_lm_wrong_type_is_a_type_error(options, message):
    with pytest.raises(TypeError, match=message):
        train_lm(**options)
