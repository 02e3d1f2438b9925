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
    assert read(run / "config.json") == {"seed": 3, "prompt": "é"}


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "run").mkdir()
    assert (create_run(tmp_path / "run", {}) / "config.json").exists()


def test_a_run_is_replaced_only_when_asked(tmp_path):
    run = create_run(tmp_path / "run", {"seed": 1})
    (run / "old.txt").write_text("old")
    with pytest.raises(FileExistsError, match="--overwrite"):
        create_run(run, {"seed": 2})
    assert read(run / "config.json") == {"seed": 1}
    create_run(run, {"seed": 2}, overwrite=True)
    assert read(run / "config.json") == {"seed": 2}
    assert not (run / "old.txt").exists()


def test_a_folder_that_is_no_run_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="no run"):
        create_run(tmp_path, {}, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


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


def test_the_environment_names_versions_and_device():
    environment = describe_environment(jax.devices("cpu")[0])
    assert environment["versions"]["jax"] == jax.__version__
    assert environment["device"]["platform"] == "cpu"
    json.dumps(environment)
