"""Checkpoints: the state comes back to the bit, and what is damaged is told of and never used."""

import contextlib
import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest

from jaxlm.checkpoints.arrays import named_leaves, read_arrays, signatures, write_arrays
from jaxlm.checkpoints.train_states import (
    Checkpoint,
    amend_checkpoint,
    best_step,
    checkpoint_path,
    checkpoint_steps,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from jaxlm.training.state import TrainState
from jaxlm.utils.atomic_files import is_temporary
from jaxlm.utils.checksums import add_checksum, file_checksums, verify_checksum

OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(optax.cosine_decay_schedule(1.0, 9), 0.9)),
    "adam": optax.chain(optax.add_decayed_weights(0.1), optax.adam(1e-3)),
}
MARK = (12, "0" * 64)


def make_state(step=5, optimizer="momentum", size=3):
    random = np.random.default_rng(step)
    params = {
        "embedding": {"embedding": jnp.asarray(random.normal(size=(size, 2)), jnp.float32)},
        "scale": jnp.float32(random.normal()),
        "half": jnp.asarray(random.normal(size=4), jnp.bfloat16),
    }
    return TrainState(jnp.int32(step), params, OPTIMIZERS[optimizer].init(params))


def make_checkpoint(step=5, nats=1.5, **options):
    return Checkpoint(make_state(step, **options), nats, MARK, 0.25)


LIKE = jax.tree.map(jnp.zeros_like, make_state())


def assert_same(state, other):
    assert jax.tree.structure(state) == jax.tree.structure(other)
    for leaf, twin in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
        assert leaf.dtype == twin.dtype
        assert np.asarray(leaf).tobytes() == np.asarray(twin).tobytes()


@pytest.fixture
def saved(tmp_path):
    """The path of a whole checkpoint of step 5."""
    return save_checkpoint(tmp_path / "checkpoints", make_checkpoint())


def edit(path, **changes):
    """Changes fields of a checkpoint's document, as someone would who knows how it is sealed."""
    document = verify_checksum(json.loads(path.read_text("utf-8")), origin=path)
    path.write_text(add_checksum(document | changes), "utf-8")


# There and back.


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_state_comes_back_to_the_bit_as_numpy_arrays(tmp_path, optimizer):
    checkpoint = make_checkpoint(step=7, optimizer=optimizer)
    path = save_checkpoint(tmp_path / "a" / "b", checkpoint)
    assert path == tmp_path / "a" / "b" / "step-0000000007"
    loaded = load_checkpoint(path, jax.tree.map(jnp.zeros_like, checkpoint.state))
    assert_same(loaded.state, checkpoint.state)
    assert loaded[1:] == checkpoint[1:]
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(loaded.state))


def test_nothing_but_the_checkpoint_is_left_and_it_holds_only_json_and_arrays(saved):
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert sorted(path.name for path in saved.iterdir()) == ["arrays", "checkpoint.json"]
    assert {path.suffix for path in saved.rglob("*")} <= {"", ".json", ".txt", ".0"}


def test_a_state_may_be_known_by_its_shapes_alone(saved):
    like = jax.eval_shape(make_state)
    assert_same(load_checkpoint(saved, like).state, make_state())


def test_a_checkpoint_moves_with_its_folder(saved, tmp_path):
    shutil.move(saved, tmp_path / "elsewhere")
    assert_same(load_checkpoint(tmp_path / "elsewhere", LIKE).state, make_state())


@pytest.mark.parametrize("nats", [None, float("nan"), float("inf")])
def test_a_validation_that_there_was_not_or_that_is_no_number_is_none(tmp_path, nats):
    path = save_checkpoint(tmp_path, make_checkpoint(nats=nats))
    assert load_checkpoint(path, LIKE).nats_per_token is None
    assert best_step(tmp_path) is None


@pytest.mark.parametrize(
    ("leaf", "signature"),
    [(jnp.zeros((0, 2)), r"float32\[0, 2\]"), (np.array("text"), "<U4"), (np.array(None), "object")],
)
def test_a_leaf_without_numbers_is_refused_by_name_and_nothing_is_left(tmp_path, leaf, signature):
    state = TrainState(jnp.int32(1), {"odd": leaf}, ())
    with pytest.raises(TypeError, match=f"array 'params/odd' cannot be saved: it is {signature}"):
        save_checkpoint(tmp_path, Checkpoint(state, None, MARK))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint32", "float16", "bfloat16", "float8_e4m3fn", "complex64"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 3)], ids=str)
def test_arrays_of_any_dtype_and_shape_come_back(tmp_path, dtype, shape):
    array = np.random.default_rng(0).integers(0, 2, shape).astype(jnp.dtype(dtype))
    index = write_arrays(tmp_path / "arrays", [(("a",), array)])
    [(name, loaded)] = read_arrays(tmp_path / "arrays", json.loads(json.dumps(index)))
    assert name == ("a",)
    assert (loaded.dtype, loaded.shape) == (array.dtype, array.shape)
    assert loaded.tobytes() == array.tobytes()


def test_arrays_that_are_transposed_or_strided_come_back(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)[::2]
    index = write_arrays(tmp_path / "arrays", [(("a",), array)])
    np.testing.assert_array_equal(read_arrays(tmp_path / "arrays", index)[0][1], array)


def test_names_lead_nowhere_on_the_disk(tmp_path):
    names = [("..", "..", "evil"), ("/etc/passwd",), ("a.b", "c/d"), ("", "\ud800"), ("x" * 1000,)]
    index = write_arrays(tmp_path / "arrays", [(name, np.float32(number)) for number, name in enumerate(names)])
    assert [path.name for path in tmp_path.iterdir()] == ["arrays"]
    loaded = read_arrays(tmp_path / "arrays", json.loads(json.dumps(index)))
    assert [(name, float(array)) for name, array in loaded] == list(zip(names, range(5), strict=True))


def test_an_orbax_that_compresses_anyway_leaves_plain_arrays(tmp_path, monkeypatch):
    handler = orbax.checkpoint.PyTreeCheckpointHandler
    monkeypatch.setattr(
        orbax.checkpoint, "PyTreeCheckpointHandler", lambda use_ocdbt: handler(use_ocdbt=use_ocdbt)
    )
    arrays = [(("zeros",), np.zeros((50, 40), np.float32)), (("half",), np.ones(3, jnp.bfloat16))]
    index = write_arrays(tmp_path / "arrays", arrays)
    assert index["files"]["000000/0.0"][0] == 50 * 40 * 4
    for (_, loaded), (_, array) in zip(read_arrays(tmp_path / "arrays", index), arrays, strict=True):
        assert loaded.tobytes() == array.tobytes()


def test_an_orbax_that_writes_what_would_not_be_read_again_saves_nothing(tmp_path, monkeypatch):
    save = orbax.checkpoint.Checkpointer.save

    def save_more(checkpointer, folder, item):
        save(checkpointer, folder, item)
        (folder / "manifest.ocdbt").touch()

    monkeypatch.setattr(orbax.checkpoint.Checkpointer, "save", save_more)
    with pytest.raises(OSError, match=r"cannot save .*it holds 'manifest\.ocdbt', which is of no array"):
        save_checkpoint(tmp_path, make_checkpoint())
    assert not list(tmp_path.iterdir())


def test_a_machine_without_memory_is_not_taken_for_a_damaged_checkpoint(saved, monkeypatch):
    def restore(*_, **__):
        raise MemoryError

    monkeypatch.setattr(orbax.checkpoint.Checkpointer, "restore", restore)
    with pytest.raises(MemoryError):
        latest_checkpoint(saved.parent, LIKE)


def test_leaves_are_named_by_the_way_to_them():
    state = TrainState(
        jnp.int32(0), {"a": {"b": jnp.zeros((2, 3))}}, (optax.EmptyState(), optax.TraceState([1.0]))
    )
    assert [name for name, _ in named_leaves(state)] == [
        ("step",),
        ("params", "a", "b"),
        ("opt_state", "1", "trace", "0"),
    ]
    assert signatures(state._replace(opt_state=())) == [
        (("step",), "int32[]"),
        (("params", "a", "b"), "float32[2, 3]"),
    ]


# Another state than the run's.


def test_a_state_of_another_shape_dtype_or_optimizer_is_refused_by_the_arrays_name(saved):
    with pytest.raises(
        ValueError, match=r"array '\S+/embedding/embedding' is float32\[3, 2\], wanted is float32\[4, 2\]"
    ):
        load_checkpoint(saved, make_state(size=4))
    double = LIKE._replace(params={**LIKE.params, "scale": jnp.float16(0)})
    with pytest.raises(ValueError, match=r"array 'params/scale' is float32\[\], wanted is float16\[\]"):
        load_checkpoint(saved, double)
    more = LIKE._replace(params={**LIKE.params, "more": jnp.zeros(2)})
    with pytest.raises(ValueError, match=r"array 'params/more' is missing, wanted is float32\[2\]"):
        load_checkpoint(saved, more)
    with pytest.raises(ValueError, match=r"array 'opt_state/\S+' is .*, wanted is none of that name"):
        load_checkpoint(saved, make_state(optimizer="sgd"))


# The folder of a run's checkpoints.


def test_steps_are_told_in_their_order_and_other_entries_are_none(tmp_path):
    for step in (30, 4, 1_000_000_000):
        save_checkpoint(tmp_path, make_checkpoint(step))
    for name in (
        "step-x",
        "step-5",
        "step-00000000006",
        "step-\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661",
        "other",
    ):
        (tmp_path / name).mkdir()
    assert checkpoint_steps(tmp_path) == [4, 30, 1_000_000_000]
    assert checkpoint_steps(tmp_path / "nowhere") == []
    assert checkpoint_path(tmp_path, 30).is_dir()


def test_the_latest_whole_checkpoint_is_used_and_a_damaged_one_told_of(tmp_path, caplog):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, make_checkpoint(step))
    assert_same(latest_checkpoint(tmp_path, LIKE).state, make_state(3))
    assert not caplog.records
    (checkpoint_path(tmp_path, 3) / "arrays" / "000000" / ".zarray").unlink()
    (checkpoint_path(tmp_path, 2) / "checkpoint.json").unlink()
    assert_same(latest_checkpoint(tmp_path, LIKE).state, make_state(1))
    first, second = (record.getMessage() for record in caplog.records)
    assert "step-0000000003" in first
    assert "'000000/.zarray' is missing" in first
    assert "step-0000000002" in second
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_there_may_be_no_checkpoint_or_none_that_is_whole(tmp_path, caplog):
    assert latest_checkpoint(tmp_path / "nowhere", LIKE) is None
    (tmp_path / "step-0000000001").mkdir()
    assert latest_checkpoint(tmp_path, LIKE) is None
    assert len(caplog.records) == 1


def test_a_checkpoint_that_the_caller_cannot_use_is_passed_over(tmp_path, caplog):
    for step in (1, 2):
        save_checkpoint(tmp_path, make_checkpoint(step))

    def check(checkpoint):
        if int(checkpoint.state.step) == 2:
            raise ValueError("the metrics of step 2 are gone")

    assert int(latest_checkpoint(tmp_path, LIKE, check).state.step) == 1
    assert "the metrics of step 2 are gone" in caplog.text


def test_the_best_is_the_first_of_the_lowest_validation(tmp_path):
    for step, nats in ((1, 2.0), (2, 1.0), (3, 1.0), (4, None), (5, float("nan")), (6, 3.0)):
        save_checkpoint(tmp_path, make_checkpoint(step, nats))
    assert best_step(tmp_path) == 2
    (checkpoint_path(tmp_path, 2) / "checkpoint.json").write_text("{}", "utf-8")
    assert best_step(tmp_path) == 3
    assert best_step(tmp_path / "nowhere") is None


def test_the_latest_and_the_best_are_kept(tmp_path):
    for step, nats in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 1.5), (5, None)):
        save_checkpoint(tmp_path, make_checkpoint(step, nats))
    prune_checkpoints(tmp_path, 2)
    assert checkpoint_steps(tmp_path) == [2, 4, 5]
    prune_checkpoints(tmp_path, 9)
    assert checkpoint_steps(tmp_path) == [2, 4, 5]
    prune_checkpoints(tmp_path, 1)
    assert checkpoint_steps(tmp_path) == [2, 5]
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("step-")] == []


def test_a_checkpoint_of_the_same_step_replaces_the_one_before(saved):
    other = make_state(9)._replace(step=jnp.int32(5))
    assert save_checkpoint(saved.parent, Checkpoint(other, None, MARK)) == saved
    loaded = load_checkpoint(saved, LIKE)
    assert_same(loaded.state, other)
    assert loaded.nats_per_token is None
    assert list(saved.parent.iterdir()) == [saved]


def test_what_a_checkpoint_says_is_amended_and_its_arrays_stay(saved):
    amended = make_checkpoint()._replace(nats_per_token=None, metrics=(3, "1" * 64), seconds=9.0)
    before = file_checksums(saved / "arrays")
    amend_checkpoint(saved.parent, amended)
    loaded = load_checkpoint(saved, LIKE)
    assert_same(loaded.state, make_state())
    assert loaded[1:] == amended[1:]
    assert file_checksums(saved / "arrays") == before
    with pytest.raises(FileNotFoundError):
        amend_checkpoint(saved.parent, make_checkpoint(step=6))


# Damage.


def files_of(path):
    return sorted(each for each in path.rglob("*") if each.is_file())


def assert_refused(path, harm):
    with pytest.raises(ValueError, match=path.name):  # noqa: PT012
        load_checkpoint(path, LIKE)
        pytest.fail(f"{harm} went unnoticed")


def test_a_file_cut_at_any_tenth_of_its_length_is_noticed(saved):
    cut = 0
    for file in files_of(saved):
        content = file.read_bytes()
        for length in sorted({len(content) * tenth // 10 for tenth in range(10)}):
            file.write_bytes(content[:length])
            assert_refused(saved, f"{file.name} cut to {length} of {len(content)} bytes")
            cut += 1
        file.write_bytes(content)
    assert cut > 100
    assert_same(load_checkpoint(saved, LIKE).state, make_state())


def test_one_changed_byte_is_noticed_wherever_it_is(saved):
    for file in files_of(saved):
        content = file.read_bytes()
        for position in sorted({len(content) * part // 12 for part in range(12)} | {len(content) - 1}):
            changed = bytearray(content)
            changed[position] ^= 1 << position % 8
            file.write_bytes(changed)
            if file.name == "checkpoint.json" and bytes([content[position]]).isspace():
                continue  # JSON may be spaced in any way
            assert_refused(saved, f"a changed byte {position} of {file.name}")
        file.write_bytes(content)


def test_a_file_that_is_missing_is_noticed_and_named(saved):
    for file in files_of(saved / "arrays"):
        hidden = saved.parent / "hidden"
        file.rename(hidden)
        name = file.relative_to(saved / "arrays").as_posix()
        with pytest.raises(ValueError, match=f"file '{name}' is missing"):
            load_checkpoint(saved, LIKE)
        hidden.rename(file)
    (saved / "checkpoint.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.json"):
        load_checkpoint(saved, LIKE)


def test_no_checkpoint_at_all_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_checkpoint(tmp_path / "nowhere", LIKE)


def test_a_file_too_many_is_noticed(saved):
    (saved / "arrays" / "manifest.ocdbt").touch()
    with pytest.raises(ValueError, match=r"unexpected file 'manifest\.ocdbt'"):
        load_checkpoint(saved, LIKE)


def test_files_that_were_swapped_are_noticed(saved):
    first, second = (saved / "arrays" / name / ".zarray" for name in ("000000", "000001"))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert_refused(saved, "a swap")


def test_a_link_in_the_place_of_a_file_or_folder_is_refused(saved):
    for file in [*files_of(saved), saved / "arrays" / "000000", saved / "arrays"]:
        moved = saved.parent / "moved"
        file.rename(moved)
        file.symlink_to(moved)
        assert_refused(saved, f"{file.name}, a link,")
        file.unlink()
        moved.rename(file)
    load_checkpoint(saved, LIKE)


def test_a_folder_or_a_pipe_in_the_place_of_a_file_is_refused(saved):
    for file in files_of(saved):
        content = file.read_bytes()
        file.unlink()
        os.mkfifo(file)
        assert_refused(saved, f"{file.name}, a pipe,")
        file.unlink()
        file.mkdir()
        with pytest.raises((ValueError, IsADirectoryError)):
            load_checkpoint(saved, LIKE)
        file.rmdir()
        file.write_bytes(content)


def test_a_later_version_is_left_to_what_wrote_it(saved, caplog):
    edit(saved / "checkpoint.json", version=2)
    with pytest.raises(
        ValueError, match=r"not a checkpoint of version 1 \(version: 2\); .* use the jaxlm that wrote it"
    ):
        load_checkpoint(saved, LIKE)
    save_checkpoint(saved.parent, make_checkpoint(step=4))
    assert int(latest_checkpoint(saved.parent, LIKE).state.step) == 4
    assert "version: 2" in caplog.text


@pytest.mark.parametrize(
    "changes",
    [
        {"step": "5"},
        {"step": None},
        {"step": 6},
        {"nats_per_token": "1.5"},
        {"seconds": None},
        {"seconds": 10**400},
        {"metrics": [1]},
        {"metrics": [1, 2]},
        {"metrics": {}},
        {"arrays": []},
        {"arrays": {}},
        {"arrays": [1]},
        {"arrays": None},
        {"files": []},
        {"files": {}},
    ],
    ids=str,
)
def test_a_sealed_document_with_other_fields_is_refused(saved, changes):
    edit(saved / "checkpoint.json", **changes)
    assert_refused(saved, f"{changes}")


# A sealed index that lies: what a stranger may write who knows the format.


def write_lying(folder, change):
    """Arrays and their index, with `change(folder, index)` made, and the sums of the files right again."""
    arrays = [(("a",), np.arange(6, dtype=np.float32).reshape(2, 3)), (("b",), np.int32(7))]
    index = json.loads(json.dumps(write_arrays(folder, arrays)))
    change(folder, index)
    index["files"] = file_checksums(folder)
    return index


def change_json(name, **changes):
    def change(folder, _):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")

    return change


def change_array(**changes):
    def change(_, index):
        index["arrays"][0].update(changes)

    return change


def write_file(name, content):
    def change(folder, _):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return change


def entry(name):
    return {"key_metadata": [{"key": name, "key_type": 2}], "value_metadata": {"value_type": "np.ndarray"}}


def add_entry(folder, _):
    path = folder / "_METADATA"
    document = json.loads(path.read_text("utf-8"))
    document["tree_metadata"]["('../evil',)"] = entry("../evil")
    path.write_text(json.dumps(document), "utf-8")


LIES = {
    "a huge array": change_array(shape=[10**9, 10**9]),
    "a size beyond 64 bits": change_array(shape=[2**70]),
    "a thousand dimensions": change_array(shape=[1] * 1000),
    "no size": change_array(shape=[0, 3]),
    "a negative size": change_array(shape=[-2, -3]),
    "sizes that are true": change_array(shape=[True, 6]),
    "sizes in words": change_array(shape=["2", "3"]),
    "other dtype": change_array(dtype="int32"),
    "objects": change_array(dtype="object"),
    "texts": change_array(dtype="str"),
    "dates": change_array(dtype="datetime64"),
    "an expression as dtype": change_array(dtype="(1,"),
    "a number as dtype": change_array(dtype="02"),
    "a record as dtype": change_array(dtype="f4,f4"),
    "an alias as dtype": change_array(dtype="single"),
    "no dtype": change_array(dtype=None),
    "no name": change_array(name=[]),
    "a name twice": change_array(name=["b"]),
    "a name of numbers": change_array(name=[1]),
    "a huge chunk": change_json("000000/.zarray", shape=[10**9, 10**9], chunks=[10**9, 10**9]),
    "many chunks": change_json("000000/.zarray", chunks=[1, 3]),
    "a huge chunk for a small array": change_json("000000/.zarray", chunks=[10**9, 3]),
    "compressed": change_json("000000/.zarray", compressor={"id": "zstd"}),
    "filtered": change_json("000000/.zarray", filters=[{"id": "delta"}]),
    "other order": change_json("000000/.zarray", order="F"),
    "files elsewhere": change_json("000000/.zarray", dimension_separator="/"),
    "another dtype inside": change_json("000000/.zarray", dtype="<i4"),
    "a longer dtype inside": change_json("000000/.zarray", dtype="<f8"),
    "no dtype inside": change_json("000000/.zarray", dtype="nonsense"),
    "Zarr 3": change_json("_METADATA", use_zarr3=True),
    "a database": change_json("_METADATA", use_ocdbt=True),
    "another array elsewhere": add_entry,
    "other arrays": change_json(
        "_METADATA", tree_metadata={"('../evil',)": entry("../evil"), "x": entry("000001")}
    ),
    "no arrays": change_json("_METADATA", tree_metadata={}),
    "arrays in a list": change_json("_METADATA", tree_metadata=[]),
    "a description that is no JSON": write_file("000000/.zarray", b"{"),
    "a description that is deep": write_file("000000/.zarray", b"[" * 100_000),
    "a description that is a list": write_file("000000/.zarray", b"[]"),
    "metadata that are no JSON": write_file("_METADATA", b"\xff"),
    "a short chunk": write_file("000000/0.0", b"\x00" * 23),
    "an empty chunk": write_file("000000/0.0", b""),
    "a database of arrays": write_file("manifest.ocdbt", b"x"),
    "arrays in one file": write_file("checkpoint", b"\x80"),
    "an array not listed": write_file("000002/.zarray", b"{}"),
    "a program": write_file("setup.py", b"raise SystemExit"),
}


@pytest.mark.parametrize("change", LIES.values(), ids=LIES)
def test_a_sealed_index_that_lies_is_refused_before_an_array_is_made(tmp_path, change, monkeypatch):
    folder = tmp_path / "arrays"
    index = write_lying(folder, change)
    with pytest.raises(ValueError, match=r"/arrays.* is damaged"):
        read_arrays(folder, index)


def test_what_a_lying_index_starts_from_is_read(tmp_path):
    index = write_lying(tmp_path / "arrays", lambda folder, index: None)
    assert [name for name, _ in read_arrays(tmp_path / "arrays", index)] == [("a",), ("b",)]


@pytest.mark.parametrize(
    "index", [None, [], {}, {"arrays": [], "files": {}}, {"arrays": [{}], "files": {}}], ids=str
)
def test_what_is_no_index_is_refused(tmp_path, index):
    with pytest.raises(ValueError, match="its index of arrays is malformed"):
        read_arrays(tmp_path, index)


# A disk that takes no more.


def assert_still_whole(saved, before):
    """The checkpoint of step 5 is as it was, and nothing stands beside it."""
    assert list(saved.parent.iterdir()) == [saved]
    assert file_checksums(saved) == before
    assert_same(latest_checkpoint(saved.parent, LIKE).state, make_state())


@pytest.mark.parametrize("step", [5, 6], ids=["the same step", "the next"])
@pytest.mark.parametrize(
    "seam", ["orbax.checkpoint.Checkpointer.save", "jaxlm.checkpoints.write_atomically", "os.fsync"]
)
def test_a_full_disk_leaves_the_checkpoint_before_as_it_was(saved, monkeypatch, seam, step):
    before = file_checksums(saved)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patches:
        patches.setattr(seam, full)
        with pytest.raises(OSError, match=rf"cannot save .*step-000000000{step}: .*No space left on device.*$"):
            save_checkpoint(saved.parent, make_checkpoint(step, nats=None))
    assert_still_whole(saved, before)


def test_a_state_larger_than_the_room_on_the_disk_is_not_begun(saved, monkeypatch):
    before = file_checksums(saved)
    usage = shutil.disk_usage(saved)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=70))
    with pytest.raises(OSError, match=r"cannot save .*step-0000000006: cannot write .*No space left on device"):
        save_checkpoint(saved.parent, make_checkpoint(6))
    assert_still_whole(saved, before)


@contextlib.contextmanager
def file_size_limit(num_bytes):
    """No file of this process grows beyond that, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Orbax's other writes, under way as one fails, find nobody waiting for them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_file_that_the_system_does_not_write_leaves_the_checkpoint_before_as_it_was(saved):
    before = file_checksums(saved)
    with file_size_limit(2**14), pytest.raises(OSError, match=r"cannot save .*-0000000006: .*too large") as error:
        save_checkpoint(saved.parent, make_checkpoint(6, size=2**14))
    assert "\n" not in str(error.value)
    assert_still_whole(saved, before)


@contextlib.contextmanager
def read_only(folder):
    """Nobody may write to `folder`, root neither."""
    user = os.geteuid()
    folder.chmod(0o555)
    try:
        if user == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


def test_a_folder_that_is_read_only_keeps_its_checkpoint_and_gives_it_back():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        Path(folder).chmod(0o755)
        saved = save_checkpoint(Path(folder, "checkpoints"), make_checkpoint())
        before = file_checksums(saved)
        with read_only(saved.parent):
            for step in (5, 6):
                with pytest.raises(OSError, match=r"cannot save .*Permission denied"):
                    save_checkpoint(saved.parent, make_checkpoint(step))
            assert_still_whole(saved, before)


CRASHES = """
import itertools, os, pathlib, shutil, sys
import numpy as np
import orbax.checkpoint
from jaxlm.checkpoints import Checkpoint, save_checkpoint
from jaxlm.training import TrainState


def save(folder, step, value):
    state = TrainState(np.int32(step), {"a": np.full(3, value, np.float32)}, ())
    save_checkpoint(folder, Checkpoint(state, None, (0, "")))


def save_and_crash(folder, moment):
    moments = itertools.count(1)

    def crashing(call):
        def crash(*arguments):
            if next(moments) == moment:
                os._exit(9)
            return call(*arguments)

        return crash

    pathlib.Path.rename = crashing(pathlib.Path.rename)
    pathlib.Path.replace = crashing(pathlib.Path.replace)
    os.fsync = crashing(os.fsync)
    save(folder, 2, 3.0)


def in_another_process(call, *arguments):
    process = os.fork()
    if process == 0:
        call(*arguments)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


root = pathlib.Path(sys.argv[1])
for step in (1, 2):
    assert in_another_process(save, root / "0", step, step) == 0
for moment in itertools.count(1):
    shutil.copytree(root / "0", root / str(moment))
    if in_another_process(save_and_crash, root / str(moment), moment) == 0:
        break
"""


@pytest.mark.slow
def test_a_crash_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    """A process dies before each rename and each sync while it replaces the checkpoint of step 2."""
    subprocess.run([sys.executable, "-c", CRASHES, tmp_path], check=True)
    like = TrainState(jnp.int32(0), {"a": jnp.zeros(3)}, ())
    found = []
    for moment in range(len(list(tmp_path.iterdir()))):
        folder = tmp_path / str(moment)
        state = latest_checkpoint(folder, like).state
        found.append((int(state.step), float(state.params["a"][0])))
        assert all(is_temporary(path.name) or path.name.startswith("step-") for path in folder.iterdir())
    # The old one; between the two renames the one before it; the new one.
    old, before, new = (2, 2.0), (1, 1.0), (2, 3.0)
    assert found.count(before) == 1
    place = found.index(before)
    assert found == [old] * place + [before] + [new] * (len(found) - place - 1)
    assert place > 10
    assert found[-1] == new
