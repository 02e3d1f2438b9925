"""Saved models: what was saved comes back to the bit, and what is damaged is refused."""

import json
import shutil
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxlm

MODELS = [
    jaxlm.CountsBigramLM(300, smoothing=0.25),
    jaxlm.NeuralBigramLM(300, 4),
    jaxlm.MLPLanguageModel(300, 3, 4, 5),
]
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)


def make_variables(model):
    variables = jaxlm.init(model, jax.random.key(7))
    return model.fit(variables, np.arange(300)) if isinstance(model, jaxlm.CountsBigramLM) else variables


def assert_same(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for leaf, twin in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        assert leaf.dtype == twin.dtype
        np.testing.assert_array_equal(leaf, twin)


@pytest.fixture
def saved(tmp_path):
    """A saved MLP with a tokenizer: its folder, the model, the variables."""
    model = MODELS[2]
    variables = make_variables(model)
    jaxlm.save_model(tmp_path / "mlp", model, variables, jaxlm.ByteTokenizer())
    return tmp_path / "mlp", model, variables


def edit(path, **changes):
    document = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(document | changes), "utf-8")


@each_model
def test_a_saved_model_comes_back_to_the_bit(model, tmp_path):
    variables = make_variables(model)
    before = jax.tree.map(np.array, variables)
    jaxlm.save_model(tmp_path / "a" / "b", model, variables)
    loaded, loaded_variables, tokenizer = jaxlm.load_model(tmp_path / "a" / "b")
    assert loaded == model
    assert tokenizer is None
    assert_same(loaded_variables, before)
    contexts = jnp.zeros((2, model.context_length), jnp.int32)
    np.testing.assert_array_equal(loaded.apply(loaded_variables, contexts), model.apply(variables, contexts))


def test_the_tokenizer_comes_back(tmp_path):
    text = "the cat sat on the mat; the cat sat on the hat"
    tokenizer = jaxlm.BPETokenizer.train(text, 265)
    model = jaxlm.NeuralBigramLM(tokenizer.vocab_size, 2)
    jaxlm.save_model(tmp_path / "model", model, make_variables(model), tokenizer)
    _, _, loaded = jaxlm.load_model(tmp_path / "model")
    assert loaded == tokenizer
    assert loaded.decode(loaded.encode(text)) == text


def test_a_loaded_model_moves_with_its_folder(saved, tmp_path):
    path, model, variables = saved
    shutil.move(path, tmp_path / "elsewhere")
    loaded, loaded_variables, _ = jaxlm.load_model(tmp_path / "elsewhere")
    assert loaded == model
    assert_same(loaded_variables, variables)


def test_an_existing_path_is_never_written_over(saved):
    path, model, variables = saved
    with pytest.raises(FileExistsError, match="mlp exists"):
        jaxlm.save_model(path, model, variables)
    assert_same(jaxlm.load_model(path)[1], variables)


def test_a_failing_save_leaves_nothing(tmp_path, monkeypatch):
    def fail(self, path):
        raise OSError("no space left on device")

    monkeypatch.setattr(jaxlm.ByteTokenizer, "save", fail)
    model = MODELS[1]
    with pytest.raises(OSError, match="no space"):
        jaxlm.save_model(tmp_path / "model", model, make_variables(model), jaxlm.ByteTokenizer())
    assert not list(tmp_path.iterdir())


@dataclass(frozen=True)
class TableLM:
    """A reader's own model: no Flax, no `init`."""

    vocab_size: int
    context_length: int = 1

    def apply(self, variables, contexts):
        return variables["table"][contexts[:, 0]]


def test_a_readers_own_model_is_saved_and_given_again(tmp_path):
    variables = {"table": jnp.arange(9.0).reshape(3, 3)}
    jaxlm.save_model(tmp_path / "own", TableLM(3), variables)
    model, loaded, _ = jaxlm.load_model(tmp_path / "own", model=TableLM(3))
    assert model == TableLM(3)
    assert_same(loaded, variables)
    with pytest.raises(ValueError, match="TableLM, which is not of this library: pass load_model"):
        jaxlm.load_model(tmp_path / "own")
    with pytest.raises(ValueError, match="vocab_size 3, not 4"):
        jaxlm.load_model(tmp_path / "own", model=TableLM(4))


def test_variables_of_another_model_are_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"\['params'\]\['embedding'\]\['embedding'\] is float32\[300, 4\]"):
        jaxlm.save_model(tmp_path / "model", jaxlm.NeuralBigramLM(300, 5), make_variables(MODELS[1]))
    assert not list(tmp_path.iterdir())


def test_variables_are_nested_dicts(tmp_path):
    with pytest.raises(TypeError, match="the key 0"):
        jaxlm.save_model(tmp_path / "model", TableLM(3), {0: jnp.zeros(3)})


@pytest.mark.parametrize(
    "variables",
    [[jnp.zeros(2)] * 2, (jnp.zeros(2), jnp.zeros(3)), {"a": {"b": [jnp.zeros(2)]}}, {}, {"a": {}}, None],
)
def test_variables_that_would_come_back_as_others_are_not_saved(variables, tmp_path):
    with pytest.raises(TypeError, match="nested dicts of arrays"):
        jaxlm.save_model(tmp_path / "model", TableLM(3), variables)
    assert not list(tmp_path.iterdir())


def test_a_readers_class_of_the_same_name_is_not_taken_for_the_librarys(tmp_path):
    class MLPLanguageModel(nn.Module):
        vocab_size: int
        context_length: int

        @nn.compact
        def __call__(self, contexts):
            return nn.Dense(self.vocab_size)(nn.one_hot(contexts[:, -1], self.vocab_size))

    model = MLPLanguageModel(4, 2)
    variables = jaxlm.init(model, jax.random.key(0))
    jaxlm.save_model(tmp_path / "own", model, variables)
    with pytest.raises(ValueError, match="MLPLanguageModel, which is not of this library"):
        jaxlm.load_model(tmp_path / "own")
    loaded, loaded_variables, _ = jaxlm.load_model(tmp_path / "own", model=model)
    assert loaded is model
    assert_same(loaded_variables, variables)


def test_a_disk_that_is_full_is_told_in_one_line(tmp_path, monkeypatch):
    def fail(self, path, *_):
        raise ValueError("RESOURCE: no space\n" + "specification\n" * 100)

    monkeypatch.setattr("orbax.checkpoint.PyTreeCheckpointer.save", fail)
    with pytest.raises(OSError, match=r"cannot save to .*model: RESOURCE: no space; free some space, or .* path$"):
        jaxlm.save_model(tmp_path / "model", MODELS[1], make_variables(MODELS[1]))
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_larger_than_the_model_is_not_saved(tmp_path):
    model = jaxlm.NeuralBigramLM(27, 2)
    with pytest.raises(ValueError, match="256 tokens, the model only vocab_size=27"):
        jaxlm.save_model(tmp_path / "model", model, make_variables(model), jaxlm.ByteTokenizer())


def test_nothing_at_the_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere holds no saved model"):
        jaxlm.load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "\x00\x01"], ids=["empty", "cut", "deep", "binary"])
def test_a_description_that_is_no_json(saved, content):
    path, _, _ = saved
    (path / "model.json").write_text(content)
    with pytest.raises(ValueError, match=r"model.json is damaged"):
        jaxlm.load_model(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version: 2"),
        ({"fields": {"vocab_size": 300}}, "model.json is damaged"),
        (
            {"fields": {"vocab_size": 300, "context_length": 3, "embedding_dim": -1, "hidden_dim": 5}},
            "embedding_dim",
        ),
        ({"fields": "x"}, "damaged"),
        ({"has_tokenizer": 1}, "damaged"),
        ({"vocab_size": 301}, "vocab_size 301, not 300"),
        ({"class": "os.system"}, "os.system, which is not of this library"),
        ({"of_jaxlm": False}, "which is not of this library"),
        ({"of_jaxlm": "yes"}, "damaged"),
    ],
)
def test_a_description_that_does_not_fit(saved, changes, message):
    path, _, _ = saved
    edit(path / "model.json", **changes)
    with pytest.raises(ValueError, match=message):
        jaxlm.load_model(path)


def test_arrays_of_another_shape_are_refused(saved):
    path, _, _ = saved
    fields = {"vocab_size": 300, "context_length": 3, "embedding_dim": 4, "hidden_dim": 6}
    edit(path / "model.json", fields=fields)
    with pytest.raises(
        ValueError, match=r"\['hidden'\]\['bias'\] is float32\[5\], MLPLanguageModel has float32\[6\]"
    ):
        jaxlm.load_model(path)


def test_missing_arrays_are_refused(saved):
    path, _, _ = saved
    shutil.rmtree(path / "variables")
    with pytest.raises(ValueError, match="variables is damaged"):
        jaxlm.load_model(path)


def test_a_saved_model_holds_only_json_and_arrays(saved):
    path, _, _ = saved
    assert sorted(entry.name for entry in path.iterdir()) == ["model.json", "tokenizer.json", "variables"]
    for file in path.rglob("*"):
        assert file.suffix not in {".py", ".pkl", ".pickle", ".so"}
