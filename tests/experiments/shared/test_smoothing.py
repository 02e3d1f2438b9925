"""The best smoothing against `jaxlm.evaluate`."""

import numpy as np

import jaxlm
from experiments.shared.smoothing import find_best_smoothing


def test_find_best_smoothing_has_the_lowest_perplexity():
    table = 12 * np.roll(np.eye(6, dtype=np.int32), 1, axis=1)
    held_out_ids = np.append(np.arange(75) % 6, [5, 2, 0, 4, 1])
    candidates = [100.0, 0.3, 0.001]
    variables = {"counts": {"table": table}}
    perplexities = [jaxlm.perplexity(jaxlm.CountsBigramLM(6, k), variables, held_out_ids) for k in candidates]
    assert min(perplexities) == perplexities[1]
    assert find_best_smoothing(table, held_out_ids, candidates) == 0.3
