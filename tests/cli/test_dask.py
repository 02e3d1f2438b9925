"""Encode and count on a Dask cluster: the same files as on threads, also if a worker is killed."""

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

import jaxlm
from jaxlm.cli import main
from jaxlm.cli.shared import WorkerOptions, open_executor

distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # Dask's own warnings

WORDS = ["To be,", " or not to be:", " that is the question.\n", "Whether 'tis nobler\n\n"]


@pytest.fixture(scope="module")
def cluster():
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    with distributed.LocalCluster(processes=True, **options) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text of about 8 MB, which makes several pieces."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    picked = np.random.default_rng(0).integers(0, len(WORDS), 500_000)
    path.write_text("".join(WORDS[word] for word in picked))
    return path


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def kill_a_worker(cluster):
    """Kill the process of a worker while it has work."""
    with distributed.Client(cluster) as client:
        while not any(client.processing().values()):
            time.sleep(0.01)
        pids = list(client.run(os.getpid).values())
    os.kill(pids[0], signal.SIGKILL)


def test_encode_on_a_cluster_whose_worker_is_killed(cluster, text, tmp_path):
    assert (
        main(["encode", str(text), "--tokenizer", "bpe", "--vocab-size", "300", "--out", str(tmp_path / "local")])
        == 0
    )
    killer = threading.Thread(target=kill_a_worker, args=(cluster,))
    killer.start()
    words = ["encode", str(text), "--tokenizer", "bpe", "--vocab-size", "300", "--out", str(tmp_path / "dask")]
    assert main([*words, "--dask", cluster.scheduler_address]) == 0
    killer.join()
    assert files_of(tmp_path / "dask") == files_of(tmp_path / "local")


def test_count_on_a_cluster(cluster, text, tmp_path):
    np.save(tmp_path / "ids.npy", jaxlm.ByteTokenizer().encode(text.read_text()))
    counted = []
    for name, words in (("local", []), ("dask", ["--dask", cluster.scheduler_address])):
        assert (
            main(["count", str(tmp_path / "ids.npy"), "--order", "3", "--out", str(tmp_path / name), *words]) == 0
        )
        counted.append(files_of(tmp_path / name))
    assert counted[0] == counted[1]


def test_open_executor_reports_a_lost_cluster(cluster):
    def submit_without_connection():
        with open_executor(WorkerOptions(dask=cluster.scheduler_address)) as (executor, _):
            distributed.default_client().close()
            executor.submit(len, "a").result()

    with pytest.raises(ConnectionError, match=f"lost the Dask cluster at {cluster.scheduler_address}"):
        submit_without_connection()


def test_no_scheduler_at_the_address(text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["jaxlm.cli.shared"], "_DASK_SECONDS", 0.5)
    words = ["encode", str(text), "--out", str(tmp_path / "tokens"), "--dask", "tcp://127.0.0.1:9"]
    assert main(words) == 2
    assert "127.0.0.1:9" in capsys.readouterr().err
