"""Changes beyond the noise are told from noise, and files of another kind are refused."""

import json

import pytest

from experiments.speed.jit.diff_runs import describe_changes, read_results

ROW = {
    "device": "cpu:0",
    "size": "small",
    "stage": "forward",
    "minimum_us": 99.0,
    "median_us": 100.0,
    "spread_us": 1.0,
}


def make_results(**changes):
    return {
        "versions": {"jax": "0.10.2"},
        "platform": "Linux",
        "devices": {"cpu:0": "cpu"},
        "sizes": {"small": {"vocab_size": 27}},
        "ceilings": {"cpu:0": {"flops_per_second": 2e11, "bytes_per_second": 2e10}},
        "rows": [ROW | {"variant": name} | changes.get(name, {}) for name in ("eager", "jit", "loop", "vmap")],
    }


def test_describe_changes_ignores_noise():
    new = make_results(
        jit={"median_us": 130.0, "minimum_us": 128.0},
        loop={"median_us": 130.0, "minimum_us": 100.5, "spread_us": 40.0},  # the ranges overlap
        vmap={"median_us": 104.0, "minimum_us": 103.5},  # below 5 %
    )
    assert describe_changes(make_results(), new) == [
        "cpu:0 small forward jit: 100 -> 130 us (+30%)",
        "1 of 4 figures changed by more than the noise",
    ]
    assert "cpu:0 small forward jit: 130 -> 100 us (-23%)" in describe_changes(new, make_results())


def test_describe_changes_notes_other_environments():
    new = make_results() | {"devices": {"cpu:0": "other"}, "versions": {"jax": "0.12.0"}, "platform": "Darwin"}
    new["sizes"] = {"small": {"vocab_size": 30}, "large": {}}
    new["rows"] = new["rows"][:3]
    new["ceilings"] = {"cpu:0": {"flops_per_second": 1e11, "bytes_per_second": 2.01e10}}
    assert describe_changes(make_results(), new) == [
        "note: platform: Linux -> Darwin",
        "note: devices, cpu:0: cpu -> other",
        "note: versions, jax: 0.10.2 -> 0.12.0",
        "note: sizes, small: {'vocab_size': 27} -> {'vocab_size': 30}",
        "note: ceiling of cpu:0, flops_per_second: 2e+11 -> 1e+11 (-50%)",
        "note: 1 rows are in one file only",
        "0 of 3 figures changed by more than the noise",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "must be a JSON object"),
        ('{"kind": "ladder"}', "is not a results.json"),
        (json.dumps(make_results() | {"rows": [3]}), "row 0 must have"),
        (json.dumps(make_results(jit={"variant": None})), "row 1 must have"),
        (json.dumps(make_results(jit={"median_us": 0})), "row 1: median_us must be .*, got 0"),
        (json.dumps(make_results(jit={"median_us": 10**400})), "row 1: median_us must be .*, got 10"),
        (json.dumps(make_results(jit={"spread_us": float("nan")})), "row 1: spread_us must be .*, got nan"),
    ],
)
def test_read_results_refuses_other_files(tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_results(path)
