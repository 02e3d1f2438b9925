"""Headline figures of finished, unfinished and damaged runs."""

import json

import jax
import pytest

from jaxlm.runs.directory import create_run
from jaxlm.runs.manifest import read_manifest, write_json, write_manifest
from jaxlm.runs.metrics_log import append_metrics
from jaxlm.runs.summary import list_runs, summarize_run

CPU = jax.devices("cpu")[0]
FIGURES = {"nats_per_token": 4.5, "perplexity": 90.0, "bits_per_byte": 2.1, "train_seconds": 3.0}
ROW = {"name": "MLP", **FIGURES}


def make_run(path, *, kind="train", started=None, rows=None, nats=()):
    with create_run(path, kind, {"model": "mlp"}, CPU):
        for step, each in enumerate(nats):
            line = {"model": "mlp", "step": 10 * step, "val_nats_per_token": each, "val_perplexity": 2 * each}
            append_metrics(path / "metrics.jsonl", line)
        if rows is not None:
            write_json(path / "results.json", {"models": rows})
    if started is not None:
        write_manifest(path, read_manifest(path) | {"started": started})
    return path


def test_a_finished_run_has_the_figures_of_its_results(tmp_path):
    run = make_run(tmp_path / "run", rows=[ROW], nats=[8.0, 5.0])
    started = read_manifest(run)["started"]
    expected = {"run": "run", "path": str(run), "kind": "train", "state": "done", "why": None, "started": started}
    expected |= {"options": {"model": "mlp"}}
    assert summarize_run(run) == expected | {"model": "MLP", "steps": 11, **FIGURES}


def test_an_unfinished_run_has_the_figures_of_its_last_record(tmp_path):
    unknown = {"model": "mlp", "steps": None, **dict.fromkeys(FIGURES)}
    assert summarize_run(make_run(tmp_path / "empty")).items() >= unknown.items()
    run = make_run(tmp_path / "run", nats=[8.0, 5.0])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 100, "val_n')
    expected = unknown | {"steps": 11, "nats_per_token": 5.0, "perplexity": 10.0}
    assert summarize_run(run).items() >= expected.items()


def test_a_run_of_several_models_has_the_figures_of_the_best(tmp_path):
    names = {"counts": None, "neural bigram": 4.8, "MLP": 4.7, "trigram": 4.9}  # None: infinite, in JSON
    rows = [ROW | {"name": name, "nats_per_token": nats} for name, nats in names.items()]
    summary = summarize_run(make_run(tmp_path, kind="ladder", rows=rows))
    assert (summary["kind"], summary["model"], summary["nats_per_token"]) == ("ladder", "MLP", 4.7)


def test_a_run_without_models_has_no_figures(tmp_path):
    run = make_run(tmp_path, kind="jit")
    write_json(run / "results.json", {"rows": [1]})
    assert summarize_run(run).items() >= {"state": "done", "steps": None, **dict.fromkeys(FIGURES)}.items()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", '{"models": [{"name": "MLP"}]}'),
        ("results.json", json.dumps({"models": [ROW | {"nats_per_token": "x"}]})),
        ("results.json", '{"models": ['),
        ("results.json", "[]"),
        ("metrics.jsonl", '{"model": "mlp", "step": 0}\n{"st\n'),
    ],
)
def test_a_damaged_file_makes_the_run_damaged(tmp_path, name, content):
    run = make_run(tmp_path / "run")
    (run / name).write_text(content)
    summary = summarize_run(run)
    assert (summary["kind"], summary["state"], summary["nats_per_token"]) == ("train", "damaged", None)
    assert summary["why"]


def test_list_runs_orders_by_start_and_skips_other_entries(tmp_path):
    for name, started in (("a", "2026-01-02"), ("b", "2026-01-01"), ("c", "2026-01-02")):
        make_run(tmp_path / name, started=started)
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").write_text("")
    (make_run(tmp_path / "damaged") / "manifest.json").write_text("")
    assert [summary["run"] for summary in list_runs(tmp_path)] == ["damaged", "b", "a", "c"]
    with pytest.raises(FileNotFoundError):
        list_runs(tmp_path / "none")
