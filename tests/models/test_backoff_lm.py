"""The backoff model: arrays that are not a trie are refused, and the model mixes with others."""

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm.models.backoff_lm import ListedNgrams


@pytest.fixture(scope="module")
def fitted():
    """A bigram model: P(1 | 0) = 0.8, and else 0.4 or 0.6 times the backoff of token 0, which is 0.5."""
    unigrams = ListedNgrams(np.array([[0], [1]]), np.log10([0.4, 0.6]), np.log10([0.5, 1.0]))
    return jaxlm.BackoffLM.from_ngrams(
        2, [unigrams, ListedNgrams(np.array([[0, 1]]), np.log10([0.8]), np.zeros(1))]
    )


def test_backoff_lm_in_a_mixture(fitted):
    model, variables = fitted
    mixture = jaxlm.MixtureLM((model, jaxlm.UniformLM(2)), (0.5, 0.5))
    found = np.exp(jax.jit(mixture.apply)((variables, {}), np.array([[0], [1]])))
    np.testing.assert_allclose(found, [[0.35, 0.65], [0.45, 0.55]], rtol=1e-5)


def test_backoff_lm_limits_the_context_length():
    with pytest.raises(ValueError, match="context_length must be at most 9, got 10"):
        jaxlm.BackoffLM(5, 10)


DAMAGES = {
    "a missing array": lambda trie: trie.pop("weights"),
    "another dtype": lambda trie: trie.update(tokens=trie["tokens"].astype(np.float32)),
    "another size": lambda trie: trie.update(weights=trie["weights"][1:]),
    "a range that ends before it begins": lambda trie: trie["children"].__setitem__(1, 0),
    "a range outside of the array": lambda trie: trie["entries"].__setitem__(slice(-2, None), 99),
    "children of the last context": lambda trie: trie["children"].__setitem__(-1, 3),
    "a backoff of the last context": lambda trie: trie["backoffs"].__setitem__(-1, -1),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_variables_of_refuses_other_arrays(damage, fitted):
    model, variables = fitted
    trie = {name: np.array(array) for name, array in variables["trie"].items()}
    model.variables_of(variables["unigrams"], trie)
    damage(trie)
    with pytest.raises(ValueError, match=r"^BackoffLM: "):
        model.variables_of(variables["unigrams"], trie)
