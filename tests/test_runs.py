"""A run's folder is never taken from another, and holds JSON that every program can read."""

import json
import math
import re

import jax
import pytest

from jaxlm.runs import (
    append_metrics,
    check_run_path,
    create_run,
    describe_environment,
    new_run_path,
    write_json,
)


def read(path):
    """JSON as a strict reader takes it: no Infinity, no NaN."""
    return json.loads(path.read_text("utf-8"), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_a_run_begins_with_its_config(tmp_path):
    run = create_run(tmp_path / "a" / "run", {"seed": 3, "prompt": "é"})
    config = read(run / "config.json")
    assert (config["seed"], config["prompt"]) == (3, "é")


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "run").mkdir()
    assert (create_run(tmp_path / "run", {}) / "config.json").exists()


def test_a_run_is_replaced_only_when_asked(tmp_path):
    run = create_run(tmp_path / "run", {"seed": 1})
    (run / "results.json").write_text("{}")
    (run / "models" / "mlp").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="--overwrite"):
        create_run(run, {"seed": 2})
    assert read(run / "config.json")["seed"] == 1
    create_run(run, {"seed": 2}, overwrite=True)
    assert read(run / "config.json")["seed"] == 2
    assert [entry.name for entry in run.iterdir()] == ["config.json"]


@pytest.mark.parametrize("config", [None, "{}", "[" * 100_000, '{"model": "someone else\'s"}'])
def test_a_folder_that_is_no_run_is_never_replaced(tmp_path, config):
    (tmp_path / "thesis.txt").write_text("years of work")
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(FileExistsError, match="no run"):
        create_run(tmp_path, {}, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_file_of_the_users_in_a_run_is_never_removed(tmp_path):
    run = create_run(tmp_path / "run", {"seed": 1})
    (run / "notes.txt").write_text("what I saw")
    with pytest.raises(FileExistsError, match=r"'notes\.txt', which no run wrote"):
        create_run(run, {"seed": 2}, overwrite=True)
    assert (run / "notes.txt").read_text() == "what I saw"
    assert read(run / "config.json")["seed"] == 1


def test_a_run_behind_a_link_is_replaced_where_it_lies(tmp_path):
    run = create_run(tmp_path / "run", {"seed": 1})
    (tmp_path / "link").symlink_to(run)
    create_run(tmp_path / "link", {"seed": 2}, overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert read(run / "config.json")["seed"] == 2


def test_metrics_that_cannot_be_written_name_their_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none/metrics\.jsonl"):
        append_metrics(tmp_path / "none" / "metrics.jsonl", {})


def test_a_file_in_the_way_is_never_replaced(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(FileExistsError, match="no run"):
        check_run_path(tmp_path / "run", overwrite=True)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/run cannot be written .* choose another --out"):
        create_run(tmp_path / "file" / "run", {})


def test_numbers_that_json_lacks_become_null(tmp_path):
    write_json(tmp_path / "x.json", {"a": math.inf, "b": [math.nan, 1.5], "c": (2, -math.inf)})
    assert read(tmp_path / "x.json") == {"a": None, "b": [None, 1.5], "c": [2, None]}


def test_metrics_are_one_object_a_line(tmp_path):
    for step in range(3):
        append_metrics(tmp_path / "metrics.jsonl", {"step": step, "loss": math.inf})
    lines = (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"step": step, "loss": None} for step in range(3)]


def test_a_new_run_has_a_name_that_sorts_by_time():
    assert re.fullmatch(r"runs/ladder-\d{8}-\d{6}", new_run_path("ladder").as_posix())


def test_runs_of_the_same_second_have_names_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [create_run(new_run_path("ladder"), {}) for _ in range(20)]
    assert len(set(paths)) == 20


def test_the_environment_names_versions_and_device():
    environment = describe_environment(jax.devices("cpu")[0])
    assert environment["versions"]["jax"] == jax.__version__
    assert environment["device"]["platform"] == "cpu"
    json.dumps(environment)
