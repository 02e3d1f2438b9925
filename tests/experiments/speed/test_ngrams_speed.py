"""Timing of n-grams: the columns of the table, with programs that stand for KenLM's."""

import pytest

from experiments.speed.ngrams import NgramOptions, prepare


@pytest.mark.slow
def test_ngrams_reports_times_and_peaks(run, tmp_path):
    for name in ("lmplz", "build_binary"):
        (tmp_path / name).write_text("#!/bin/sh\nsleep 0.1\n")
        (tmp_path / name).chmod(0o755)
    options = NgramOptions(quick=True, order=3, repeats=1, kenlm=tmp_path, out=tmp_path / "run")
    _, results, printed = run(prepare, options)
    (row,) = results["rows"]
    assert row["tokens"] == 180_000
    assert all(row[name] > 0 for name in ("fit_s", "score_us", "kenlm_gib"))
    assert row["lmplz_s"] > 0.1
    assert row["build_binary_s"] > 0.1
    assert 0.05 < row["fit_gib"] < 4
    assert "build_binary (s)" in printed
