"""Save and load checkpoints; never load a damaged one."""

import errno
import itertools
import os
import re
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from checkpoint_files import assert_same_bits, files_below, flip_bytes

from jaxlm.checkpoints.train_states import (
    Checkpoint,
    checkpoint_path,
    checkpoint_steps,
    latest_checkpoint,
    load_checkpoint,
    quarantine_after,
    save_checkpoint,
)
from jaxlm.training.early_stopping import EarlyStopping
from jaxlm.training.state import TrainState

OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(optax.cosine_decay_schedule(1.0, 9), 0.9)),
    "muon": optax.chain(optax.add_decayed_weights(0.1), optax.contrib.muon(1e-3)),
}


def make_state(step=5, optimizer="momentum"):
    random = np.random.default_rng(step)
    params = {
        "embedding": {"embedding": jnp.asarray(random.normal(size=(3, 2)), jnp.float32)},
        "scale": jnp.float32(random.normal()),
        "half": jnp.asarray(random.normal(size=4), jnp.bfloat16),
    }
    return TrainState(jnp.int32(step), params, OPTIMIZERS[optimizer].init(params))


def make_checkpoint(step=5, **options):
    best = EarlyStopping(make_state(3).params, np.float32(1.25), np.int32(2))
    return Checkpoint(make_state(step, **options), best, b"log\n", 0.25)


def save_steps(directory, *steps):
    for step in steps:
        save_checkpoint(directory, make_checkpoint(step))


LIKE = jax.eval_shape(lambda: make_checkpoint()[:2])


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("original"), make_checkpoint())


@pytest.fixture
def saved(original, tmp_path):
    """Path of a checkpoint of step 5."""
    return shutil.copytree(original, tmp_path / "checkpoints" / original.name)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_save_checkpoint_round_trip(tmp_path, optimizer):
    checkpoint = make_checkpoint(7, optimizer=optimizer)
    save_checkpoint(tmp_path, checkpoint)
    loaded = load_checkpoint(tmp_path, 7, jax.tree.map(jnp.zeros_like, checkpoint[:2]))
    assert_same_bits(loaded[:2], checkpoint[:2])
    assert loaded[2:] == checkpoint[2:]
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(loaded[:2]))


@pytest.mark.filterwarnings("ignore")  # of the oldest Orbax, because no structure is given
def test_orbax_alone_reads_a_checkpoint_as_a_tree(saved):
    tree = ocp.StandardCheckpointer().restore(saved / "state")
    assert {"step", "params", "opt_state"} <= tree.keys()
    assert_same_bits(tree["params"], make_state().params)
    options = ocp.CheckpointManagerOptions(step_prefix="step", step_format_fixed_length=10)
    with ocp.CheckpointManager(saved.parent, options=options) as manager:
        assert manager.all_steps() == [5]
        tree = manager.restore(5, args=ocp.args.Composite(best=ocp.args.StandardRestore())).best
    assert_same_bits(tree["params"], make_state(3).params)


def test_save_checkpoint_syncs_everything_before_the_document_appears(tmp_path, monkeypatch):
    document, synced = checkpoint_path(tmp_path, 5) / "checkpoint.json", set()
    monkeypatch.setattr(os, "fsync", lambda file: document.exists() or synced.add(os.fstat(file).st_ino))
    path = save_checkpoint(tmp_path, make_checkpoint())
    assert {each.stat().st_ino for each in (tmp_path, path, *path.rglob("*"))} <= synced


def test_checkpoints_call_orbax_outside_of_an_event_loop(tmp_path, monkeypatch):
    """In a thread with an event loop, as in Jupyter, it fails unless `uvloop` or `nest_asyncio` is installed."""
    threads = []

    def record(function):
        return lambda *arguments, **options: (
            threads.append(threading.current_thread()) or function(*arguments, **options)
        )

    monkeypatch.setattr(ocp.CheckpointManager, "save", record(ocp.CheckpointManager.save))
    monkeypatch.setattr(ocp.Checkpointer, "restore", record(ocp.Checkpointer.restore))
    save_steps(tmp_path, 5)
    load_checkpoint(tmp_path, 5, LIKE)
    assert len(threads) == 2
    assert threading.main_thread() not in threads


def test_save_checkpoint_keeps_one_of_the_same_step(saved):
    before = files_below(saved)
    save_checkpoint(saved.parent, make_checkpoint(9)._replace(state=make_state(9)._replace(step=jnp.int32(5))))
    assert files_below(saved) == before
    assert_same_bits(load_checkpoint(saved.parent, 5, LIKE).state, make_state())


def test_save_checkpoint_replaces_an_unfinished_one(saved):
    (saved / "checkpoint.json").unlink()
    assert checkpoint_steps(saved.parent) == []
    with pytest.raises(FileNotFoundError, match=saved.name):
        load_checkpoint(saved.parent, 5, LIKE)
    save_checkpoint(saved.parent, make_checkpoint())
    assert_same_bits(load_checkpoint(saved.parent, 5, LIKE).state, make_state())


def test_save_checkpoint_keeps_the_latest(tmp_path):
    for step in (2, 3, 4):
        save_checkpoint(tmp_path, make_checkpoint(step), keep=2)
    assert checkpoint_steps(tmp_path) == [3, 4]


def test_save_checkpoint_does_not_create_a_run_that_was_moved_away(tmp_path):
    with pytest.raises(OSError, match=f"No such file.*free space and resume {tmp_path / 'moved'}"):
        save_checkpoint(tmp_path / "moved" / "checkpoints", make_checkpoint())
    assert not (tmp_path / "moved").exists()


def test_load_checkpoint_refuses_another_structure(saved):
    for state in (make_state(optimizer="sgd"), make_state()._replace(params={"scale": jnp.float32(0)})):
        with pytest.raises(ValueError, match=f"{saved.name} does not match the model and the optimizer"):
            load_checkpoint(saved.parent, 5, (state, LIKE[1]))


def test_load_checkpoint_reads_no_other_step(saved, caplog):
    """A training process may remove it meanwhile."""
    (other := checkpoint_path(saved.parent, 4)).mkdir()
    (other / "_CHECKPOINT_METADATA").write_text("{")
    load_checkpoint(saved.parent, 5, LIKE)
    assert not caplog.records


def test_load_checkpoint_without_the_state_of_the_optimizer(saved):
    state, best = LIKE
    loaded = load_checkpoint(saved.parent, 5, (state._replace(opt_state=None), best)).state
    assert_same_bits(loaded, make_state()._replace(opt_state=None))


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), ValueError("[OS error 5: EIO]")])
def test_an_intact_checkpoint_that_cannot_be_read_is_not_skipped(error, saved, monkeypatch):
    """TensorStore raises ValueErrors for errors of the operating system."""

    def fail(*_, **__):
        raise error

    save_steps(saved.parent, 4)
    monkeypatch.setattr(ocp.Checkpointer, "restore", fail)
    with pytest.raises(OSError, match=f"cannot read .*{saved.name}: .*{re.escape(str(error))}"):
        latest_checkpoint(saved.parent, LIKE)


def test_load_checkpoint_never_loads_a_flipped_byte(saved):
    count = 0
    for file in files_below(saved):
        for _ in flip_bytes(file, 2):
            with pytest.raises(
                ValueError, match=f"{saved.name}.* (is damaged|is not a checkpoint|is not valid JSON)"
            ):
                load_checkpoint(saved.parent, 5, LIKE)
            count += 1
    assert count > 15
    assert_same_bits(load_checkpoint(saved.parent, 5, LIKE).state, make_state())
    document = saved / "checkpoint.json"
    document.write_text(document.read_text().replace('"version": 2', '"version": 3'))
    with pytest.raises(ValueError, match="version 2"):
        load_checkpoint(saved.parent, 5, LIKE)


def test_checkpoint_steps_ignores_other_entries(tmp_path):
    save_steps(tmp_path, 4, 1_000_000_000)
    for name in ("step_x", "step_5", "step_00000000006", "step_0000000007", "other"):
        (tmp_path / name).mkdir()
    assert checkpoint_steps(tmp_path) == [4, 1_000_000_000]
    assert checkpoint_steps(tmp_path / "nowhere") == []


def test_latest_checkpoint_skips_damaged_ones_with_a_warning(tmp_path, caplog):
    save_steps(tmp_path, 1, 2, 3)
    assert_same_bits(latest_checkpoint(tmp_path, LIKE).state, make_state(3))
    assert not caplog.records
    (checkpoint_path(tmp_path, 3) / "state" / "_METADATA").unlink()
    (checkpoint_path(tmp_path, 2) / "checkpoint.json").write_text("{")
    assert_same_bits(latest_checkpoint(tmp_path, LIKE).state, make_state(1))
    assert [re.search("step_0{9}([123])", record.getMessage())[1] for record in caplog.records] == ["3", "2"]
    (checkpoint_path(tmp_path, 1) / "checkpoint.json").unlink()
    assert latest_checkpoint(tmp_path, LIKE) is None
    assert latest_checkpoint(tmp_path / "nowhere", LIKE) is None


def test_quarantine_after_renames_later_checkpoints(tmp_path):
    save_steps(tmp_path, 2)
    for _ in range(2):
        save_steps(tmp_path, 3)
        shutil.copytree(checkpoint_path(tmp_path, 2), checkpoint_path(tmp_path, 1), dirs_exist_ok=True)
        (checkpoint_path(tmp_path, 1) / "checkpoint.json").unlink()
        quarantine_after(tmp_path, 2)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["step_0000000002", "unusable-step_0000000003"]


@pytest.mark.stress
def test_save_checkpoint_error_at_any_call_keeps_the_others(tmp_path, monkeypatch):
    """Fail at the n-th sync or rename, for each n."""
    calls = {(os, "fsync"): os.fsync, (Path, "rename"): Path.rename, (Path, "replace"): Path.replace}
    save_steps(tmp_path, 5)
    for failing in itertools.count(1):
        numbers = itertools.count(1)

        def wrap(call, numbers=numbers, failing=failing):
            def fail(*arguments):
                if next(numbers) == failing:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return call(*arguments)

            return fail

        with monkeypatch.context() as patches:
            for (owner, name), call in calls.items():
                patches.setattr(owner, name, wrap(call))
            try:
                save_checkpoint(tmp_path, make_checkpoint(6))
                break
            except OSError:
                pass
        steps = checkpoint_steps(tmp_path)
        assert steps in ([5], [5, 6])
        for step in steps:
            assert_same_bits(load_checkpoint(tmp_path, step, LIKE).state, make_state(step))
        shutil.rmtree(checkpoint_path(tmp_path, 6), ignore_errors=True)
    assert failing > 10
