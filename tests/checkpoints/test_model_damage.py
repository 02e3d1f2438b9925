"""Refuse damaged and hostile model files, before anything large is allocated."""

import hashlib
import json
import os
import shutil
import tracemalloc

import jax
import numpy as np
import pytest
import safetensors.numpy
from checkpoint_files import MLP, assert_same_bits, flip_bytes, make_variables

import jaxlm
from jaxlm.text.tokenizer_files import tokenizer_to_json
from jaxlm.utils.json_files import add_checksum, verify_checksum

COUNTS = jaxlm.CountsBigramLM(300, smoothing=0.25)
SIZES = {"vocab_size": 300, "context_length": 3, "embedding_dim": 4, "hidden_dim": 5}
FIELDS = SIZES | {"dropout": 0.0, "direct_connections": False}  # of MLP


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "mlp.safetensors"
    jaxlm.save_model(path, MLP, make_variables(MLP), jaxlm.ByteTokenizer())
    return path


@pytest.fixture
def saved(original, tmp_path):
    """A copy of an MLP with its tokenizer, `mlp.safetensors`."""
    return shutil.copy(original, tmp_path / "mlp.safetensors")


def rewrite(path, change):
    """Change the tensors and the JSON document of a saved model, and correct all checksums."""
    tensors = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, "np") as file:
        document = verify_checksum(json.loads(file.metadata()["jaxlm"]), origin=path)
    change(tensors, document)
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype}{list(tensor.shape)}".encode() + tensor.tobytes())
    document["tensors_sha256"] = digest.hexdigest()
    path.write_bytes(safetensors.numpy.save(tensors, metadata={"jaxlm": add_checksum(document)}))


def test_load_model_missing_paths_and_other_kinds(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "empty"):
        with pytest.raises(FileNotFoundError, match=f"{name} is not a saved model"):
            jaxlm.load_model(tmp_path / name)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe"):
        jaxlm.load_model(tmp_path / "pipe")


def test_load_model_notices_damage_or_it_means_the_same(saved):
    content = saved.read_bytes()
    unnoticed = 0
    for _ in flip_bytes(saved, 20):
        try:
            model, variables, _ = jaxlm.load_model(saved)
        except ValueError:
            continue
        unnoticed += 1
        assert model == MLP
        assert_same_bits(variables, make_variables(MLP))
    assert unnoticed < 10  # whitespace of the JSON
    for length in (0, 1, 8, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"mlp\.safetensors"):
            jaxlm.load_model(saved)


HOSTILE_SPECS = [
    ({"version": 3}, "version 2"),
    ({"fields": {"vocab_size": 300}}, "the fields of MLPLanguageModel must be context_length"),
    *(({"fields": FIELDS | {"embedding_dim": size}}, "embedding_dim") for size in (-1, 4.0, "4", None)),
    ({"fields": FIELDS | {"embedding_dim": 2**70}}, "fields|cannot have|expected"),
    ({"fields": FIELDS | {"hidden_dim": 6}}, r"'params/hidden/bias' is float32\[5\], expected float32\[6\]"),
    *(({"fields": FIELDS | {"dropout": rate}}, "fields of MLPLanguageModel are invalid") for rate in (1.5, "x")),
    ({"fields": FIELDS | {"direct_connections": "x"}}, "fields of MLPLanguageModel are invalid"),
    *(({"fields": FIELDS | {name: "x"}}, "the fields of MLPLanguageModel must be") for name in ("name", "setup")),
    ({"fields": "x"}, "is not a record|fields"),
    ({"vocab_size": 301}, "has vocab_size 301, not 300"),
    ({"context_length": 4}, "has context_length 4, not 3"),
    ({"vocab_size": "300"}, "has vocab_size '300', not 300"),
    ({"class": "os.system"}, "'os.system' is not a model of this library"),
    ({"class": "\x1b[2J"}, r"'\\x1b\[2J' is not"),
    ({"class": "AddK", "fields": {"k": 1.0}}, "'AddK' is not"),
    ({"class": "NeuralBigramLM"}, "the fields of NeuralBigramLM"),
    ({"class": ["MLPLanguageModel"]}, "is not a model of this library"),
    ({"of_jaxlm": False}, "is not a model of this library"),
    ({"of_jaxlm": "yes"}, "has of_jaxlm 'yes', not True"),
]


@pytest.mark.parametrize(("changes", "message"), HOSTILE_SPECS, ids=str)
def test_load_model_refuses_a_hostile_spec(saved, changes, message):
    rewrite(saved, lambda _, document: document.update(changes))
    with pytest.raises(ValueError, match=rf"mlp.*{message}"):
        jaxlm.load_model(saved)


@pytest.mark.parametrize(
    ("model", "name", "value", "message"),
    [
        (COUNTS, "counts/table", -1, "contains -1; counts must be at least 0"),
        (MLP, "params/projection/kernel", -np.inf, "contains NaN or infinity"),
    ],
)
def test_save_and_load_model_refuse_impossible_numbers(model, name, value, message, tmp_path):
    variables = jax.tree.map(np.array, make_variables(model))
    jaxlm.save_model(path := tmp_path / "model.safetensors", model, variables)
    rewrite(path, lambda tensors, _: np.put(tensors[name], -1, value))
    with pytest.raises(ValueError, match=f"{path.name}: array '{name}' {message}"):
        jaxlm.load_model(path)
    leaves, structure = jax.tree.flatten(variables)
    leaves[-1].flat[-1] = value
    with pytest.raises(ValueError, match=f"array '{name}' {message}"):
        jaxlm.save_model(tmp_path / "bad", model, jax.tree.unflatten(structure, leaves))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (COUNTS, {"vocab_size": 10**9}),
        (COUNTS, {"vocab_size": 2**31}),
        (MLP, {"hidden_dim": 2**63}),
    ],
    ids=str,
)
def test_load_model_refuses_a_huge_model_without_allocating(model, fields, tmp_path):
    path = tmp_path / "model.safetensors"
    jaxlm.save_model(path, model, make_variables(model))

    def enlarge(_, document):
        document.update({name: size for name, size in fields.items() if name in document})
        document["fields"] |= fields

    rewrite(path, enlarge)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="model"):
            jaxlm.load_model(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def change_bias(change):
    return lambda tensors, _: tensors.update({"params/hidden/bias": change(tensors["params/hidden/bias"])})


def add_tensor(name):
    return lambda tensors, _: tensors.update({name: np.zeros(2, np.float32)})


LARGE = jaxlm.CharTokenizer.train("".join(map(chr, range(1000, 1301))))
HOSTILE_FILES = {
    "missing": (lambda tensors, _: tensors.pop("params/hidden/bias"), "'params/hidden/bias' is missing"),
    "added": (add_tensor("params/x"), "'params/x' is .*expected no array of that name"),
    "deep name": (add_tensor("a/" * 10**5), "the names of its arrays do not form a tree"),
    "dtype": (change_bias(lambda tensor: np.ones(5, np.int32)), r"is int32\[5\]"),
    "shape": (change_bias(lambda tensor: tensor[None]), r"is float32\[1, 5\]"),
    "tokenizer": (lambda _, document: document.update(tokenizer={"version": 2}), "checksum|sha256"),
    "large tokenizer": (
        lambda _, document: document.update(tokenizer=json.loads(tokenizer_to_json(LARGE))),
        "301 tokens, more than the model's vocab_size=300",
    ),
    "list as tokenizer": (lambda _, document: document.update(tokenizer=[]), "tokenizer"),
}


@pytest.mark.parametrize(("change", "message"), HOSTILE_FILES.values(), ids=HOSTILE_FILES)
def test_load_model_refuses_hostile_files(saved, change, message):
    rewrite(saved, lambda tensors, document: None)
    assert jaxlm.load_model(saved).model == MLP
    rewrite(saved, change)
    with pytest.raises(ValueError, match=rf"mlp\.safetensors.*{message}"):
        jaxlm.load_model(saved)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04K\x01.",  # a pickle
        safetensors.numpy.save({"a": np.zeros(2)}),  # of another program
        safetensors.numpy.save({"a": np.zeros(2)}, metadata={"jaxlm": "{"}),
        safetensors.numpy.save({"a": np.zeros(2)}, metadata={"jaxlm": "[]"}),
    ],
    ids=["pickle", "other", "no JSON", "list"],
)
def test_load_model_refuses_what_is_not_a_model_file(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=r"file (is not (a model file|a saved model|valid JSON)|is damaged)"):
        jaxlm.load_model(tmp_path / "file")


def test_load_model_names_the_command_for_an_arpa_file(tmp_path):
    (tmp_path / "model.arpa").write_text("\\data\\\n")
    with pytest.raises(ValueError, match=r"model\.arpa is an ARPA file; convert it with `jaxlm import`"):
        jaxlm.load_model(tmp_path / "model.arpa")
