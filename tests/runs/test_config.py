"""The options of a run: defaults, ranges, types and JSON."""

import json
import math
import re
import reprlib
from pathlib import Path

import numpy as np
import pytest

from jaxlm.runs.config import (
    TrainConfig,
    config_from_json,
    config_to_json,
    read_config,
    reset_dependent_options,
    resolve,
)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("counts", {"smoothing": 1.0}),
        ("bigram", {"embedding_dim": 64, "lr": 2.0}),
        ("mlp", {"context_length": 3, "embedding_dim": 32, "hidden_dim": 64, "dropout": 0.0, "lr": 0.5}),
    ],
)
def test_resolve_fills_the_defaults_of_each_model(model, expected):
    config = resolve(TrainConfig(model=model))
    names = ("smoothing", "context_length", "embedding_dim", "hidden_dim", "dropout", "lr")
    assert {name: getattr(config, name) for name in names if getattr(config, name) is not None} == expected
    assert config.vocab_size == 4096
    assert resolve(config) == config


def test_resolve_makes_paths_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    resolved = resolve(TrainConfig(text="notes.txt", tokenizer="~/char.json"))
    assert (resolved.text, resolved.tokenizer) == (tmp_path / "notes.txt", tmp_path / "home" / "char.json")
    assert TrainConfig(tokenizer="./char").tokenizer == Path("char")  # a file of that name


def test_resolve_fills_the_rate_of_each_optimizer():
    rates = {"sgd": 0.5, "adam": 0.01, "adamw": 0.01, "muon": 0.05}
    assert {name: resolve(TrainConfig(optimizer=name)).lr for name in rates} == rates
    assert resolve(TrainConfig(model="counts", optimizer="adam")).lr is None
    adam = resolve(TrainConfig(optimizer="adam"))
    assert reset_dependent_options(adam, optimizer="sgd").lr is None


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"model": "counts", "context_length": 3}, "context_length 3"),
        ({"model": "counts", "lr": 0.5}, "lr 0.5"),
        ({"model": "bigram", "hidden_dim": 8}, "hidden_dim 8"),
        ({"model": "bigram", "dropout": 0.5}, "dropout 0.5"),
        ({"model": "bigram", "direct_connections": True}, "direct_connections"),
        ({"model": "mlp", "smoothing": 1.0}, "smoothing 1.0"),
        ({"tokenizer": "char", "vocab_size": 300}, "vocab_size 300"),
    ],
)
def test_resolve_rejects_options_of_other_choices(options, name):
    with pytest.raises(ValueError, match=rf"^{name} .*does not apply to (model|tokenizer) \w+; remove it$"):
        resolve(TrainConfig(**options))
    if "tokenizer" in options:
        assert resolve(TrainConfig(tokenizer="char")).vocab_size is None


POSITIVE = "context_length", "embedding_dim", "hidden_dim", "batch_size", "log_every", "save_every"


@pytest.mark.parametrize(
    ("model", "name", "inside", "outside"),
    [
        ("mlp", "vocab_size", [256, 2**31 - 1], [255, 0, -1, 2**31]),
        ("mlp", "val_fraction", [1e-9, 0.999], [0, 1, 0.0, 1.0, -0.1, 1.1]),
        ("counts", "smoothing", [0, 0.0, 1e-30, 1e9], [-1, -1e-9, 1e30, 10**400]),
        ("mlp", "num_steps", [1, 2**31 - 1], [0, -5, 2**31, 10**400]),
        ("mlp", "dropout", [0, 0.999], [-0.1, 1, 1.5]),
        ("mlp", "warmup_steps", [0, 5999], [-1, 6000, 2**31]),
        ("mlp", "clip_norm", [1e-9, 1, None], [0, 0.0, -1, 1e300, 10**400]),
        ("mlp", "patience", [1, None], [0, 2**31]),
        ("mlp", "seed", [0, 2**32 - 1], [-1, 2**32]),
        ("mlp", "save_seconds", [0, 0.1], [-1]),
        ("mlp", "keep", [1], [0]),
        ("mlp", "lr", [0, 2**31 - 1], [-1e-9, 2**31]),
        ("mlp", "momentum", [0, 0.999], [-0.1, 1]),
        ("mlp", "weight_decay", [0, 2**31 - 1], [-1e-9, 2**31]),
        *(("mlp", name, [1, 2**31 - 1], [0, 2**31]) for name in POSITIVE),
    ],
)
def test_resolve_checks_ranges(model, name, inside, outside):
    for value in inside:
        assert getattr(resolve(TrainConfig(model=model, **{name: value})), name) == value
    for value in outside:
        with pytest.raises(ValueError, match=rf"^{name} .*\b(must be in|must be below)\b") as error:
            resolve(TrainConfig(model=model, **{name: value}))
        assert re.search(re.escape(reprlib.repr(value)), str(error.value))


def test_resolve_rejects_a_text_and_a_corpus():
    with pytest.raises(ValueError, match=r"text a\.txt and corpus shakespeare"):
        resolve(TrainConfig(text=Path("a.txt"), corpus="shakespeare"))


WRONG_TYPES = {
    "keep": ["3", 3.0, True, [3], math.nan, np.float64(3), None],
    "lr": ["0.5", True, [0.5], {}, np.array([0.5])],
    "tensorboard": [0, "true", None],
    "device": [0, None, True, ["cpu"]],
    "text": [0, True, ["a"]],
    "tokenizer": [0, None],
}


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_config_checks_types(name):
    for value in WRONG_TYPES[name]:
        with pytest.raises(ValueError, match=rf"^{name} must be "):
            TrainConfig(**{name: value})
        with pytest.raises(ValueError, match=rf"^here\.json: {name} must be "):
            config_from_json({name: value}, origin="here.json")


def test_config_lists_the_choices():
    with pytest.raises(ValueError, match=r"^optimizer must be one of sgd, adam, adamw, muon, got 'adamax'"):
        TrainConfig(optimizer="adamax")


def test_messages_shorten_long_and_deep_values():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in ("x" * 10_000, deep, list(range(10_000))):
        with pytest.raises(ValueError, match="here: model must be") as error:
            config_from_json({"model": value}, origin="here")
        assert len(str(error.value)) < 200


def test_read_config_inverts_config_to_json(tmp_path):
    options: dict = {"text": Path("/texts/é.txt"), "tokenizer": Path("/tokenizers/é.json"), "clip_norm": None}
    options |= {"tokens": Path("/tokens/é")}
    options |= {"model": "bigram", "corpus": "shakespeare", "optimizer": "muon", "schedule": "constant"}
    options |= {"device": "cpu", "seed": 2**32 - 1, "lr": 0.25, "momentum": 0.5, "weight_decay": 0.125}
    options |= dict.fromkeys(["direct_connections", "tensorboard"], True)
    options |= dict.fromkeys(["val_fraction", "smoothing", "dropout", "save_seconds"], 0.75)
    names = "vocab_size", "num_steps", "warmup_steps", "patience", "keep", "grad_shards", "val_windows", *POSITIVE
    config = TrainConfig(**options | dict.fromkeys(names, 300))
    assert not set(vars(TrainConfig()).items()) & set(vars(config).items())  # each option has another value
    (tmp_path / "config.json").write_text(json.dumps(config_to_json(config)), "utf-8")
    assert read_config(tmp_path / "config.json") == config


def test_config_from_json_names_an_unknown_option():
    assert config_from_json({"seed": 5}, origin="here") == TrainConfig(seed=5)
    with pytest.raises(ValueError, match=r"here: unknown option 'learning_rate'; available options: model, cor"):
        config_from_json({"seed": 1, "learning_rate": 1}, origin="here")
    with pytest.raises(ValueError, match="unknown option") as error:
        config_from_json({"x" * 10_000: 1, "\ud800": 2}, origin="here")
    assert len(str(error.value)) < 1000


def test_config_converts_numpy_scalars_and_paths():
    config = TrainConfig(
        lr=np.float64(0.5), dropout=np.float32(0.25), seed=np.int64(3), tensorboard=np.bool_(True)
    )
    assert config == TrainConfig(lr=0.5, dropout=0.25, seed=3, tensorboard=True)
    assert json.loads(json.dumps(config_to_json(config)))["lr"] == 0.5
    assert TrainConfig(text="a/str/path").text == Path("a/str/path")


@pytest.mark.parametrize("content", ["null", "[1]", '{"lr": "x"}'])
def test_read_config_names_an_invalid_file(content, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(content, "utf-8")
    with pytest.raises(ValueError, match=r"config\.json"):
        read_config(path)


def test_reset_dependent_options_keeps_the_others():
    resolved = resolve(TrainConfig(hidden_dim=200, direct_connections=True, seed=3))
    assert reset_dependent_options(resolved, model="mlp", tokenizer="bpe") == resolved
    assert reset_dependent_options(resolved, model="counts") == TrainConfig(vocab_size=4096, seed=3)
    assert reset_dependent_options(resolved, tokenizer="char").vocab_size is None
