"""A StableHLO file runs without the model, and gives the same logits for any batch size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxlm
from jaxlm.models.backoff_lm import ListedNgrams

pytest.importorskip("flatbuffers", reason="flatbuffers is not installed; it comes with jaxlm[stablehlo]")
IDS = np.random.default_rng(0).integers(0, 7, 300) ** 2 % 8


def fitted(model):
    return model, model.fit(jaxlm.init(model, jax.random.key(0)), IDS)


def with_random_params(model):
    random, like = np.random.default_rng(0), jax.eval_shape(lambda: jaxlm.init(model, jax.random.key(0)))
    return model, jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(leaf.dtype), like)


def backoff():
    unigrams = ListedNgrams(np.arange(8)[:, None], np.full(8, -0.9), np.full(8, -0.1))
    return jaxlm.BackoffLM.from_ngrams(
        8, [unigrams, ListedNgrams(np.array([[0, 1]]), np.array([-0.2]), np.zeros(1))]
    )


MAKERS = {
    "counts bigram": lambda: fitted(jaxlm.CountsBigramLM(8, smoothing=0.5)),
    "n-grams": lambda: fitted(jaxlm.CountsNgramLM(8, 2)),
    "backoff": backoff,
    "neural bigram": lambda: with_random_params(jaxlm.NeuralBigramLM(8, 3)),
    "MLP": lambda: with_random_params(jaxlm.MLPLanguageModel(8, 3, 4, 5)),
    "uniform": lambda: (jaxlm.UniformLM(8), {}),
    "mixture": lambda: (
        jaxlm.MixtureLM((jaxlm.UniformLM(8), jaxlm.UnigramLM(8)), (0.5, 0.5)),
        ({}, jnp.arange(8)),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_write_stablehlo_reads_back_with_equal_logits(make, tmp_path):
    model, variables = make()
    path = tmp_path / "new" / "model.stablehlo"
    jaxlm.write_stablehlo(path, model, variables)
    program = export.deserialize(bytearray(path.read_bytes()))
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    for batch_size in (1, 5):
        contexts = np.random.default_rng(1).integers(0, 8, (batch_size, model.context_length)).astype(np.int32)
        expected = jax.jit(model.apply)(variables, contexts)
        np.testing.assert_allclose(program.call(contexts), expected, rtol=1e-5)


def test_write_stablehlo_overwrites_only_on_request(tmp_path):
    (tmp_path / "model.stablehlo").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite"):
        jaxlm.write_stablehlo(tmp_path / "model.stablehlo", jaxlm.UniformLM(3), {})
    jaxlm.write_stablehlo(tmp_path / "model.stablehlo", jaxlm.UniformLM(3), {}, overwrite=True)
    assert (tmp_path / "model.stablehlo").read_bytes() != b"mine"
