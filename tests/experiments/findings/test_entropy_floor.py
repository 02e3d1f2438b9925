"""No model is below the floor, and the counts are close to it."""

from functools import partial

import pytest

from experiments.findings.entropy_floor import EntropyFloorOptions, measure


@pytest.mark.stress
def test_measure_finds_no_model_below_its_floor(run_measure):
    options = EntropyFloorOptions(vocab_size=4, num_tokens=40_000, steps=40, quick=True)
    results, table = run_measure(partial(measure, options, [1]))
    (source,) = results["sources"]
    assert source["order"] == 1
    assert len(source["models"]) == 7
    for row in source["models"]:
        assert row["floor_nats"] == pytest.approx(source["entropy_rate_nats"])
        assert row["exact_nats"] >= row["floor_nats"] - 1e-6
        if row["model"].startswith("counts"):  # 2000 tokens determine 12 probabilities to a few per cent
            assert row["excess_percent"] < 10
    assert f"{source['entropy_rate_nats']:.4f}" in table
