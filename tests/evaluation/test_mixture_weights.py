"""Fitted mixture weights against the best of a fine grid."""

import numpy as np
import pytest
from table_models import TableLM, nats_in_numpy, random_ids, random_table

from jaxlm import mixture_weights


def test_mixture_weights_are_the_best_of_a_grid():
    """The models have contexts of different lengths."""
    held_out = random_ids(3, 400)
    (first, table), (second, long_table) = random_table(3, 0), random_table(3, 2, seed=7)
    weights = mixture_weights([first, second], [table, long_table], held_out)
    assert sum(weights) == pytest.approx(1)
    probabilities = np.exp(-nats_in_numpy(table, held_out[2:], 0)), np.exp(-nats_in_numpy(long_table, held_out, 2))
    grid = np.linspace(0, 1, 1001)
    mean_logs = [np.log(w * probabilities[0] + (1 - w) * probabilities[1]).mean() for w in grid]
    assert weights[0] == pytest.approx(grid[int(np.argmax(mean_logs))], abs=2e-3)
    assert 0.02 < weights[0] < 0.98  # otherwise a choice of one model would pass


def test_mixture_weights_of_an_impossible_token_is_an_error():
    table, long_table = np.array([0.0, 0.0, -np.inf], np.float32), np.zeros((3, 3, 3), np.float32)
    long_table[1, 0, 2] = -np.inf
    with pytest.raises(ValueError, match="token 3 of held_out_ids has no probability under any model"):
        mixture_weights([TableLM(3, 0), TableLM(3, 2)], [table, long_table], [2, 1, 0, 2, 0])


@pytest.mark.parametrize("variables", [[], [1, 2]])
def test_mixture_weights_rejects_a_wrong_number_of_variables(variables):
    with pytest.raises(ValueError, match=f"same length, at least 1, got .* and {len(variables)}"):
        mixture_weights([TableLM(3, 1)] * (len(variables) // 2), variables, [0, 1])
