"""Train, stop, resume and evaluate on an encoded text, with the figures of the same text in memory."""

import numpy as np
import pytest
from session_helpers import QUIET

import jaxlm
from jaxlm.cli.evaluate import EvaluateOptions, evaluate_text
from jaxlm.runs.config import TrainConfig, resolve
from jaxlm.text import open_tokens
from jaxlm.utils.json_files import file_sha256, read_json

SMALL = {"model": "mlp", "hidden_dim": 4, "embedding_dim": 4, "num_steps": 30, "log_every": 10, "device": "cpu"}
TEXT = "to be, or not to be: that is the question:\nWhether 'tis nobler in the mind to suffer\n" * 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens")
    (path / "play.txt").write_text(TEXT)
    jaxlm.encode_files([path / "play.txt"], "bpe", path / "tokens", vocab_size=280, shard_size=300)
    return path


def test_a_run_on_tokens_equals_the_run_on_the_text(folder, tmp_path, monkeypatch):
    runs = {
        "text": TrainConfig(text=folder / "play.txt", vocab_size=280, **SMALL),
        "tokens": TrainConfig(tokens=folder / "tokens", **SMALL),
    }
    for name, config in runs.items():
        jaxlm.start_run(config, tmp_path / name)
    assert (tmp_path / "tokens/metrics.jsonl").read_bytes() == (tmp_path / "text/metrics.jsonl").read_bytes()
    assert (tmp_path / "tokens/samples.txt").read_bytes() == (tmp_path / "text/samples.txt").read_bytes()
    results = {name: read_json(tmp_path / name / "results.json") for name in runs}
    for field in ("tokens", "tokenizer", "validation_bytes_per_token", "prompt"):
        assert results["tokens"][field] == results["text"][field], field
    assert results["tokens"]["corpus"]["source"] == str(folder / "tokens")
    options = TrainConfig(tokens=folder / "tokens", **SMALL | {"num_steps": 40})
    verified = []
    monkeypatch.setattr(open_tokens, "file_sha256", lambda path: verified.append(path.name) or file_sha256(path))
    jaxlm.resume_run(tmp_path / "tokens", options)
    assert verified.count("000000.npy") == 1
    assert jaxlm.open_run(tmp_path / "tokens").manifest["state"] == "done"
    evaluated = [
        evaluate_text(EvaluateOptions(tmp_path / "text", part="all", **source), QUIET)
        for source in ({"text": folder / "play.txt"}, {"tokens": folder / "tokens"})
    ]
    for field in ("num_tokens", "bits_per_byte", "perplexity"):
        assert evaluated[0][field] == pytest.approx(evaluated[1][field], rel=1e-6)


def test_a_run_refuses_other_tokens(folder, tmp_path):
    config = TrainConfig(tokens=folder / "tokens", **SMALL)
    jaxlm.start_run(config, tmp_path / "run")
    other = jaxlm.encode_files([folder / "play.txt"], "byte", folder / "bytes")
    assert len(other) == len(TEXT)
    config = TrainConfig(tokens=folder / "bytes", **SMALL | {"num_steps": 40})
    with pytest.raises(ValueError, match="sha256"):
        jaxlm.resume_run(tmp_path / "run", config)
    np.arange(99, dtype="<u2").tofile(tmp_path / "train.bin")
    with pytest.raises(ValueError, match=r"train\.bin has no tokenizer; make it with jaxlm encode"):
        jaxlm.start_run(TrainConfig(tokens=tmp_path / "train.bin", **SMALL), tmp_path / "no")


@pytest.mark.parametrize("other", [{"text": "a.txt"}, {"corpus": "shakespeare"}, {"tokenizer": "char"}])
def test_tokens_exclude_other_texts_and_tokenizers(other):
    with pytest.raises(ValueError, match=rf"^tokens x and {next(iter(other))} .* exclude each other; remove one"):
        resolve(TrainConfig(tokens="x", **other))
