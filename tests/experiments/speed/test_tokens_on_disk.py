"""Training from disk and from memory gives the same variables."""

import jax
import numpy as np

import jaxlm
from experiments.speed.tokens_on_disk import training_benchmark


def test_variants_train_the_same_variables(tmp_path):
    np.random.default_rng(0).integers(0, 4096, 500).astype("<u2").tofile(tmp_path / "ids.bin")
    stream = jaxlm.open_tokens(tmp_path / "ids.bin", vocab_size=4096)
    variants = training_benchmark(stream, jaxlm.NeuralBigramLM(4096, 2), 4, 10).variants
    disk, memory = (variants[name].call() for name in ("disk", "memory"))
    jax.tree.map(np.testing.assert_array_equal, disk, memory)
