import hashlib
import json
import os
import resource
import shutil
import struct
import tracemalloc
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from checkpoint_files import assert_same_bits, edit_document, files_below, flip_bytes
from flax import linen as nn

import jaxlm
from jaxlm.utils.checksums import add_checksum, file_checksums, verify_checksum

COUNTS = jaxlm.CountsBigramLM(300, smoothing=0.25)
BIGRAM = jaxlm.NeuralBigramLM(300, 4)
MLP = jaxlm.MLPLanguageModel(300, 3, 4, 5)
FIELDS = {"vocab_size": 300, "context_length": 3, "embedding_dim": 4, "hidden_dim": 5}  # of MLP
SPARSE = jaxlm.CountsNgramLM(300, 2, jaxlm.KneserNey(), table="sparse")
MODELS = [
    COUNTS,
    BIGRAM,
    MLP,
    jaxlm.MLPLanguageModel(300, 3, 4, 5, dropout=0.5, direct_connections=True),
    jaxlm.CountsNgramLM(np.int64(300), 1, jaxlm.AddK(0.5)),
    jaxlm.CountsNgramLM(300, 3),
    SPARSE,
    jaxlm.CountsNgramLM(300, 2, jaxlm.KneserNey(0.75)),
    jaxlm.CountsNgramLM(300, 0, jaxlm.WittenBell()),
    jaxlm.MixtureLM((COUNTS, SPARSE, MLP), (0.5, 0.2, 0.3)),
    jaxlm.MixtureLM((jaxlm.MixtureLM((SPARSE,), (1,)), BIGRAM), (0.25, 0.75)),
]


@dataclass(frozen=True)
class OwnLM:
    """A user's own model, not a Flax module, with any variables."""

    vocab_size: int = 3
    context_length: int = 1
    notes: Any = None

    def apply(self, variables, contexts):
        return jnp.zeros((len(contexts), self.vocab_size))


def make_variables(model):
    if isinstance(model, jaxlm.MixtureLM):
        return tuple(map(make_variables, model.models))
    if isinstance(model, OwnLM):
        return {"table": jnp.arange(9.0).reshape(3, 3)}
    if hasattr(model, "fit"):
        return model.fit(jaxlm.init(model, jax.random.key(0)), np.arange(900) % 300)
    random, like = np.random.default_rng(7), jax.eval_shape(lambda: jaxlm.init(model, jax.random.key(0)))
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), like)


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    """Directory with an MLP and its tokenizer, saved as `mlp` and exported as `mlp.safetensors`."""
    path = tmp_path_factory.mktemp("originals")
    jaxlm.save_model(path / "mlp", MLP, make_variables(MLP), jaxlm.ByteTokenizer())
    jaxlm.export_model(path / "mlp.safetensors", MLP, make_variables(MLP), jaxlm.ByteTokenizer())
    return path


@pytest.fixture
def saved(originals, tmp_path):
    return shutil.copytree(originals / "mlp", tmp_path / "mlp")


@pytest.fixture
def exported(originals, tmp_path):
    return shutil.copy(originals / "mlp.safetensors", tmp_path / "mlp.safetensors")


BOTH_FORMATS = pytest.mark.parametrize(
    ("save", "load"),
    [(jaxlm.save_model, jaxlm.load_model), (jaxlm.export_model, jaxlm.import_model)],
    ids=["directory", "file"],
)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{type(model).__name__}-{model.context_length}")
def test_save_and_export_round_trip(model, tmp_path):
    variables = make_variables(model)
    tokenizer = jaxlm.BPETokenizer.train("the cat sat on the mat", 262)
    jaxlm.save_model(tmp_path / "a" / "b", model, variables, tokenizer)
    loaded = jaxlm.load_model((tmp_path / "a" / "b").rename(tmp_path / "moved"))
    jaxlm.export_model(tmp_path / "file", *loaded)
    for loaded_model, loaded_variables, loaded_tokenizer in (loaded, jaxlm.import_model(str(tmp_path / "file"))):
        assert loaded_model == model
        assert loaded_tokenizer == tokenizer
        assert_same_bits(loaded_variables, variables)
    jaxlm.export_model(tmp_path / "again", model, variables, tokenizer)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "file").read_bytes()


@BOTH_FORMATS
def test_save_model_of_a_user_needs_it_again_to_load(save, load, tmp_path):
    save(tmp_path / "own", OwnLM(notes="a"), make_variables(OwnLM()))
    model, variables, tokenizer = load(tmp_path / "own", model=OwnLM(notes="a"))
    assert tokenizer is None
    assert_same_bits(variables, make_variables(model))
    with pytest.raises(ValueError, match=r"'OwnLM' is not a model of this library; pass your own: load_model\("):
        load(tmp_path / "own")
    for other, message in [
        (OwnLM(vocab_size=4, notes="a"), "has vocab_size 3, not 4"),
        (OwnLM(notes="b"), r"has fields \{.*'a'.*\}, not \{.*'b'"),
    ]:
        with pytest.raises(ValueError, match=message):
            load(tmp_path / "own", model=other)


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
        ("MixtureLM", mixture, (make_variables(OwnLM()), make_variables(BIGRAM))),
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
    "not finite": {"a": jnp.array([jnp.nan, jnp.inf])},
    "names": {"..": {"..": {"evil": jnp.zeros(2)}}, "a.b": jnp.zeros(1), "C:\\x": jnp.zeros(1)},
    "strided": {"a": np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]},
}


@BOTH_FORMATS
@pytest.mark.parametrize("variables", OWN_VARIABLES.values(), ids=OWN_VARIABLES)
def test_save_model_round_trip_of_any_variables(variables, save, load, tmp_path):
    save(tmp_path / "own", OwnLM(), variables)
    assert [path.name for path in tmp_path.iterdir()] == ["own"]
    assert_same_bits(load(tmp_path / "own", model=OwnLM())[1], jax.tree.map(jnp.asarray, variables))


def nest(depth):
    tree = jnp.zeros(2)
    for _ in range(depth):
        tree = {"a": tree}
    return tree


UNFIT = [
    *([jnp.zeros(2)] * 2, (jnp.zeros(2), jnp.zeros(3))),
    *({"a": {"b": [jnp.zeros(2)]}}, {}, {"a": {}}, None, jnp.zeros(2), nest(101)),
    *({0: jnp.zeros(3)}, {"a/b": jnp.zeros(2)}, {"": jnp.zeros(2)}, {"a": jax.random.key(0)}),
]


@BOTH_FORMATS
def test_save_model_refuses_other_containers_keys_and_leaves(save, load, tmp_path):
    for variables in UNFIT:
        with pytest.raises(TypeError, match=r"variables|array"):
            save(tmp_path / "own", OwnLM(), variables)
    assert not list(tmp_path.iterdir())
    save(tmp_path / "own", OwnLM(), nest(100))
    assert_same_bits(load(tmp_path / "own", model=OwnLM())[1], nest(100))


@BOTH_FORMATS
def test_save_model_refuses_the_variables_of_another_model(save, load, tmp_path):
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), make_variables(BIGRAM))
    for model, variables, error, message in [
        (jaxlm.NeuralBigramLM(300, 5), make_variables(BIGRAM), ValueError, r"embedding' is float32\[300, 4\]"),
        (BIGRAM, halves, ValueError, r"is float16\[300, 4\], expected float32\[300, 4\]"),
        (MODELS[-2], make_variables(MODELS[-1]), ValueError, "MixtureLM"),
        (SPARSE, make_variables(BIGRAM), TypeError, "not those of a CountsNgramLM"),
    ]:
        with pytest.raises(error, match=message):
            save(tmp_path / "model", model, variables)
    small = jaxlm.NeuralBigramLM(27, 2)
    with pytest.raises(ValueError, match="256 tokens, more than the model's vocab_size=27"):
        save(tmp_path / "model", small, make_variables(small), jaxlm.ByteTokenizer())
    assert not list(tmp_path.iterdir())


@pytest.fixture
def x64():
    """Call it to enable 64-bit numbers; the end of the test disables them."""
    yield lambda: jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_enable_x64", False)


@BOTH_FORMATS
def test_save_model_of_64_bits_needs_x64(save, load, x64, tmp_path):
    variables = {"table": np.full((3, 3), 2.0**40 + 0.1), "count": np.int64(2**40)}
    with pytest.raises(ValueError, match=r"is (float|int)64, which JAX narrows; set jax_enable_x64"):
        save(tmp_path / "own", OwnLM(), variables)
    x64()
    save(tmp_path / "own", OwnLM(), variables)
    assert_same_bits(load(tmp_path / "own", model=OwnLM())[1], variables)
    jax.config.update("jax_enable_x64", False)
    with pytest.raises(ValueError, match=r"is (float|int)64, which JAX narrows; set jax_enable_x64"):
        load(tmp_path / "own", model=OwnLM())


@pytest.mark.parametrize(
    ("model", "value", "message"),
    [
        (COUNTS, -1, "array 'counts/table' contains -1; counts must be at least 0"),
        (BIGRAM, np.nan, "array 'params/projection/kernel' contains NaN or infinity"),
        (MLP, -np.inf, "array 'params/projection/kernel' contains NaN or infinity"),
    ],
)
def test_save_and_load_model_refuse_impossible_numbers(model, value, message, tmp_path):
    variables = make_variables(model)
    leaves, structure = jax.tree.flatten(jax.tree.map(np.array, variables))
    leaves[-1].flat[-1] = value
    for save in (jaxlm.save_model, jaxlm.export_model):
        with pytest.raises(ValueError, match=message):
            save(tmp_path / "bad", model, jax.tree.unflatten(structure, leaves))
    assert not list(tmp_path.iterdir())

    path = tmp_path / "model"
    jaxlm.save_model(path, model, variables)
    sorted(path.glob("variables/*/0*"))[-1].write_bytes(leaves[-1].tobytes())
    edit_document(path / "model.json", files=file_checksums(path / "variables"))
    with pytest.raises(ValueError, match=f"model: {message}"):
        jaxlm.load_model(path)


def test_save_and_export_overwrite_only_on_request(saved, exported):
    with pytest.raises(FileExistsError, match="mlp exists"):
        jaxlm.save_model(saved, BIGRAM, make_variables(BIGRAM))
    with pytest.raises(FileExistsError, match=r"mlp\.safetensors exists; .* --overwrite"):
        jaxlm.export_model(exported, BIGRAM, make_variables(BIGRAM))
    assert jaxlm.load_model(saved)[0] == jaxlm.import_model(exported)[0] == MLP
    jaxlm.export_model(exported, BIGRAM, make_variables(BIGRAM), overwrite=True)
    assert jaxlm.import_model(exported)[0] == BIGRAM


def test_save_model_syncs_all_before_the_directory_appears(tmp_path, monkeypatch):
    path, synced, fsync = tmp_path / "model", set(), os.fsync

    def record_fsync(descriptor):
        if not path.exists():
            synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record_fsync)
    jaxlm.save_model(path, BIGRAM, make_variables(BIGRAM), jaxlm.ByteTokenizer())
    assert {each.stat().st_ino for each in (path, *path.rglob("*"))} <= synced


def test_save_and_export_on_a_full_disk_change_nothing(exported, tmp_path, monkeypatch):
    before, usage, variables = exported.read_bytes(), shutil.disk_usage(tmp_path), make_variables(BIGRAM)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=70))
    with pytest.raises(OSError, match=r"^cannot save to .*No space left on device.*; free some space"):
        jaxlm.save_model(tmp_path / "model", BIGRAM, variables)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match=r"too large.*mlp\.safetensors"):
            jaxlm.export_model(exported, BIGRAM, variables, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [exported]
    assert exported.read_bytes() == before


def test_load_model_missing_paths_and_other_kinds(saved, exported, tmp_path):
    for path in (tmp_path / "nowhere", exported):
        with pytest.raises(FileNotFoundError, match=f"{path.name} is not a saved model"):
            jaxlm.load_model(path)
    os.mkfifo(tmp_path / "pipe")
    for name, error in [("nowhere", FileNotFoundError), ("mlp", IsADirectoryError), ("pipe", ValueError)]:
        with pytest.raises(error, match=name):
            jaxlm.import_model(tmp_path / name)


def test_load_model_refuses_damage(saved):
    count = 0
    for file in files_below(saved):
        for _ in flip_bytes(file, 4):
            with pytest.raises(ValueError, match=saved.name):
                jaxlm.load_model(saved)
            count += 1
        if file.name != "model.json":
            moved = file.rename(saved.parent / "moved")
            for link in (False, True):
                if link:
                    file.symlink_to(moved)
                with pytest.raises(ValueError, match=saved.name):
                    jaxlm.load_model(saved)
            moved.replace(file)
    assert count > 40
    loaded = jaxlm.load_model(saved)
    assert_same_bits(loaded[1], make_variables(MLP))
    description = (saved / "model.json").read_text()
    for name, value in (("arrays", []), ("files", {}), ("tokenizer_sha256", "0" * 64), ("tokenizer_sha256", 0)):
        edit_document(saved / "model.json", **{name: value})
        with pytest.raises(ValueError, match="mlp"):
            jaxlm.load_model(saved)
        (saved / "model.json").write_text(description)


def test_import_model_notices_damage_or_it_means_the_same(exported):
    content = exported.read_bytes()
    unnoticed = 0
    for _ in flip_bytes(exported, 150):
        try:
            model, variables, _ = jaxlm.import_model(exported)
        except ValueError:
            continue
        unnoticed += 1
        assert model == MLP
        assert_same_bits(variables, make_variables(MLP))
    assert unnoticed < 10  # whitespace of the JSON
    for length in (0, 1, 8, len(content) // 2, len(content) - 1):
        exported.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"mlp\.safetensors"):
            jaxlm.import_model(exported)


def test_load_model_fills_fields_that_older_versions_lacked(saved):
    edit_document(saved / "model.json", fields=FIELDS)
    loaded, variables, _ = jaxlm.load_model(saved)
    assert loaded == MLP
    assert (loaded.dropout, loaded.direct_connections) == (0.0, False)
    assert_same_bits(variables, make_variables(MLP))
    with pytest.raises(ValueError, match="the saved model has fields"):
        jaxlm.load_model(saved, model=jaxlm.MLPLanguageModel(300, 3, 4, 5, dropout=0.5))


def test_load_and_import_model_refuse_other_json(saved, exported):
    for content in ("{", "[]"):
        (saved / "model.json").write_text(content)
        with pytest.raises(ValueError, match=r"model\.json"):
            jaxlm.load_model(saved)
        exported.write_bytes(safetensors.numpy.save({"a": np.zeros(2)}, metadata={"jaxlm": content}))
        with pytest.raises(ValueError, match=r"mlp\.safetensors"):
            jaxlm.import_model(exported)


HOSTILE_SPECS = [
    ({"version": 3}, "version 2"),
    ({"version": 1}, "version 2"),
    ({"fields": {"vocab_size": 300}}, "the fields of MLPLanguageModel must be context_length"),
    *(({"fields": FIELDS | {"embedding_dim": size}}, "embedding_dim") for size in (-1, 4.0, "4", [4], True, None)),
    ({"fields": FIELDS | {"embedding_dim": 2**70}}, "damaged|sizes|expected"),
    ({"fields": FIELDS | {"hidden_dim": 6}}, r"'params/hidden/bias' is float32\[5\], expected float32\[6\]"),
    *(({"fields": FIELDS | {"dropout": rate}}, "damaged") for rate in (1.5, "x", [0.5])),
    *(({"fields": FIELDS | {"direct_connections": value}}, "damaged") for value in ("x", None)),
    *(({"fields": FIELDS | {name: "x"}}, "damaged: the fields") for name in ("name", "parent", "setup")),
    *(({"fields": value}, "damaged") for value in ("x", None)),
    ({"vocab_size": 301}, "has vocab_size 301, not 300"),
    ({"context_length": 4}, "has context_length 4, not 3"),
    ({"vocab_size": "300"}, "damaged"),
    ({"class": "os.system"}, "'os.system' is not a model of this library"),
    ({"class": "\x1b[2J"}, r"'\\x1b\[2J' is not"),
    ({"class": "AddK", "fields": {"k": 1.0}}, "'AddK' is not"),
    ({"class": "NeuralBigramLM"}, "damaged: the fields of NeuralBigramLM"),
    ({"class": ["MLPLanguageModel"]}, "damaged"),
    ({"of_jaxlm": False}, "is not a model of this library"),
    ({"of_jaxlm": "yes"}, "damaged"),
]


@pytest.mark.parametrize(("changes", "message"), HOSTILE_SPECS, ids=str)
def test_load_and_import_model_refuse_a_hostile_spec(saved, exported, changes, message):
    edit_document(saved / "model.json", **changes)
    with pytest.raises(ValueError, match=rf"mlp.*{message}"):
        jaxlm.load_model(saved)
    rewrite(exported, lambda _, document: document.update(changes))
    with pytest.raises(ValueError, match=rf"mlp.*{message}"):
        jaxlm.import_model(exported)


def test_load_model_refuses_an_invalid_tokenizer(saved):
    tokenizer = saved / "tokenizer.json"
    jaxlm.CharTokenizer.train("another").save(tokenizer)
    with pytest.raises(ValueError, match=r"checksum mismatch in .*tokenizer\.json"):
        jaxlm.load_model(saved)
    large = "".join(map(chr, range(1000, 1301)))
    jaxlm.CharTokenizer.train(large).save(tokenizer)
    for content in (b"", b"{}", tokenizer.read_bytes()):
        tokenizer.write_bytes(content)
        edit_document(saved / "model.json", tokenizer_sha256=hashlib.sha256(content).hexdigest())
        with pytest.raises(ValueError, match=r"tokenizer\.json|301 tokens, more than the model's vocab_size=300"):
            jaxlm.load_model(saved)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (COUNTS, {"vocab_size": 10**9}),
        (COUNTS, {"vocab_size": 2**31}),
        (BIGRAM, {"embedding_dim": 10**12}),
        (MLP, {"context_length": 10**9}),
        (MLP, {"hidden_dim": 2**63}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else type(value).__name__,
)
def test_load_model_refuses_a_huge_model_without_allocating(model, fields, tmp_path):
    path = tmp_path / "model"
    jaxlm.save_model(path, model, make_variables(model))
    document = json.loads((path / "model.json").read_text("utf-8"))
    sizes = {document["fields"][name]: size for name, size in fields.items()}
    shapes = [[sizes.get(size, size) for size in each["shape"]] for each in document["arrays"]]
    declared = [each | {"shape": shape} for each, shape in zip(document["arrays"], shapes, strict=True)]
    changes = {name: size for name, size in fields.items() if name in document}
    changes["fields"] = document["fields"] | fields
    tracemalloc.start()
    try:
        for arrays in (document["arrays"], declared):
            edit_document(path / "model.json", arrays=arrays, **changes)
            with pytest.raises(ValueError, match="model"):
                jaxlm.load_model(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_export_model_names_tensors_by_their_path(exported):
    tensors = safetensors.numpy.load_file(exported)
    names = ["embedding/embedding", "hidden/bias", "hidden/kernel", "projection/bias", "projection/kernel"]
    assert sorted(tensors) == [f"params/{name}" for name in names]
    kernel = make_variables(MLP)["params"]["hidden"]["kernel"]
    np.testing.assert_array_equal(tensors["params/hidden/kernel"], kernel)


def test_export_model_refuses_dtypes_without_a_name_in_the_format(tmp_path):
    with pytest.raises(TypeError, match="safetensors cannot store these variables"):
        jaxlm.export_model(tmp_path / "file", OwnLM(), {"a": jnp.zeros(2, jnp.int4)})
    assert not list(tmp_path.iterdir())


def rewrite(path, change):
    """Change the tensors and the JSON document of an exported file, and correct all checksums."""
    tensors = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, "np") as file:
        document = verify_checksum(json.loads(file.metadata()["jaxlm"]), origin=path)
    change(tensors, document)
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype}{list(tensor.shape)}".encode() + tensor.tobytes())
    document["tensors_sha256"] = digest.hexdigest()
    path.write_bytes(safetensors.numpy.save(tensors, metadata={"jaxlm": add_checksum(document)}))


def change_bias(change):
    return lambda tensors, _: tensors.update({"params/hidden/bias": change(tensors["params/hidden/bias"])})


def add_tensor(name):
    return lambda tensors, _: tensors.update({name: np.zeros(2, np.float32)})


HOSTILE_FILES = {
    "missing": (lambda tensors, _: tensors.pop("params/hidden/bias"), "'params/hidden/bias' is missing"),
    "added": (add_tensor("params/x"), "'params/x' is .*expected no array of that name"),
    "path": (add_tensor("../../evil"), "'../../evil' is .*expected no array of that name"),
    "below an array": (add_tensor("params/hidden/bias/x"), "do not form a tree"),
    "deep name": (add_tensor("a/" * 10**5), "do not form a tree"),
    "dtype": (change_bias(lambda tensor: np.ones(5, np.int32)), r"is int32\[5\]"),
    "shape": (change_bias(lambda tensor: tensor[None]), r"is float32\[1, 5\]"),
    "empty": (change_bias(lambda tensor: tensor[:0]), r"is float32\[0\]"),
    "NaN": (change_bias(lambda tensor: tensor * np.nan), "'params/hidden/bias' contains NaN"),
    "tokenizer": (lambda _, document: document.update(tokenizer={"version": 2}), "checksum|sha256"),
    "list as tokenizer": (lambda _, document: document.update(tokenizer=[]), "tokenizer"),
}


@pytest.mark.parametrize(("change", "message"), HOSTILE_FILES.values(), ids=HOSTILE_FILES)
def test_import_model_refuses_hostile_files(exported, change, message):
    rewrite(exported, lambda tensors, document: None)
    assert jaxlm.import_model(exported)[0] == MLP
    rewrite(exported, change)
    with pytest.raises(ValueError, match=rf"mlp\.safetensors.*{message}"):
        jaxlm.import_model(exported)


def make_file(dtype):
    header = json.dumps({"a": {"dtype": dtype, "shape": [1], "data_offsets": [0, 1]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"0"


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04K\x01.",  # a pickle
        make_file("O"),
        make_file("F8_E8M0"),  # a dtype that NumPy lacks
        safetensors.numpy.save({"a": np.zeros(2)}),  # of another program
    ],
    ids=["pickle", "objects", "unknown dtype", "other"],
)
def test_import_model_refuses_what_is_not_a_model_file(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="file is not a model file"):
        jaxlm.import_model(tmp_path / "file")
