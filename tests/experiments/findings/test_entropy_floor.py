"""No model is below the floor, and the counts are close to it."""

from functools import partial

import pytest

from experiments.findings.entropy_floor import EntropyFloorOptions, measure


@pytest.mark.slow
def test_measure_finds_no_model_below_its_floor(run_measure):
    options = EntropyFloorOptions(vocab_size=4, num_tokens=40_000, steps=40, quick=True)
    results, table = run_measure(partial(measure, options))
    assert [source["order"] for source in results["sources"]] == [1, 2]
    for source in results["sources"]:
        assert len(source["models"]) == 7
        assert all(row["exact_nats"] >= row["floor_nats"] - 1e-6 for row in source["models"])
        assert all(abs(row["sampled_nats"] / row["exact_nats"] - 1) < 0.2 for row in source["models"])
        # 2000 tokens determine the 12 or 48 free probabilities to a few per cent.
        assert all(row["excess_percent"] < 10 for row in source["models"] if "gram, " in row["model"])
        assert f"{source['entropy_rate_nats']:.4f}" in table
    first = results["sources"][0]  # of order 1: a bigram's floor is the entropy rate
    assert first["models"][0]["floor_nats"] == pytest.approx(first["entropy_rate_nats"])
