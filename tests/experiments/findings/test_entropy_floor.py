"""No model is below the floor, and the counts are close to it."""

from functools import partial

import pytest

from experiments.findings.entropy_floor import EntropyFloorOptions, measure


@pytest.mark.stress
def test_measure_finds_no_model_below_its_floor(run_measure):
    options = EntropyFloorOptions(vocab_size=4, num_tokens=40_000, steps=40, quick=True)
    results, table = run_measure(partial(measure, options, [1]))
    source, *models = results["rows"]
    assert source["exact_nats"] == pytest.approx(source["floor_nats"], rel=1e-6)
    assert len(models) == 7
    for row in models:
        assert row["order"] == 1
        assert row["floor_nats"] == pytest.approx(source["floor_nats"])
        assert row["exact_nats"] >= row["floor_nats"] - 1e-6
        if row["model"].startswith("counts"):  # 2000 tokens determine 12 probabilities to a few per cent
            assert row["excess_percent"] < 10
    assert f"{source['floor_nats']:.4f}" in table
