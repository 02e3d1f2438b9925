"""The cost model of data parallel training, and one real measurement."""

import pytest

from experiments.speed import data_parallel


class Log:
    def log(self, text):
        pass


def test_prediction_and_efficiency_follow_from_the_times(monkeypatch):
    times = {"alone": 8.0, "all_reduce": 2.0, "together": 8.0, "grad_shards": 9.0}

    def fake(num_processes, *_):
        return times | {"alone": 8.0 / num_processes, "together": 8.0 / num_processes + 4}

    monkeypatch.setattr(data_parallel, "time_processes", fake)
    rows = {row["num_processes"]: row for row in data_parallel.time_all([128], 10, 2, Log())}
    assert [rows[n]["predicted"] for n in (1, 2, 4)] == [8, 6, 4]
    assert rows[2]["predicted_efficiency"] == 8 / (2 * 6)
    assert rows[4]["efficiency"] == 8 / (4 * 6)


@pytest.mark.stress
def test_two_processes_are_timed():
    times = data_parallel.time_processes(2, 8, 2, 1)
    assert times["gradient_bytes"] == 4 * 403_520
    assert all(times[name] > 0 for name in ("alone", "all_reduce", "together", "grad_shards"))
