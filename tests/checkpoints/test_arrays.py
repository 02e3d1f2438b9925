import json
import shutil

import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from checkpoint_files import assert_same_bits

from jaxlm.checkpoints.arrays import check_arrays, named_leaves, read_arrays, write_arrays
from jaxlm.training.state import TrainState
from jaxlm.utils.checksums import file_checksums


def round_trip(folder, arrays):
    """Write and read again, with the index as it comes back from a JSON file."""
    return read_arrays(folder, json.loads(json.dumps(write_arrays(folder, arrays))))


def test_write_arrays_round_trip_of_dtypes_shapes_and_strides(tmp_path):
    random = np.random.default_rng(0)
    dtypes = ("bool", "int8", "uint32", "float16", "bfloat16", "float8_e4m3fn", "float32", "complex64")
    arrays = [
        ((dtype, str(shape)), random.integers(0, 2, shape).astype(jnp.dtype(dtype)))
        for dtype in dtypes
        for shape in ((), (3,), (2, 1, 3))
    ]
    arrays.append((("strided",), np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)[::2]))
    loaded = round_trip(tmp_path / "arrays", arrays)
    assert [name for name, _ in loaded] == [name for name, _ in arrays]
    assert_same_bits([array for _, array in loaded], [array for _, array in arrays])
    assert all(isinstance(array, np.ndarray) for _, array in loaded)


def test_write_arrays_keeps_any_name_inside_the_directory(tmp_path):
    names = [("..", "..", "evil"), ("/etc/passwd",), ("a.b", "c/d"), ("", "\ud800"), ("x" * 1000,)]
    loaded = round_trip(tmp_path / "arrays", [(name, np.float32(i)) for i, name in enumerate(names)])
    assert [path.name for path in tmp_path.iterdir()] == ["arrays"]
    assert [(name, float(array)) for name, array in loaded] == list(zip(names, range(5), strict=True))


@pytest.mark.parametrize(
    ("array", "signature"),
    [(jnp.zeros((0, 2)), r"float32\[0, 2\]"), (np.array("text"), "<U4"), (np.array(None), "object")],
)
def test_write_arrays_refuses_empty_and_non_numeric(tmp_path, array, signature):
    with pytest.raises(TypeError, match=f"array 'params/odd'.* is {signature}"):
        write_arrays(tmp_path / "arrays", [(("params", "odd"), array)])
    assert not list(tmp_path.iterdir())


def test_write_arrays_undoes_the_compression_of_old_orbax(tmp_path, monkeypatch):
    handler = orbax.checkpoint.PyTreeCheckpointHandler
    monkeypatch.setattr(
        orbax.checkpoint, "PyTreeCheckpointHandler", lambda use_ocdbt: handler(use_ocdbt=use_ocdbt)
    )
    arrays = [(("zeros",), np.zeros((50, 40), np.float32)), (("half",), np.ones(3, jnp.bfloat16))]
    assert_same_bits([array for _, array in round_trip(tmp_path / "arrays", arrays)], [a for _, a in arrays])
    assert (tmp_path / "arrays" / "000000" / "0.0").stat().st_size == 50 * 40 * 4


def test_write_arrays_fails_with_the_first_line_of_the_error(tmp_path, monkeypatch):
    save = orbax.checkpoint.Checkpointer.save

    def fail(*_):
        raise ValueError("RESOURCE: no space\n" + "specification\n" * 100)

    def save_more(checkpointer, folder, item):
        save(checkpointer, folder, item)
        (folder / "manifest.ocdbt").touch()

    for replacement, message in ((fail, "RESOURCE: no space$"), (save_more, r".*'manifest\.ocdbt'")):
        monkeypatch.setattr(orbax.checkpoint.Checkpointer, "save", replacement)
        with pytest.raises(OSError, match=rf"^cannot write .*arrays: {message}"):
            write_arrays(tmp_path / "arrays", [(("a",), np.ones(2))])


def test_read_arrays_out_of_memory_is_not_damage(tmp_path, monkeypatch):
    index = write_arrays(tmp_path / "arrays", [(("a",), np.ones(2, np.float32))])

    def restore(*_, **__):
        raise MemoryError

    monkeypatch.setattr(orbax.checkpoint.Checkpointer, "restore", restore)
    with pytest.raises(MemoryError):
        read_arrays(tmp_path / "arrays", index)


def test_named_leaves_are_paths():
    state = TrainState(
        jnp.int32(0), {"a": {"b": jnp.zeros((2, 3))}}, (optax.EmptyState(), optax.TraceState([1.0]))
    )
    assert [name for name, _ in named_leaves(state)] == [
        ("step",),
        ("params", "a", "b"),
        ("opt_state", "1", "trace", "0"),
    ]


def test_check_arrays_ignores_the_order_and_names_the_difference():
    found = [(("a",), np.zeros(2, np.float32)), (("b", "c"), np.int32(1))]
    check_arrays("here", found, found[::-1])
    for expected, message in [
        ([*found, (("d",), np.ones(3, bool))], r"here: array 'd' is missing, expected bool\[3\]"),
        (found[1:], r"array 'a' is float32\[2\], expected no array"),
        ([found[0], (("b", "c"), np.int8(1))], r"array 'b/c' is int32\[\], expected int8\[\]"),
        ([(("a",), np.zeros((2, 1), np.float32)), found[1]], r"'a' is float32\[2\], expected float32\[2, 1\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_arrays("here", found, expected)


# Directories whose checksums are right and whose content is not: what a stranger who knows the format may write.


def edit_json(name, **changes):
    def edit(folder, _):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")

    return edit


def write_file(name, content):
    def write(folder, _):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return write


def resize(*shape):
    """Change the shape in the index and in the Zarr metadata alike."""

    def edit(folder, index):
        index["arrays"][0]["shape"] = list(shape)
        edit_json("000000/.zarray", shape=list(shape), chunks=list(shape))(folder, index)
        if 0 in shape:
            (folder / "000000" / "0.0").unlink()

    return edit


def entry(key):
    return {"key_metadata": [{"key": key, "key_type": 2}], "value_metadata": {"value_type": "np.ndarray"}}


SHAPES = ([10**9] * 2, [2**70], [1] * 1000, [0, 3], [-2, -3], [True, 6], ["2", "3"], 6)
DTYPES = ("int32", "object", "str", "datetime64", "(1,", "02", "f4,f4", "single", None)
CHANGES = [
    *({"shape": shape} for shape in SHAPES),
    *({"dtype": dtype} for dtype in DTYPES),
    *({"name": name} for name in ([], ["b"], [1], "a")),
]
HOSTILE = {
    **{str(each)[:40]: lambda _, index, each=each: index["arrays"][0].update(each) for each in CHANGES},
    "huge array": resize(10**9, 10**9),
    "larger array": resize(2, 4),
    "empty array": resize(0, 3),
    "huge chunk": edit_json("000000/.zarray", shape=[10**9, 10**9], chunks=[10**9, 10**9]),
    "many chunks": edit_json("000000/.zarray", chunks=[1, 3]),
    "compressed": edit_json("000000/.zarray", compressor={"id": "zstd"}),
    "other chunk names": edit_json("000000/.zarray", dimension_separator="/"),
    "other dtype": edit_json("000000/.zarray", dtype="<f8"),
    "list as .zarray": write_file("000000/.zarray", b"[]"),
    "short chunk": write_file("000000/0.0", b"\x00" * 23),
    "Zarr 3": edit_json("_METADATA", use_zarr3=True),
    "OCDBT": edit_json("_METADATA", use_ocdbt=True),
    "array elsewhere": edit_json(
        "_METADATA", tree_metadata={"('../evil',)": entry("../evil"), "x": entry("000001")}
    ),
    "array added": edit_json(
        "_METADATA", tree_metadata={name: entry(name) for name in ("000000", "000001", "../evil")}
    ),
    "no arrays": edit_json("_METADATA", tree_metadata={}),
    "list of arrays": edit_json("_METADATA", tree_metadata=[]),
    "no _METADATA": lambda folder, _: (folder / "_METADATA").unlink(),
    "no .zarray": lambda folder, _: (folder / "000000" / ".zarray").unlink(),
    "database": write_file("manifest.ocdbt", b"x"),
    "unlisted array": write_file("000002/.zarray", b"{}"),
    "program": write_file("setup.py", b"raise SystemExit"),
}


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """Directory of two arrays, and its index as JSON."""
    folder = tmp_path_factory.mktemp("original") / "arrays"
    arrays = [(("a",), np.arange(6, dtype=np.float32).reshape(2, 3)), (("b",), np.int32(7))]
    return folder, json.dumps(write_arrays(folder, arrays))


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original[0], tmp_path / "arrays")


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_read_arrays_refuses_hostile_content(original, folder, change):
    index = json.loads(original[1])
    read_arrays(folder, index)
    change(folder, index)
    index["files"] = file_checksums(folder)
    with pytest.raises(ValueError, match=r"/arrays.* is (damaged|not valid)"):
        read_arrays(folder, index)


def test_read_arrays_refuses_a_malformed_index(tmp_path):
    for index in (None, [], {}, {"arrays": [], "files": {}}, {"arrays": [{}], "files": {}}):
        with pytest.raises(ValueError, match="its index of arrays is malformed"):
            read_arrays(tmp_path, index)
