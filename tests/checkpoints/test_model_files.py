"""Save models as safetensors files, and load them."""

import errno
import os
from dataclasses import dataclass
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from checkpoint_files import MLP, assert_same_bits, make_variables
from flax import linen as nn

import jaxlm

COUNTS = jaxlm.CountsBigramLM(300, smoothing=0.25)
BIGRAM = jaxlm.NeuralBigramLM(300, 4)
SPARSE = jaxlm.CountsNgramLM(300, 2, jaxlm.KneserNey())
MODELS = [
    COUNTS,
    BIGRAM,
    MLP,
    jaxlm.MLPLanguageModel(300, 3, 4, 5, dropout=0.5, direct_connections=True),
    jaxlm.CountsNgramLM(np.int64(300), np.int64(1), jaxlm.AddK(0.5)),
    jaxlm.CountsNgramLM(300, 3),
    SPARSE,
    jaxlm.CountsNgramLM(300, 2, jaxlm.KneserNey(0.75)),
    jaxlm.CountsNgramLM(300, 0, jaxlm.WittenBell()),
    jaxlm.MixtureLM((COUNTS, SPARSE, MLP), (0.5, 0.2, 0.3)),
    jaxlm.MixtureLM((jaxlm.MixtureLM((SPARSE,), (1,)), BIGRAM), (0.25, 0.75)),
    jaxlm.UniformLM(300),
    jaxlm.UnigramLM(np.int64(300)),
    jaxlm.MixtureLM((jaxlm.UniformLM(300), jaxlm.UnigramLM(300), MLP), (0.1, 0.2, 0.7)),
]


@dataclass(frozen=True)
class OwnLM:
    """A user's own model, not a Flax module, with any variables."""

    vocab_size: int = 3
    context_length: int = 1
    notes: Any = None

    def apply(self, variables, contexts):
        return jnp.zeros((len(contexts), self.vocab_size))


PAIR = jaxlm.MixtureLM((BIGRAM, jaxlm.NeuralBigramLM(300, 6)), (0.5, 0.5))
OWN = {"table": jnp.arange(9.0).reshape(3, 3)}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{type(model).__name__}-{model.context_length}")
def test_save_model_round_trip(model, tmp_path):
    variables = make_variables(model)
    tokenizer = jaxlm.BPETokenizer.train("the cat sat on the mat", 262)
    jaxlm.save_model(tmp_path / "a" / "b", model, variables, tokenizer)
    loaded = jaxlm.load_model((tmp_path / "a" / "b").rename(tmp_path / "moved"))
    assert (loaded.model, loaded.tokenizer) == (model, tokenizer)
    assert_same_bits(loaded.variables, variables)


def test_save_model_before_fit(tmp_path):
    model = jaxlm.CountsNgramLM(5, 2)
    variables = jaxlm.init(model, jax.random.key(0))
    jaxlm.save_model(tmp_path / "model", model, variables)
    assert_same_bits(jaxlm.load_model(tmp_path / "model").variables, variables)


@pytest.mark.parametrize(("name", "file"), [("a", "a/model.safetensors"), ("a.safetensors", "a.safetensors")])
def test_save_model_places_the_file_by_its_suffix(name, file, tmp_path):
    variables = make_variables(MLP)
    jaxlm.save_model(str(tmp_path / name), MLP, variables)
    tensors = safetensors.numpy.load_file(tmp_path / file)
    names = ["embedding/embedding", "hidden/bias", "hidden/kernel", "projection/bias", "projection/kernel"]
    assert sorted(tensors) == [f"params/{name}" for name in names]
    np.testing.assert_array_equal(tensors["params/hidden/kernel"], variables["params"]["hidden"]["kernel"])
    for path in (name, file):
        assert jaxlm.load_model(str(tmp_path / path)).model == MLP
    with pytest.raises(FileExistsError, match="exists; choose another path"):
        jaxlm.save_model(tmp_path / name, MLP, variables)
    other = jax.tree.map(lambda leaf: leaf + 1, variables)
    jaxlm.save_model(tmp_path / name, MLP, other, overwrite=True)
    assert_same_bits(jaxlm.load_model(tmp_path / name).variables, other)


def test_save_model_keeps_the_old_model_on_a_full_disk(tmp_path, monkeypatch):
    path, variables = tmp_path / "model.safetensors", make_variables(MLP)
    jaxlm.save_model(path, MLP, variables)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            jaxlm.save_model(path, MLP, jax.tree.map(jnp.zeros_like, variables), overwrite=True)
        with pytest.raises(OSError, match="No space left"):
            jaxlm.save_model(tmp_path / "new" / "folder", MLP, variables)
    assert_same_bits(jaxlm.load_model(path).variables, variables)
    assert list(tmp_path.iterdir()) == [path]


def test_save_model_of_a_user_needs_it_again_to_load(tmp_path):
    jaxlm.save_model(tmp_path / "own", OwnLM(notes="a"), OWN)
    _, variables, tokenizer = jaxlm.load_model(tmp_path / "own", model=OwnLM(notes="a"))
    assert tokenizer is None
    assert_same_bits(variables, OWN)
    with pytest.raises(ValueError, match=r"'OwnLM' is not a model of this library; pass it: load_model\("):
        jaxlm.load_model(tmp_path / "own")
    for other, message in [
        (OwnLM(vocab_size=4, notes="a"), "has vocab_size 3, not 4"),
        (OwnLM(notes="b"), r"has fields \{.*'a'.*\}, not \{.*'b'"),
    ]:
        with pytest.raises(ValueError, match=message):
            jaxlm.load_model(tmp_path / "own", model=other)


def test_save_model_distinguishes_a_users_class_of_the_same_name(tmp_path):
    class MLPLanguageModel(nn.Module):
        vocab_size: int
        context_length: int

        @nn.compact
        def __call__(self, contexts):
            return nn.Dense(self.vocab_size)(nn.one_hot(contexts[:, -1], self.vocab_size))

    own = MLPLanguageModel(4, 2)
    variables = jaxlm.init(own, jax.random.key(0))
    mixture = jaxlm.MixtureLM((OwnLM(300), BIGRAM), (0.5, 0.5))
    for name, model, model_variables in [
        ("MLPLanguageModel", own, variables),
        ("MixtureLM", mixture, (OWN, make_variables(BIGRAM))),
    ]:
        jaxlm.save_model(tmp_path / name, model, model_variables)
        with pytest.raises(ValueError, match=f"'{name}' is not a model of this library"):
            jaxlm.load_model(tmp_path / name)
        loaded, loaded_variables, _ = jaxlm.load_model(tmp_path / name, model=model)
        assert loaded is model
        assert_same_bits(loaded_variables, model_variables)


OWN_VARIABLES = {
    "numbers": {"a": 2.5, "b": 3, "c": True, "d": jnp.float32(2.5)},
    "dtypes": {"a": {"b": jnp.ones((2, 3), jnp.bfloat16)}, "c": jnp.array([True, False])},
    "none": {},
    "array": np.arange(3.0, dtype=">f4"),
    "not finite": {"a": jnp.array([jnp.nan, jnp.inf])},
    "names": {"..": {"..": {"evil": jnp.zeros(2)}}, "a.b": jnp.zeros(1), "C:\\x": jnp.zeros(1)},
    "strided": {"a": np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]},
}


@pytest.mark.parametrize("variables", OWN_VARIABLES.values(), ids=OWN_VARIABLES)
def test_save_model_round_trip_of_any_variables(variables, tmp_path):
    model = OwnLM(notes=float("inf"))  # which JSON lacks
    jaxlm.save_model(tmp_path / "own", model, variables)
    assert [path.name for path in tmp_path.iterdir()] == ["own"]
    native = jax.tree.map(lambda leaf: leaf.astype("=f4") if isinstance(leaf, np.ndarray) else leaf, variables)
    assert_same_bits(jaxlm.load_model(tmp_path / "own", model=model)[1], jax.tree.map(jnp.asarray, native))


def nest(depth):
    tree = jnp.zeros(2)
    for _ in range(depth):
        tree = {"a": tree}
    return tree


UNFIT = [
    *([jnp.zeros(2)] * 2, (jnp.zeros(2), jnp.zeros(3))),
    *({"a": {"b": [jnp.zeros(2)]}}, {"a": {}}, None, nest(101)),
    *({0: jnp.zeros(3)}, {"a/b": jnp.zeros(2)}, {"": jnp.zeros(2)}, {"a": jax.random.key(0)}),
]


def test_save_model_refuses_other_containers_keys_and_leaves(tmp_path):
    for variables in UNFIT:
        with pytest.raises(TypeError, match=r"variables|array"):
            jaxlm.save_model(tmp_path / "own", OwnLM(), variables)
    assert not list(tmp_path.iterdir())
    jaxlm.save_model(tmp_path / "own", OwnLM(), nest(100))
    assert_same_bits(jaxlm.load_model(tmp_path / "own", model=OwnLM())[1], nest(100))


@pytest.mark.parametrize(
    "variables",
    [{"a": jnp.ones(3, jnp.float8_e4m3fn)}, {"a": jnp.zeros(2, jnp.int4)}, {"__metadata__": jnp.ones(3)}],
    ids=str,
)
def test_save_model_refuses_what_safetensors_cannot_load(variables, tmp_path):
    with pytest.raises(TypeError, match="safetensors cannot store these variables"):
        jaxlm.save_model(tmp_path / "own", OwnLM(), variables)
    assert not list(tmp_path.iterdir())


def test_save_model_refuses_the_variables_of_another_model(tmp_path):
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), make_variables(BIGRAM))
    for model, variables, error, message in [
        (BIGRAM, halves, ValueError, r"is float16\[300, 4\], expected float32\[300, 4\]"),
        (PAIR, make_variables(PAIR)[::-1], ValueError, "a MixtureLM: .*expected"),
        (SPARSE, make_variables(BIGRAM), TypeError, "not those of a CountsNgramLM"),
    ]:
        with pytest.raises(error, match=message):
            jaxlm.save_model(tmp_path / "model", model, variables)
    small = jaxlm.NeuralBigramLM(27, 2)
    with pytest.raises(ValueError, match="256 tokens, more than the model's vocab_size=27"):
        jaxlm.save_model(tmp_path / "model", small, make_variables(small), jaxlm.ByteTokenizer())
    assert not list(tmp_path.iterdir())


@pytest.fixture
def x64():
    """Call it to enable 64-bit numbers; the end of the test disables them."""
    yield lambda: jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_enable_x64", False)


def test_save_model_of_64_bits_needs_x64(x64, tmp_path):
    variables = {"table": np.full((3, 3), 2.0**40 + 0.1), "count": np.int64(2**40)}
    with pytest.raises(ValueError, match=r"is (float|int)64, which JAX would narrow; set jax_enable_x64"):
        jaxlm.save_model(tmp_path / "own", OwnLM(), variables)
    x64()
    jaxlm.save_model(tmp_path / "own", OwnLM(), variables)
    assert_same_bits(jaxlm.load_model(tmp_path / "own", model=OwnLM())[1], variables)
    jax.config.update("jax_enable_x64", False)
    with pytest.raises(ValueError, match=r"is (float|int)64, which JAX would narrow; set jax_enable_x64"):
        jaxlm.load_model(tmp_path / "own", model=OwnLM())
