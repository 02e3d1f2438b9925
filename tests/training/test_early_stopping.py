"""Early stopping, and resuming a run with and without it."""

import numpy as np
import pytest
from tiny_training import DROPOUT_MLP, IDS, MLP, SCHEDULED, VOCAB, assert_same_bits, train, train_lm

from jaxlm.evaluation.evaluate import Evaluation
from jaxlm.training.early_stopping import stop_early
from jaxlm.training.state import Record, TrainState

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
def test_resuming_from_any_state_ends_in_same_bits(model, options):
    options = {"num_steps": 50, "log_every": 20, "val_ids": IDS[:50], **options}
    patience = options.pop("patience", 100)  # 100: never stops
    items = list(stop_early(train(model, yield_every=7, **options), patience))
    last_state, last_record, last_best = items[-1]
    assert_same_bits(train_lm(model, patience=patience, **options)[0]["params"], last_best.params)
    assert {0, 1, *range(7, last_record.step, 7)} <= {int(state.step) for state, _, _ in items}
    for number, (state, _, best) in enumerate(items):
        resumed = list(stop_early(train(model, state=state, **options), patience, best))
        assert_same_bits(resumed[-1][::2], (last_state, last_best))
        records = [record for _, record, _ in resumed if record is not None]
        assert records == [record for _, record, _ in items[number + 1 :] if record is not None]


def test_stop_early_without_validation_is_a_value_error():
    with pytest.raises(ValueError, match="patience=2 needs a validation loss; pass val_ids"):
        train_lm(patience=2)


@pytest.mark.parametrize("patience", [1, 3, 100])
def test_patience_stops_and_returns_the_best(patience):
    _, whole = train_lm(**OVERFITTING)
    nats = np.float32(np.log(whole["val_perplexities"]))
    best = next(
        i
        for i in range(len(nats))
        if nats[i] < nats[:i].min(initial=np.inf) and nats[i] <= nats[i : i + patience + 1].min()
    )
    variables, history = train_lm(patience=patience, **OVERFITTING)
    assert history == {name: values[: best + patience + 1] for name, values in whole.items()}
    assert (len(history["steps"]) < len(whole["steps"])) == (patience < 100)
    until_best, _ = train_lm(**(OVERFITTING | {"num_steps": whole["steps"][best] + 1}))
    assert_same_bits(variables, until_best)


@pytest.mark.parametrize(
    ("patience", "nats", "stop", "best"),
    [(2, [3, 4, 2, 3, 3, 1], 4, 2), (2, [3, 3, 3, 1], 2, 0), (None, [3, 3, 3, 3, 1, 2], 5, 4)],
)
def test_patience_counts_records_in_a_row_that_are_not_lower(patience, nats, stop, best):
    records = [Record(i, 0.0, Evaluation(each, np.exp(each), 1)) for i, each in enumerate(nats)]
    training = ((TrainState(record.step, record.step, None), record) for record in records)
    *_, (_, record, found) = stop_early(training, patience)
    assert (record.step, found.params) == (stop, best)
