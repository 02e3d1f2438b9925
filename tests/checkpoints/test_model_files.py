"""Saved models: what was saved comes back to the bit, and what is damaged is refused."""

import errno
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import linen as nn

import jaxlm
from jaxlm.checkpoints.model_spec import variables_from_arrays
from jaxlm.utils.checksums import add_checksum, file_checksums, verify_checksum

MODELS = [
    jaxlm.CountsBigramLM(300, smoothing=0.25),
    jaxlm.NeuralBigramLM(300, 4),
    jaxlm.MLPLanguageModel(300, 3, 4, 5),
]
OTHER_MLP = jaxlm.MLPLanguageModel(300, 3, 4, 5, dropout=0.5, direct_connections=True)
FIELDS = {"vocab_size": 300, "context_length": 3, "embedding_dim": 4, "hidden_dim": 5}  # of the last of them
NGRAMS = [
    jaxlm.CountsNgramLM(300, 1, jaxlm.AddK(0.5)),
    jaxlm.CountsNgramLM(300, 3),
    jaxlm.CountsNgramLM(300, 2, jaxlm.KneserNey(), table="sparse"),
    jaxlm.CountsNgramLM(300, 2, jaxlm.KneserNey(0.75)),
    jaxlm.CountsNgramLM(300, 0, jaxlm.WittenBell()),
]
MIXTURES = [
    jaxlm.MixtureLM((MODELS[0], NGRAMS[1], MODELS[2]), (0.5, 0.2, 0.3)),
    jaxlm.MixtureLM((jaxlm.MixtureLM((NGRAMS[2],), (1,)), MODELS[1]), (0.25, 0.75)),
]
each_model = pytest.mark.parametrize(
    "model",
    [*MODELS, OTHER_MLP, *NGRAMS, *MIXTURES],
    ids=lambda model: f"{type(model).__name__}-{model.context_length}",
)


def make_variables(model):
    if isinstance(model, jaxlm.MixtureLM):
        return tuple(map(make_variables, model.models))
    variables = jaxlm.init(model, jax.random.key(7))
    return model.fit(variables, np.arange(900) % 300) if hasattr(model, "fit") else variables


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
    """Changes fields of a sealed document, as someone would who knows how it is sealed."""
    document = verify_checksum(json.loads(path.read_text("utf-8")), origin=path)
    path.write_text(add_checksum(document | changes), "utf-8")


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


@pytest.mark.parametrize("broken", ["order", "range", "zero", "floats", "fewer", "name"])
def test_counts_that_are_none_of_the_models_are_refused(broken, tmp_path):
    """Which a file may hold that was made to."""
    model = NGRAMS[1]
    kept = {"ngrams": np.arange(4, dtype=np.int32)[None], "counts": np.ones(1, np.int32)}
    changes = {
        "order": {"ngrams": kept["ngrams"][:, 1:]},
        "range": {"ngrams": kept["ngrams"] + 297},
        "zero": {"counts": kept["counts"] - 1},
        "floats": {"counts": kept["counts"].astype(np.float32)},
        "fewer": {"counts": np.ones(2, np.int32)},
        "name": {"backoffs": kept["counts"]},
    }
    words = {
        "order": r"n-grams must be \[M, 4\] and their counts \[M\], got \[1, 3\] and \[1\]",
        "range": "300",
        "zero": "count must be at least 1, got 0",
        "floats": "must be integers, got int32 and float32",
        "fewer": r"got \[1, 4\] and \[2\]",
        "name": "there must be counts and ngrams, and no more",
    }
    with pytest.raises(ValueError, match=rf"^here: .*{words[broken]}"):
        variables_from_arrays(model, kept | changes[broken], "here")
    jax.block_until_ready(variables_from_arrays(model, kept, "here"))


def test_a_mixture_with_a_readers_own_model_needs_that_again(tmp_path):
    model = jaxlm.MixtureLM((TableLM(300), MODELS[1]), (0.5, 0.5))
    variables = ({"table": jnp.zeros((300, 300))}, make_variables(MODELS[1]))
    jaxlm.save_model(tmp_path / "mixture", model, variables)
    with pytest.raises(ValueError, match="'MixtureLM', which is not of this library: pass load_model"):
        jaxlm.load_model(tmp_path / "mixture")
    loaded, loaded_variables, _ = jaxlm.load_model(tmp_path / "mixture", model=model)
    assert loaded is model
    assert_same(loaded_variables, variables)


def test_variables_of_another_mixture_are_not_saved(tmp_path):
    with pytest.raises(ValueError, match="must be a tuple of those of its 3 models"):
        jaxlm.save_model(tmp_path / "mixture", MIXTURES[0], make_variables(MIXTURES[1]))
    with pytest.raises(TypeError, match="are not those of a CountsNgramLM"):
        jaxlm.save_model(tmp_path / "ngrams", NGRAMS[1], make_variables(MODELS[1]))
    assert not list(tmp_path.iterdir())


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


def test_every_file_is_on_the_disk_before_the_model_appears(tmp_path, monkeypatch):
    synced = set()

    def sync(path):
        if path != tmp_path:
            assert not (tmp_path / "model").exists()
            synced.add(path.name)

    monkeypatch.setattr("jaxlm.files.sync", sync)
    jaxlm.save_model(tmp_path / "model", MODELS[1], make_variables(MODELS[1]))
    assert {path.name for path in (tmp_path / "model").rglob("*")} <= synced


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
    with pytest.raises(ValueError, match="'TableLM', which is not of this library: pass load_model"):
        jaxlm.load_model(tmp_path / "own")
    with pytest.raises(ValueError, match="vocab_size 3, not 4"):
        jaxlm.load_model(tmp_path / "own", model=TableLM(4))


def test_variables_of_another_model_are_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"'params/embedding/embedding' is float32\[300, 4\]"):
        jaxlm.save_model(tmp_path / "model", jaxlm.NeuralBigramLM(300, 5), make_variables(MODELS[1]))
    assert not list(tmp_path.iterdir())


def test_variables_are_nested_dicts(tmp_path):
    with pytest.raises(TypeError, match="the key 0"):
        jaxlm.save_model(tmp_path / "model", TableLM(3), {0: jnp.zeros(3)})


@pytest.mark.parametrize(
    "variables",
    [
        [jnp.zeros(2)] * 2,
        (jnp.zeros(2), jnp.zeros(3)),
        {"a": {"b": [jnp.zeros(2)]}},
        {},
        {"a": {}},
        None,
        jnp.zeros(2),
    ],
    ids=str,
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
    with pytest.raises(ValueError, match="'MLPLanguageModel', which is not of this library"):
        jaxlm.load_model(tmp_path / "own")
    loaded, loaded_variables, _ = jaxlm.load_model(tmp_path / "own", model=model)
    assert loaded is model
    assert_same(loaded_variables, variables)


def test_a_disk_that_is_full_is_told_in_one_line(tmp_path, monkeypatch):
    def fail(self, path, *_):
        raise ValueError("RESOURCE: no space\n" + "specification\n" * 100)

    monkeypatch.setattr("orbax.checkpoint.Checkpointer.save", fail)
    with pytest.raises(OSError, match=r"^cannot save to .*: RESOURCE: no space; free some space, or .* path$"):
        jaxlm.save_model(tmp_path / "model", MODELS[1], make_variables(MODELS[1]))
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_larger_than_the_model_is_not_saved(tmp_path):
    model = jaxlm.NeuralBigramLM(27, 2)
    with pytest.raises(ValueError, match="256 tokens, the model only vocab_size=27"):
        jaxlm.save_model(tmp_path / "model", model, make_variables(model), jaxlm.ByteTokenizer())


def test_a_description_from_before_a_field_was_there_means_its_default(saved):
    path, model, variables = saved
    assert FIELDS.keys() < {"dropout", "direct_connections", *FIELDS}
    edit(path / "model.json", fields=FIELDS)
    loaded, found, _ = jaxlm.load_model(path)
    assert loaded == model == jaxlm.MLPLanguageModel(300, 3, 4, 5, dropout=0.0, direct_connections=False)
    with pytest.raises(ValueError, match="is of a model of fields"):
        jaxlm.load_model(path, model=jaxlm.MLPLanguageModel(300, 3, 4, 5, dropout=0.5))
    assert_same(found, variables)


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
        (
            {"version": 3},
            "saved model of version 2 .version: 3.; if it is a later one's, use the jaxlm that wrote it",
        ),
        ({"version": 1}, "version: 1"),
        (
            {"fields": {"vocab_size": 300}},
            "model.json is damaged: the fields of a MLPLanguageModel are context_length",
        ),
        ({"fields": FIELDS | {"embedding_dim": -1}}, "embedding_dim"),
        ({"fields": FIELDS | {"embedding_dim": 4.0}}, "embedding_dim"),
        ({"fields": FIELDS | {"embedding_dim": "4"}}, "embedding_dim"),
        ({"fields": FIELDS | {"embedding_dim": [4]}}, "embedding_dim"),
        ({"fields": FIELDS | {"embedding_dim": True}}, "embedding_dim"),
        ({"fields": FIELDS | {"embedding_dim": None}}, "embedding_dim"),
        ({"fields": FIELDS | {"embedding_dim": 2**70}}, "damaged|can be of that size|wanted is"),
        ({"fields": FIELDS | {"dropout": 1.5}}, "dropout must lie in"),
        ({"fields": FIELDS | {"dropout": "x"}}, "damaged"),
        ({"fields": FIELDS | {"dropout": [0.5]}}, "damaged"),
        ({"fields": FIELDS | {"direct_connections": "x"}}, "damaged"),
        ({"fields": FIELDS | {"direct_connections": None}}, "damaged"),
        ({"fields": FIELDS | {"name": "x"}}, "damaged: the fields"),
        ({"fields": FIELDS | {"parent": "x"}}, "damaged: the fields"),
        ({"fields": FIELDS | {"setup": "x"}}, "damaged: the fields"),
        ({"fields": "x"}, "damaged"),
        ({"fields": None}, "damaged"),
        ({"vocab_size": 301}, "vocab_size 301, not 300"),
        ({"vocab_size": "300"}, "damaged"),
        ({"context_length": 4}, "context_length 4, not 3"),
        ({"class": "os.system"}, "'os.system', which is not of this library"),
        ({"class": "\x1b[2J"}, r"'\\x1b\[2J', which is not of this library"),
        ({"class": "NeuralBigramLM"}, "damaged: the fields of a NeuralBigramLM"),
        ({"class": ["MLPLanguageModel"]}, "damaged"),
        ({"of_jaxlm": False}, "which is not of this library"),
        ({"of_jaxlm": "yes"}, "damaged"),
        ({"arrays": []}, "its index of arrays is malformed"),
        ({"files": {}}, "unexpected file"),
        ({"tokenizer_sha256": "0" * 64}, "it is not the tokenizer that was saved with the model"),
        ({"tokenizer_sha256": 0}, "it is not the tokenizer that was saved with the model"),
    ],
    ids=str,
)
def test_a_description_that_does_not_fit(saved, changes, message):
    path, _, _ = saved
    edit(path / "model.json", **changes)
    with pytest.raises(ValueError, match=message):
        jaxlm.load_model(path)


def test_arrays_of_another_shape_are_refused(saved):
    path, _, _ = saved
    edit(path / "model.json", fields=FIELDS | {"hidden_dim": 6})
    with pytest.raises(ValueError, match=r"'params/hidden/bias' is float32\[5\], wanted is float32\[6\]"):
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


# Damage.


def files_of(path):
    return sorted(each for each in path.rglob("*") if each.is_file())


def assert_refused(load, path, harm):
    with pytest.raises(ValueError, match=path.name):  # noqa: PT012
        load(path)
        pytest.fail(f"{harm} went unnoticed")


def is_space(file, position):
    """Whether the byte may be another without a change of meaning: JSON can be spaced in any way."""
    return file.name == "model.json" and bytes([file.read_bytes()[position]]).isspace()


def test_a_file_cut_at_any_tenth_of_its_length_is_noticed(saved):
    path, _, variables = saved
    for file in files_of(path):
        content = file.read_bytes()
        for length in sorted({len(content) * tenth // 10 for tenth in range(10)}):
            file.write_bytes(content[:length])
            assert_refused(jaxlm.load_model, path, f"{file.name} cut to {length} bytes")
        file.write_bytes(content)
    assert_same(jaxlm.load_model(path)[1], variables)


def test_one_changed_byte_is_noticed_wherever_it_is(saved):
    path, _, _ = saved
    for file in files_of(path):
        content = file.read_bytes()
        for position in sorted({len(content) * part // 12 for part in range(12)} | {len(content) - 1}):
            if is_space(file, position):
                continue
            changed = bytearray(content)
            changed[position] ^= 1 << position % 8
            file.write_bytes(changed)
            assert_refused(jaxlm.load_model, path, f"a changed byte {position} of {file.name}")
            file.write_bytes(content)


def test_a_missing_file_is_noticed(saved):
    path, _, _ = saved
    for file in files_of(path):
        hidden = path.parent / "hidden"
        file.rename(hidden)
        with pytest.raises((ValueError, FileNotFoundError), match=r"is missing|tokenizer\.json is damaged"):
            jaxlm.load_model(path)
        hidden.rename(file)


def test_a_link_a_pipe_or_a_folder_in_the_place_of_a_file_is_refused(saved):
    path, _, _ = saved
    for file in [*files_of(path), path / "variables" / "000001", path / "variables"]:
        moved = path.parent / "moved"
        file.rename(moved)
        file.symlink_to(moved)
        assert_refused(jaxlm.load_model, path, f"{file.name}, a link,")
        file.unlink()
        os.mkfifo(file)
        assert_refused(jaxlm.load_model, path, f"{file.name}, a pipe,")
        file.unlink()
        file.mkdir()
        with pytest.raises((ValueError, IsADirectoryError)):
            jaxlm.load_model(path)
        file.rmdir()
        moved.rename(file)
    jaxlm.load_model(path)


def test_a_model_is_reached_through_a_link_to_its_folder(saved, tmp_path):
    path, model, variables = saved
    (tmp_path / "link").symlink_to(path)
    loaded, loaded_variables, _ = jaxlm.load_model(tmp_path / "link")
    assert loaded == model
    assert_same(loaded_variables, variables)


def test_the_tokenizer_of_another_model_is_refused(saved):
    path, _, _ = saved
    jaxlm.CharTokenizer.train("another").save(path / "tokenizer.json")
    with pytest.raises(ValueError, match="it is not the tokenizer that was saved with the model"):
        jaxlm.load_model(path)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 100_000, b"\xff", b'{"version": 2, "sha256": ""}'], ids=str
)
def test_a_tokenizer_whose_sum_is_right_is_checked_too(saved, content):
    path, _, _ = saved
    (path / "tokenizer.json").write_bytes(content)
    edit(path / "model.json", tokenizer_sha256=sha256(content))
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        jaxlm.load_model(path)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_a_tokenizer_of_more_tokens_than_the_model_is_refused(tmp_path):
    model = jaxlm.NeuralBigramLM(5, 2)
    jaxlm.save_model(tmp_path / "model", model, make_variables(model), jaxlm.CharTokenizer.train("abcde"))
    path = tmp_path / "model" / "tokenizer.json"
    jaxlm.CharTokenizer.train("abcdef").save(path)
    edit(tmp_path / "model" / "model.json", tokenizer_sha256=sha256(path.read_bytes()))
    with pytest.raises(ValueError, match="model: the tokenizer has 6 tokens, the model only vocab_size=5"):
        jaxlm.load_model(tmp_path / "model")


# Numbers that no model has.


def poisoned(variables, value):
    """The variables with one element of their last array changed."""
    leaves, structure = jax.tree.flatten(jax.tree.map(np.array, variables))
    leaves[-1].flat[-1] = value
    return jax.tree.unflatten(structure, leaves)


@pytest.mark.parametrize(
    ("model", "value", "message"),
    [
        (MODELS[0], -1, "array 'counts/table' holds the count -1, below 0"),
        (MODELS[1], np.nan, "array 'params/projection/kernel' holds NaN or infinity"),
        (MODELS[2], np.inf, "array 'params/projection/kernel' holds NaN or infinity"),
        (MODELS[2], -np.inf, "array 'params/projection/kernel' holds NaN or infinity"),
    ],
)
def test_impossible_numbers_are_neither_saved_nor_loaded(model, value, message, tmp_path):
    variables = make_variables(model)
    bad = poisoned(variables, value)
    for save in (jaxlm.save_model, jaxlm.export_model):
        with pytest.raises(ValueError, match=f"variables: {message}"):
            save(tmp_path / "bad", model, bad)
    assert not list(tmp_path.iterdir())

    path = tmp_path / "model"
    jaxlm.save_model(path, model, variables)
    files = sorted(path.glob("variables/*/0*"))
    bad_leaf = np.asarray(jax.tree.leaves(bad)[-1])
    files[-1].write_bytes(bad_leaf.tobytes())
    edit(path / "model.json", files=file_checksums(path / "variables"))
    with pytest.raises(ValueError, match=f"model: {message}"):
        jaxlm.load_model(path)


def test_params_of_another_dtype_are_refused(tmp_path):
    for dtype in (jnp.float16, jnp.bfloat16, jnp.int32):
        variables = jax.tree.map(lambda leaf: leaf.astype(dtype), make_variables(MODELS[1]))  # noqa: B023
        with pytest.raises(ValueError, match=rf"is {jnp.dtype(dtype)}\[300, 4\], wanted is float32\[300, 4\]"):
            jaxlm.save_model(tmp_path / "model", MODELS[1], variables)


def test_numbers_that_jax_would_round_are_refused(tmp_path):
    variables = {"table": np.arange(9.0).reshape(3, 3)}
    with pytest.raises(ValueError, match="array 'table' is float64, which JAX rounds; set jax_enable_x64"):
        jaxlm.save_model(tmp_path / "own", TableLM(3), variables)
    with pytest.raises(ValueError, match="array 'table' is int64"):
        jaxlm.export_model(tmp_path / "own", TableLM(3), {"table": np.full((3, 3), 2**40)})


# Sizes that no memory holds.


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (MODELS[0], {"vocab_size": 10**9}),
        (MODELS[0], {"vocab_size": 2**31}),
        (MODELS[1], {"vocab_size": 10**9}),
        (MODELS[1], {"embedding_dim": 10**12}),
        (MODELS[2], {"vocab_size": 10**9}),
        (MODELS[2], {"context_length": 10**9}),
        (MODELS[2], {"hidden_dim": 2**63}),
        (MODELS[2], {"hidden_dim": 10**30}),
    ],
    ids=str,
)
@pytest.mark.parametrize("are_arrays_declared", [False, True])
def test_a_huge_model_is_refused_before_memory_is_taken_for_it(model, fields, are_arrays_declared, tmp_path):
    path = tmp_path / "model"
    jaxlm.save_model(path, model, make_variables(model))
    document = json.loads((path / "model.json").read_text("utf-8"))
    changes = {"fields": document["fields"] | fields, **{k: v for k, v in fields.items() if k in document}}
    if are_arrays_declared:
        small_to_huge = {document["fields"][name]: size for name, size in fields.items()}
        changes["arrays"] = [
            each | {"shape": [small_to_huge.get(size, size) for size in each["shape"]]}
            for each in document["arrays"]
        ]
    edit(path / "model.json", **changes)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"is damaged|wanted is|can be of that size"):
            jaxlm.load_model(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


# A reader's own variables.


@dataclass(frozen=True)
class AnyLM:
    """A model whose variables may be anything."""

    vocab_size: int = 2
    context_length: int = 1
    notes: Any = None

    def apply(self, variables, contexts):
        return jnp.zeros((len(contexts), 2))


OWN = {
    "a scalar": {"a": jnp.float32(2.5)},
    "numbers of Python": {"a": 2.5, "b": 3, "c": True},
    "bfloat16": {"a": {"b": jnp.ones((2, 3), jnp.bfloat16)}},
    "bool": {"a": jnp.array([True, False])},
    "no finite numbers": {"a": jnp.array([jnp.nan, jnp.inf])},
    "names that lead elsewhere": {
        "..": {"..": {"evil": jnp.zeros(2)}},
        "a.b": jnp.zeros(1),
        "C:\\x": jnp.zeros(1),
    },
    "strided": {"a": np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]},
}
each_own = pytest.mark.parametrize("variables", OWN.values(), ids=OWN)


@each_own
def test_any_nested_dicts_of_arrays_come_back_from_a_folder(variables, tmp_path):
    jaxlm.save_model(tmp_path / "own", AnyLM(), variables)
    assert [path.name for path in tmp_path.iterdir()] == ["own"]
    _, loaded, _ = jaxlm.load_model(tmp_path / "own", model=AnyLM())
    assert_same(loaded, jax.tree.map(jnp.asarray, variables))


@each_own
def test_any_nested_dicts_of_arrays_come_back_from_a_file(variables, tmp_path):
    path = tmp_path / "own.safetensors"
    jaxlm.export_model(path, AnyLM(), variables)
    _, loaded, _ = jaxlm.import_model(path, model=AnyLM())
    assert_same(loaded, jax.tree.map(jnp.asarray, variables))


@pytest.mark.parametrize("save", [jaxlm.save_model, jaxlm.export_model])
def test_what_would_not_come_back_is_not_saved(save, tmp_path):
    deep = jnp.zeros(2)
    for _ in range(101):
        deep = {"a": deep}
    for variables in ({"a/b": jnp.zeros(2)}, {"": jnp.zeros(2)}, jnp.zeros(2), deep, {"a": jax.random.key(0)}):
        with pytest.raises(TypeError):
            save(tmp_path / "own", AnyLM(), variables)
    assert not list(tmp_path.iterdir())


def test_a_models_other_fields_are_compared_too(tmp_path):
    jaxlm.save_model(tmp_path / "own", AnyLM(notes="first"), {"a": jnp.zeros(2)})
    with pytest.raises(ValueError, match=r"of a model of fields \{.*'first'.*\}, not \{.*'second'"):
        jaxlm.load_model(tmp_path / "own", model=AnyLM(notes="second"))


# A disk that takes no more.


@pytest.mark.parametrize(
    "seam",
    [
        "orbax.checkpoint.Checkpointer.save",
        "jaxlm.saved_models.write_atomically",
        "os.fsync",
        "pathlib.Path.rename",
    ],
)
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, seam):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patches:
        patches.setattr(seam, full)
        with pytest.raises(
            OSError, match=r"^cannot save to .*/model: .*No space left on device.*; free some space"
        ):
            jaxlm.save_model(tmp_path / "model", MODELS[1], make_variables(MODELS[1]))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_the_file_that_was_exported_before(exported, monkeypatch):
    path, model, variables = exported
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*mlp\.safetensors'"):
        jaxlm.export_model(path, model, variables, overwrite=True)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


# One file.


@pytest.fixture
def exported(tmp_path):
    """An exported MLP with a tokenizer: its file, the model, the variables."""
    model = MODELS[2]
    variables = make_variables(model)
    jaxlm.export_model(tmp_path / "mlp.safetensors", model, variables, jaxlm.ByteTokenizer())
    return tmp_path / "mlp.safetensors", model, variables


@each_model
def test_an_exported_model_comes_back_to_the_bit(model, tmp_path):
    variables = make_variables(model)
    tokenizer = jaxlm.BPETokenizer.train("the cat sat on the mat", 262)
    jaxlm.export_model(tmp_path / "model.safetensors", model, variables, tokenizer)
    loaded, loaded_variables, loaded_tokenizer = jaxlm.import_model(tmp_path / "model.safetensors")
    assert loaded == model
    assert_same(loaded_variables, variables)
    assert loaded_tokenizer == tokenizer
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_file_and_a_folder_give_each_other(saved, tmp_path):
    path, model, variables = saved
    jaxlm.export_model(tmp_path / "file", *jaxlm.load_model(path))
    jaxlm.save_model(tmp_path / "again", *jaxlm.import_model(str(tmp_path / "file")))
    loaded, loaded_variables, tokenizer = jaxlm.load_model(tmp_path / "again")
    assert loaded == model
    assert_same(loaded_variables, variables)
    assert tokenizer == jaxlm.ByteTokenizer()


def test_other_programs_read_the_file_by_the_names_of_its_tensors(exported):
    path, _, variables = exported
    tensors = safetensors.numpy.load_file(path)
    assert sorted(tensors) == [
        "params/embedding/embedding",
        "params/hidden/bias",
        "params/hidden/kernel",
        "params/projection/bias",
        "params/projection/kernel",
    ]
    np.testing.assert_array_equal(tensors["params/hidden/kernel"], variables["params"]["hidden"]["kernel"])


def test_exporting_the_same_twice_gives_the_same_bytes(exported, tmp_path):
    path, model, variables = exported
    jaxlm.export_model(tmp_path / "again", model, variables, jaxlm.ByteTokenizer())
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_an_exported_file_is_replaced_only_on_demand(exported):
    path, _, variables = exported
    with pytest.raises(FileExistsError, match=r"mlp\.safetensors exists; .* replace it with --overwrite"):
        jaxlm.export_model(path, MODELS[1], make_variables(MODELS[1]))
    assert_same(jaxlm.import_model(path)[1], variables)
    jaxlm.export_model(path, MODELS[1], make_variables(MODELS[1]), overwrite=True)
    assert jaxlm.import_model(path)[0] == MODELS[1]


def test_there_may_be_no_file_or_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        jaxlm.import_model(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError):
        jaxlm.import_model(tmp_path)


def test_a_pipe_is_no_exported_model(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is a pipe or a device"):
        jaxlm.import_model(tmp_path / "pipe")


def test_an_exported_file_cut_anywhere_is_refused(exported):
    path, _, _ = exported
    content = path.read_bytes()
    for length in sorted({len(content) * tenth // 10 for tenth in range(10)} | {0, 1, 7, 8, 9, len(content) - 1}):
        path.write_bytes(content[:length])
        assert_refused(jaxlm.import_model, path, f"a file cut to {length} bytes")


def test_one_changed_byte_of_an_exported_file_is_noticed_or_means_the_same(exported):
    path, model, variables = exported
    content = path.read_bytes()
    header_length = struct.unpack("<Q", content[:8])[0]
    positions = np.unique(
        np.r_[:8, np.linspace(8, 8 + header_length, 60), np.linspace(8 + header_length, len(content) - 1, 60)]
    )
    unnoticed = 0
    for position in positions.astype(int):
        changed = bytearray(content)
        changed[position] ^= 1 << int(position) % 8
        path.write_bytes(changed)
        try:
            loaded, loaded_variables, _ = jaxlm.import_model(path)
        except ValueError:
            continue
        unnoticed += 1
        assert loaded == model
        assert_same(loaded_variables, variables)
    assert unnoticed < 10  # spaces of the JSON


def write_tensors(path, document, tensors):
    path.write_bytes(safetensors.numpy.save(tensors, metadata={"jaxlm": document}))


def tampered(path, change):
    """The file with its tensors, a dict, changed, and all its sums right again."""
    tensors = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, "np") as file:
        document = verify_checksum(json.loads(file.metadata()["jaxlm"]), origin=path)
    change(tensors, document)
    document["tensors_sha256"] = sum_of(tensors)
    write_tensors(path, add_checksum(document), tensors)


def sum_of(tensors):
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype}{list(tensor.shape)}".encode() + tensor.tobytes())
    return digest.hexdigest()


def change_tensor(name, make):
    return lambda tensors, _: tensors.update({name: make(tensors[name])})


TAMPERED = {
    "a later version": (lambda _, document: document.update(version=3), "version: 3"),
    "a class not known": (
        lambda _, document: document.update({"class": "x"}),
        "'x', which is not of this library",
    ),
    "a huge model": (lambda _, document: document.update(fields=FIELDS | {"hidden_dim": 10**9}), "wanted is"),
    "a tensor missing": (lambda tensors, _: tensors.pop("params/hidden/bias"), "'params/hidden/bias' is missing"),
    "a tensor too many": (
        lambda tensors, _: tensors.update({"params/x": np.zeros(2, np.float32)}),
        "'params/x' is .*wanted is none of that name",
    ),
    "a name that leads elsewhere": (
        lambda tensors, _: tensors.update({"../../evil": np.zeros(2, np.float32)}),
        "'../../evil' is .*wanted is none of that name",
    ),
    "a name below an array": (
        lambda tensors, _: tensors.update({"params/hidden/bias/x": np.zeros(2, np.float32)}),
        "the names of its arrays are no tree",
    ),
    "a deep name": (lambda tensors, _: tensors.update({"a/" * 10**5: np.zeros(2, np.float32)}), "are no tree"),
    "another dtype": (
        change_tensor("params/hidden/bias", lambda tensor: tensor.astype(np.int32)),
        r"is int32\[5\]",
    ),
    "another shape": (change_tensor("params/hidden/bias", lambda tensor: tensor[None]), r"is float32\[1, 5\]"),
    "an empty tensor": (change_tensor("params/hidden/bias", lambda tensor: tensor[:0]), r"is float32\[0\]"),
    "NaN": (change_tensor("params/hidden/bias", lambda tensor: tensor * np.nan), "'params/hidden/bias' holds NaN"),
    "no tokenizer": (lambda _, document: document.update(tokenizer={"version": 2}), "it has no sha256"),
    "a list as tokenizer": (lambda _, document: document.update(tokenizer=[]), "not a tokenizer's file"),
}


@pytest.mark.parametrize(("change", "message"), TAMPERED.values(), ids=TAMPERED)
def test_a_file_with_right_sums_that_does_not_fit_is_refused(exported, change, message):
    path, _, _ = exported
    tampered(path, change)
    with pytest.raises(ValueError, match=rf"mlp\.safetensors.*{message}"):
        jaxlm.import_model(path)


def test_what_a_tampered_file_starts_from_is_imported(exported):
    path, model, variables = exported
    tampered(path, lambda tensors, document: None)
    loaded, loaded_variables, _ = jaxlm.import_model(path)
    assert loaded == model
    assert_same(loaded_variables, variables)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"{", "it is not valid JSON"),
        (b"[" * 100_000, "it is not valid JSON"),
        (b"{}", "not a saved model of version 2"),
        (b"[]", "not a saved model of version 2"),
    ],
    ids=["cut", "deep", "empty", "a list"],
)
def test_metadata_that_are_no_description_are_refused(exported, document, message):
    path, _, _ = exported
    write_tensors(path, document.decode(), {"a": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match=rf"mlp\.safetensors.*{message}"):
        jaxlm.import_model(path)


def test_a_safetensors_file_of_another_program_is_told_so(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(2)}, path)
    with pytest.raises(ValueError, match="is no model that jaxlm exported"):
        jaxlm.import_model(path)


def header(document, length=None):
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04K\x01.",  # a pickle
        header({}, length=2**63),
        header(b"[" * 100_000),
        header({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}}) + b"0000",
        header({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}) + b"0000",
        header({"a": {"dtype": "O", "shape": [1], "data_offsets": [0, 4]}}) + b"0000",
        header({"__metadata__": {"jaxlm": 1}}),
    ],
    ids=["empty", "a pickle", "a long header", "deep", "an overflow", "huge", "backwards", "objects", "a number"],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.safetensors is"):
        jaxlm.import_model(path)


def test_variables_that_the_format_cannot_hold_are_refused(tmp_path):
    with pytest.raises(TypeError, match="safetensors cannot hold these variables"):
        jaxlm.export_model(tmp_path / "file", AnyLM(), {"a": jnp.zeros(2, jnp.int4)})
    assert not list(tmp_path.iterdir())


# A fresh process.


FRESH = """
import sys, time
import jax, orbax.checkpoint
import jaxlm.checkpoints.model_files
begin = time.process_time()  # a busy machine makes others wait
jaxlm.load_model(sys.argv[1])
print(time.process_time() - begin)
"""


@pytest.mark.slow
def test_a_model_is_there_within_a_second_of_a_fresh_process(tmp_path):
    text = " ".join(str(number) for number in range(30_000))
    tokenizer = jaxlm.BPETokenizer.train(text, 4096)
    model = jaxlm.MLPLanguageModel(4096, 3, 32, 64)
    jaxlm.save_model(tmp_path / "model", model, make_variables(model), tokenizer)
    done = subprocess.run(
        [sys.executable, "-c", FRESH, tmp_path / "model"], check=True, capture_output=True, text=True
    )
    assert float(done.stdout) < 1
