import errno
import itertools
import os
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checkpoint_files import assert_same_bits, edit_document, files_below, flip_bytes

from jaxlm.checkpoints.train_states import (
    Checkpoint,
    amend_checkpoint,
    best_step,
    checkpoint_path,
    checkpoint_steps,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    quarantine,
    save_checkpoint,
    validation_losses,
)
from jaxlm.training.state import TrainState
from jaxlm.utils.checksums import file_checksums

OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(optax.cosine_decay_schedule(1.0, 9), 0.9)),
    "adam": optax.chain(optax.add_decayed_weights(0.1), optax.adam(1e-3)),
}
LOG_POSITION = (12, "0" * 64)


def make_state(step=5, optimizer="momentum", size=3):
    random = np.random.default_rng(step)
    params = {
        "embedding": {"embedding": jnp.asarray(random.normal(size=(size, 2)), jnp.float32)},
        "scale": jnp.float32(random.normal()),
        "half": jnp.asarray(random.normal(size=4), jnp.bfloat16),
    }
    return TrainState(jnp.int32(step), params, OPTIMIZERS[optimizer].init(params))


def make_checkpoint(step=5, nats=1.5, **options):
    return Checkpoint(make_state(step, **options), nats, LOG_POSITION, 0.25)


def save_steps(directory, *steps):
    for step in steps:
        save_checkpoint(directory, make_checkpoint(step))


LIKE = jax.eval_shape(make_state)


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("original"), make_checkpoint())


@pytest.fixture
def saved(original, tmp_path):
    """Path of a checkpoint of step 5."""
    return shutil.copytree(original, tmp_path / "checkpoints" / original.name)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_save_checkpoint_round_trip_after_a_move(tmp_path, optimizer):
    checkpoint = make_checkpoint(step=7, optimizer=optimizer)
    path = save_checkpoint(tmp_path / "a" / "b", checkpoint)
    assert path == checkpoint_path(tmp_path / "a" / "b", 7) == tmp_path / "a" / "b" / "step-0000000007"
    path = path.rename(tmp_path / "elsewhere")
    loaded = load_checkpoint(path, jax.tree.map(jnp.zeros_like, checkpoint.state))
    assert_same_bits(loaded.state, checkpoint.state)
    assert loaded[1:] == checkpoint[1:]
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(loaded.state))


def test_save_checkpoint_replaces_the_same_step(saved):
    other = make_state(9)._replace(step=jnp.int32(5))
    assert save_checkpoint(saved.parent, Checkpoint(other, None, LOG_POSITION, 0.25)) == saved
    loaded = load_checkpoint(saved, LIKE)
    assert_same_bits(loaded.state, other)
    assert loaded.nats_per_token is None
    assert list(saved.parent.iterdir()) == [saved]
    assert sorted(path.name for path in saved.iterdir()) == ["arrays", "checkpoint.json"]


def test_save_checkpoint_non_finite_validation_is_none(tmp_path):
    for nats in (None, float("nan"), float("inf")):
        path = save_checkpoint(tmp_path, make_checkpoint(nats=nats))
        assert load_checkpoint(path, LIKE).nats_per_token is None
    assert best_step(tmp_path) is None


def test_save_checkpoint_full_disk_keeps_the_one_before(saved, monkeypatch):
    before, usage = file_checksums(saved), shutil.disk_usage(saved)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=70))
    with pytest.raises(OSError, match=r"^cannot save .*-0000000005: .*No space left on device"):
        save_checkpoint(saved.parent, make_checkpoint(nats=None))
    assert list(saved.parent.iterdir()) == [saved]
    assert file_checksums(saved) == before


def test_load_checkpoint_refuses_another_structure(saved):
    like = make_state()
    params = like.params
    for other, message in [
        (make_state(size=4), r"/embedding/embedding' is float32\[3, 2\], expected float32\[4, 2\]"),
        (like._replace(params=params | {"scale": jnp.float16(0)}), r"is float32\[\], expected float16\[\]"),
        (like._replace(params=params | {"more": jnp.zeros(2)}), r"'params/more' is missing"),
        (make_state(optimizer="sgd"), r"'opt_state/\S+' is .*, expected no array of that name"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_checkpoint(saved, other)


def test_load_checkpoint_missing(saved, tmp_path):
    (saved / "checkpoint.json").unlink()
    for path in (saved, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=path.name):
            load_checkpoint(path, LIKE)


def test_load_checkpoint_never_loads_a_flipped_byte(saved):
    count = 0
    for file in files_below(saved):
        for _ in flip_bytes(file, 6):
            with pytest.raises(ValueError, match=saved.name):
                load_checkpoint(saved, LIKE)
            count += 1
    assert count > 100
    assert_same_bits(load_checkpoint(saved, LIKE).state, make_state())


@pytest.mark.parametrize(
    "changes",
    [
        *({"step": step} for step in ("5", None, 6)),
        *({"seconds": seconds} for seconds in (None, 10**400)),
        *({"metrics": metrics} for metrics in ([1], [1, 2], {})),
        *({name: value} for name in ("arrays", "files") for value in ([], {}, [1], None)),
        {"nats_per_token": "1.5"},
        {"version": 2},
    ],
    ids=str,
)
def test_load_checkpoint_refuses_other_fields(saved, changes):
    edit_document(saved / "checkpoint.json", **changes)
    with pytest.raises(ValueError, match=saved.name):
        load_checkpoint(saved, LIKE)


def test_checkpoint_steps_ignores_other_entries(tmp_path):
    for step in (30, 4, 1_000_000_000):
        save_checkpoint(tmp_path, make_checkpoint(step))
    for name in ("step-x", "step-5", "step-00000000006", "step-" + 10 * "\u0661", "other"):
        (tmp_path / name).mkdir()
    assert checkpoint_steps(tmp_path) == [4, 30, 1_000_000_000]
    assert checkpoint_steps(tmp_path / "nowhere") == []


def test_latest_checkpoint_skips_damaged_ones_with_a_warning(tmp_path, caplog):
    save_steps(tmp_path, 1, 2, 3)
    assert_same_bits(latest_checkpoint(tmp_path, LIKE).state, make_state(3))
    assert not caplog.records
    (checkpoint_path(tmp_path, 3) / "arrays" / "000000" / ".zarray").unlink()
    (checkpoint_path(tmp_path, 2) / "checkpoint.json").unlink()
    assert_same_bits(latest_checkpoint(tmp_path, LIKE).state, make_state(1))
    (checkpoint_path(tmp_path, 1) / "checkpoint.json").unlink()
    assert latest_checkpoint(tmp_path, LIKE) is None
    assert latest_checkpoint(tmp_path / "nowhere", LIKE) is None
    skipped = [re.search("step-0{9}([123])", record.getMessage())[1] for record in caplog.records]
    assert skipped == ["3", "2", "3", "2", "1"]


def test_latest_checkpoint_skips_what_check_refuses(tmp_path, caplog):
    save_steps(tmp_path, 1, 2)

    def check(checkpoint):
        if int(checkpoint.state.step) == 2:
            raise ValueError("the log of step 2 is missing")

    assert int(latest_checkpoint(tmp_path, LIKE, check).state.step) == 1
    assert "the log of step 2 is missing" in caplog.text


def test_best_step_is_the_first_of_the_lowest(tmp_path):
    losses = {1: 2.0, 2: 1.0, 3: 1.0, 4: None, 6: 3.0}
    for step, nats in losses.items():
        save_checkpoint(tmp_path, make_checkpoint(step, nats))
    assert validation_losses(tmp_path) == losses
    assert best_step(tmp_path) == 2
    (checkpoint_path(tmp_path, 2) / "checkpoint.json").write_text("{}", "utf-8")
    assert best_step(tmp_path) == 3
    assert 2 not in validation_losses(tmp_path)
    assert best_step(tmp_path / "nowhere") is None


def test_prune_checkpoints_keeps_latest_best_and_damaged(tmp_path):
    for step, nats in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 1.5), (5, None), (6, 4.0)):
        save_checkpoint(tmp_path, make_checkpoint(step, nats))
    (checkpoint_path(tmp_path, 1) / "checkpoint.json").write_text("{}", "utf-8")
    for keep, steps in ((3, [1, 2, 4, 5, 6]), (9, [1, 2, 4, 5, 6]), (1, [1, 2, 6])):
        prune_checkpoints(tmp_path, keep)
        assert checkpoint_steps(tmp_path) == steps
    assert all(path.name.startswith("step-") for path in tmp_path.iterdir())


def test_quarantine_hides_a_checkpoint_and_keeps_it(tmp_path):
    for _ in range(2):
        quarantine(save_checkpoint(tmp_path, make_checkpoint()))
    assert checkpoint_steps(tmp_path) == []
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["unusable-step-0000000005", "unusable-step-0000000005-2"]
    load_checkpoint(tmp_path / names[0], LIKE)


def test_amend_checkpoint_keeps_the_arrays(saved):
    amended = make_checkpoint()._replace(nats_per_token=None, log_position=(3, "1" * 64), seconds=9.0)
    before = file_checksums(saved / "arrays")
    amend_checkpoint(saved.parent, amended)
    loaded = load_checkpoint(saved, LIKE)
    assert_same_bits(loaded.state, make_state())
    assert loaded[1:] == amended[1:]
    assert file_checksums(saved / "arrays") == before
    with pytest.raises(FileNotFoundError):
        amend_checkpoint(saved.parent, make_checkpoint(step=6))


@pytest.mark.slow
def test_save_checkpoint_error_at_any_call_keeps_a_valid_one(saved, monkeypatch):
    """Fail at the n-th sync or rename, for each n, while another checkpoint of step 5 is saved."""
    calls = {(os, "fsync"): os.fsync, (Path, "rename"): Path.rename, (Path, "replace"): Path.replace}
    new = make_state(9)._replace(step=jnp.int32(5))
    outcomes = []
    for failing in itertools.count(1):
        save_checkpoint(saved.parent, make_checkpoint())
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
                save_checkpoint(saved.parent, Checkpoint(new, 1.5, LOG_POSITION, 0.25))
            except OSError:
                outcomes.append("error")
            else:
                break
        state = load_checkpoint(saved, LIKE).state
        is_new = np.asarray(state.params["scale"]) == np.asarray(new.params["scale"])
        assert_same_bits(state, new if is_new else make_state())
        assert checkpoint_steps(saved.parent) == [5]
    assert len(outcomes) > 20
