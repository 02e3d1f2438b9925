"""Load the checkpoints and models of runs."""

import shutil

import jax
import pytest
from tiny_runs import bits, flip_bit, largest_file

import jaxlm
from jaxlm.checkpoints.train_states import checkpoint_path, checkpoint_steps
from jaxlm.runs.directory import create_run
from jaxlm.runs.load import load_model
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.text.dataset import load_dataset

slow = pytest.mark.slow


@slow
def test_load_model_finds_every_checkpoint(finished_run, text_folder):
    steps = checkpoint_steps(finished_run / "checkpoints")
    assert steps == [4, 8, 12]
    by_step = {step: bits(load_model(finished_run, step)[1]) for step in steps}
    assert len({str(each) for each in by_step.values()}) == len(steps)
    assert bits(load_model(str(finished_run))[1]) == bits(load_model(finished_run, "last")[1]) == by_step[12]
    model, best, _ = load_model(finished_run, "best")
    nats = [line["val_nats_per_token"] for line in read_metrics(finished_run / "metrics.jsonl")]
    val_ids = load_dataset("", text_folder / "text.txt", "char").val_ids
    assert jaxlm.evaluate(model, best, val_ids, device="cpu").nats_per_token == min(nats) < nats[-1]
    available = ", ".join(map(str, steps))
    for unknown in (5, "5", "newest"):
        with pytest.raises(FileNotFoundError, match=f"{unknown!r}; available: final, best, last, {available}"):
            load_model(finished_run, unknown)


@slow
def test_the_final_model_of_an_unfinished_run_is_its_last_checkpoint(stopped, finished_run, caplog):
    assert bits(load_model(stopped)[1]) == bits(load_model(stopped, 6)[1]) != bits(load_model(finished_run)[1])
    flip_bit(largest_file(checkpoint_path(stopped / "checkpoints", 6)))
    assert bits(load_model(stopped)[1]) == bits(load_model(stopped, 4)[1])
    assert "step_0000000006" in caplog.text
    with pytest.raises(ValueError, match="step_0000000006"):
        load_model(stopped, 6)
    shutil.rmtree(checkpoint_path(stopped / "checkpoints", 4))
    with pytest.raises(FileNotFoundError, match="has no usable checkpoint; resume it, or start"):
        load_model(stopped)


@slow
def test_the_final_model_of_a_finished_run_is_never_another(finished):
    shutil.rmtree(finished / "model")
    with pytest.raises(FileNotFoundError, match=r"model.*; load a checkpoint, such as 'last', or start"):
        load_model(finished)
    load_model(finished, "last")


@slow
def test_load_model_reads_runs_directories_and_files(finished_run, tmp_path):
    model, variables, tokenizer = load_model(finished_run)
    jaxlm.save_model(tmp_path / "model.safetensors", model, variables, tokenizer)
    for path in (tmp_path / "model.safetensors", finished_run / "model"):
        opened = load_model(str(path))
        assert (opened[0], opened[2]) == (model, tokenizer)
        assert bits(opened[1]) == bits(variables)
        with pytest.raises(ValueError, match="is not a run directory, so it has no checkpoint 'best'"):
            load_model(path, "best")


def test_load_model_refuses_the_run_of_an_experiment(tmp_path):
    with create_run(tmp_path / "ladder", "ladder", {}, jax.devices("cpu")[0]):
        pass
    with pytest.raises(ValueError, match=r"is a ladder run, not a train run; its models are in .*ladder/models"):
        load_model(tmp_path / "ladder")
