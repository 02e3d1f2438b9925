"""The network with other embeddings at its start is the network in all else."""

import jax
import numpy as np

import jaxlm
from experiments.shared.unit_embeddings import UnitEmbeddings
from jaxlm.models.interface import compute_training_logits

NETWORK = jaxlm.MLPLanguageModel(500, 3, 16, 8, dropout=0.5)
CONTEXTS = np.random.default_rng(0).integers(0, 500, (20, 3))


def test_fresh_embeddings_are_of_size_one_and_the_rest_is_the_networks():
    fresh = jaxlm.init(UnitEmbeddings(NETWORK), jax.random.key(0))["params"]
    networks = jaxlm.init(NETWORK, jax.random.key(0))["params"]
    embedding = fresh.pop("embedding")["embedding"]
    np.testing.assert_allclose(embedding, 4 * networks.pop("embedding")["embedding"], rtol=1e-6)
    assert abs(np.std(embedding) - 1) < 0.03  # 8,000 numbers: a standard error of 0.008
    jax.tree.map(np.testing.assert_array_equal, fresh, networks)


def test_logits_are_the_networks_with_noise_and_without():
    model = UnitEmbeddings(NETWORK)
    variables = jaxlm.init(model, jax.random.key(0))
    np.testing.assert_array_equal(model.apply(variables, CONTEXTS), NETWORK.apply(variables, CONTEXTS))

    def noisy(each):
        return compute_training_logits(each, variables, CONTEXTS, jax.random.key(1))

    np.testing.assert_array_equal(noisy(model), noisy(NETWORK))
    assert (noisy(model) != model.apply(variables, CONTEXTS)).any()
