"""UnitEmbeddings is its network with a scaled embedding."""

import jax
import numpy as np

import jaxlm
from experiments.shared.unit_embeddings import UnitEmbeddings


def test_init_scales_the_embedding_to_size_one():
    network = jaxlm.MLPLanguageModel(500, 3, 16, 8)
    variables = jaxlm.init(UnitEmbeddings(network), jax.random.key(0))
    contexts = np.random.default_rng(0).integers(0, 500, (20, 3))
    logits = UnitEmbeddings(network).apply(variables, contexts)
    np.testing.assert_array_equal(logits, network.apply(variables, contexts))
    scaled, original = variables["params"], jaxlm.init(network, jax.random.key(0))["params"]
    embedding = scaled.pop("embedding")["embedding"]
    np.testing.assert_allclose(embedding, 4 * original.pop("embedding")["embedding"], rtol=1e-6)
    assert abs(np.std(embedding) - 1) < 0.03  # 8,000 numbers: a standard error of 0.008
    jax.tree.map(np.testing.assert_array_equal, scaled, original)
