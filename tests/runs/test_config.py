"""A run's options: what None stands for, what is in range, and what a hostile JSON file is answered."""

import dataclasses
import json
import math
import re
import reprlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from jaxlm.runs.config import (
    TrainConfig,
    config_from_json,
    config_to_json,
    differing_options,
    format_flag,
    read_config,
    reset_dependent_options,
    resolve,
)

# Another valid value for every option.
OTHERS = {
    "model": "bigram",
    "corpus": "shakespeare",
    "text": Path("/texts/é.txt"),
    "tokenizer": "char",
    "vocab_size": 300,
    "val_fraction": 0.25,
    "smoothing": 0.5,
    "context_length": 5,
    "embedding_dim": 7,
    "hidden_dim": 9,
    "dropout": 0.5,
    "direct_connections": True,
    "num_steps": 11,
    "batch_size": 13,
    "lr": 1,
    "schedule": "constant",
    "warmup_steps": 3,
    "momentum": 0,
    "weight_decay": 0.125,
    "decoupled_decay": True,
    "clip_norm": None,
    "log_every": 17,
    "patience": 2,
    "seed": 2**32 - 1,
    "save_every": 19,
    "save_seconds": 0.5,
    "keep": 3,
    "device": "cpu",
    "tensorboard": True,
}
OPTIONS = [field.name for field in dataclasses.fields(TrainConfig)]
each_option = pytest.mark.parametrize("name", OPTIONS)


# What None stands for.


@pytest.mark.parametrize(
    ("model", "filled"),
    [
        ("counts", {"smoothing": 1.0}),
        ("bigram", {"embedding_dim": 64, "lr": 2.0}),
        ("mlp", {"context_length": 3, "embedding_dim": 32, "hidden_dim": 64, "dropout": 0.0, "lr": 0.5}),
    ],
)
def test_each_model_has_its_own_defaults_and_no_option_of_another(model, filled):
    config = resolve(TrainConfig(model=model))
    names = ("smoothing", "context_length", "embedding_dim", "hidden_dim", "dropout", "lr")
    assert {name: getattr(config, name) for name in names if getattr(config, name) is not None} == filled
    assert config.vocab_size == 4096


def test_what_was_given_is_not_filled_in():
    given = TrainConfig(context_length=1, embedding_dim=2, hidden_dim=3, dropout=0.5, lr=0.25, vocab_size=256)
    assert resolve(given) == given


def test_resolving_twice_is_resolving_once():
    for model in ("counts", "bigram", "mlp"):
        once = resolve(TrainConfig(model=model, text=Path("notes.txt")))
        assert resolve(once) == once


def test_the_text_is_found_again_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve(TrainConfig(text=Path("notes.txt"))).text == tmp_path / "notes.txt"


@pytest.mark.parametrize("tokenizer", ["char", "byte"])
def test_only_bpe_is_given_a_vocab_size(tokenizer):
    assert resolve(TrainConfig(tokenizer=tokenizer)).vocab_size is None
    with pytest.raises(ValueError, match=f"--vocab-size 300 is for --tokenizer bpe; {tokenizer} has its own"):
        resolve(TrainConfig(tokenizer=tokenizer, vocab_size=300))


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [
        ("counts", "context_length", 3),
        ("counts", "embedding_dim", 8),
        ("counts", "hidden_dim", 8),
        ("counts", "lr", 0.5),
        ("bigram", "context_length", 2),
        ("bigram", "hidden_dim", 8),
        ("bigram", "dropout", 0.5),
        ("bigram", "smoothing", 1.0),
        ("mlp", "smoothing", 1.0),
    ],
)
def test_an_option_of_another_model_is_refused(model, name, value):
    with pytest.raises(ValueError, match=rf"{format_flag(name)} {value} is not for --model {model}"):
        resolve(TrainConfig(model=model, **{name: value}))


@pytest.mark.parametrize("model", ["counts", "bigram"])
def test_only_the_mlp_has_direct_connections(model):
    with pytest.raises(ValueError, match=f"--direct-connections is not for --model {model}"):
        resolve(TrainConfig(model=model, direct_connections=True))


# Ranges.


@pytest.mark.parametrize(
    ("model", "name", "inside", "outside"),
    [
        ("mlp", "vocab_size", [256, 2**31 - 1], [255, 0, -1, 2**31]),
        ("mlp", "val_fraction", [1e-9, 0.999], [0, 1, 0.0, 1.0, -0.1, 1.1]),
        ("counts", "smoothing", [0, 0.0, 1e-30, 1e9], [-1, -1e-9, 1e30, 10**400]),
        ("mlp", "context_length", [1, 100], [0, -1, 2**31]),
        ("mlp", "embedding_dim", [1], [0, 2**31]),
        ("mlp", "hidden_dim", [1], [0, 2**31]),
        ("mlp", "num_steps", [1, 2**31 - 1], [0, -5, 2**31, 10**400]),
        ("mlp", "batch_size", [1], [0, 2**31]),
        ("mlp", "dropout", [0, 0.999], [-0.1, 1, 1.5]),
        ("mlp", "lr", [0, 1e-9, 100], [-1e-9, 1e300]),
        ("mlp", "warmup_steps", [0, 5999], [-1, 2**31]),
        ("mlp", "momentum", [0, 0.999], [-0.1, 1, 1.5]),
        ("mlp", "weight_decay", [0, 1], [-1e-9, 10**400]),
        ("mlp", "clip_norm", [1e-9, 1, None], [0, 0.0, -1, 1e300, 10**400]),
        ("mlp", "log_every", [1], [0, -1]),
        ("mlp", "patience", [1, None], [0, 2**31]),
        ("mlp", "seed", [0, 2**32 - 1], [-1, 2**32]),
        ("mlp", "save_every", [1, None], [0]),
        ("mlp", "save_seconds", [0, 0.1], [-1]),
        ("mlp", "keep", [1], [0]),
    ],
)
def test_a_number_in_its_range_is_taken_and_one_outside_is_named_with_its_option(model, name, inside, outside):
    for value in inside:
        assert getattr(resolve(TrainConfig(model=model, **{name: value})), name) == value or value is None
    for value in outside:
        with pytest.raises(ValueError, match=re.escape(f", got {reprlib.repr(value)}")) as error:
            resolve(TrainConfig(model=model, **{name: value}))
        assert str(error.value).startswith(f"{format_flag(name)} must ")


def test_a_warm_up_must_end_before_the_training_does():
    with pytest.raises(ValueError, match="--warmup-steps 10 must be below --num-steps 10"):
        resolve(TrainConfig(warmup_steps=10, num_steps=10))


# Types.

WRONG = {
    int: ["3", 3.0, True, [3], {}, math.nan],
    float: ["0.5", True, [0.5], {}, math.nan, math.inf, -math.inf],
    bool: [0, 1, "true", None, []],
    str: [0, None, True, ["cpu"]],
    Path: [0, True, ["a"], {}],
}


def kind_of(name):
    value = OTHERS[name] if OTHERS[name] is not None else 1.0
    floats = (
        "lr",
        "momentum",
        "val_fraction",
        "smoothing",
        "weight_decay",
        "clip_norm",
        "dropout",
        "save_seconds",
    )
    return float if name in floats else Path if isinstance(value, Path) else type(value)


@each_option
def test_a_value_of_another_type_is_refused_wherever_it_comes_from(name):
    for value in WRONG[kind_of(name)]:
        with pytest.raises(ValueError, match=rf"^{format_flag(name)} must be "):
            resolve(TrainConfig(**{name: value}))
        with pytest.raises(ValueError, match=rf"^here\.json: {format_flag(name)} must be "):
            config_from_json({name: value}, origin="here.json")


def test_none_is_only_for_the_options_that_say_so():
    for name in ("model", "corpus", "num_steps", "lr", "clip_norm", "keep", "tensorboard"):
        if name in ("lr", "clip_norm"):
            assert getattr(config_from_json({name: None}, origin="here"), name) is None
        else:
            with pytest.raises(ValueError, match=f"here: {format_flag(name)} must be"):
                config_from_json({name: None}, origin="here")


@pytest.mark.parametrize(("name", "value"), [("model", "gpt"), ("tokenizer", "word"), ("schedule", "linear")])
def test_a_choice_that_there_is_not_is_answered_with_those_that_there_are(name, value):
    with pytest.raises(ValueError, match=rf"{format_flag(name)} must be one of \w+, \w+.*, got '{value}'"):
        resolve(TrainConfig(**{name: value}))


def test_a_long_or_deep_value_is_shown_short():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in ("x" * 10_000, deep, list(range(10_000))):
        with pytest.raises(ValueError, match="here: --model must be") as error:
            config_from_json({"model": value}, origin="here")
        assert len(str(error.value)) < 200


# JSON.


@each_option
def test_every_option_comes_back_from_json(name, tmp_path):
    config = TrainConfig(**{name: OTHERS[name]})
    assert config != TrainConfig()
    (tmp_path / "config.json").write_text(json.dumps(config_to_json(config)), "utf-8")
    assert read_config(tmp_path / "config.json") == config


def test_what_json_leaves_out_has_its_default(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 5}', "utf-8")
    assert read_config(tmp_path / "config.json") == TrainConfig(seed=5)
    assert config_from_json({}, origin="here") == TrainConfig()


def test_an_unknown_option_is_named_with_the_known_ones():
    with pytest.raises(
        ValueError, match="here: 'learning_rate' is no option of training; there are model, corpus,"
    ):
        config_from_json({"seed": 1, "learning_rate": 1}, origin="here")
    with pytest.raises(ValueError, match="is no option") as error:
        config_from_json({"x" * 10_000: 1, "\ud800": 2}, origin="here")
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("document", [None, [], [1], 1, "text", True])
def test_a_document_that_is_no_object_is_refused(document, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(ValueError, match=r"config\.json is no config: it must be a JSON object of options"):
        read_config(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[" * 100_000, b'{"lr": NaN}', b'{"lr": Infinity}', b'{"seed": ' + b"1" * 5000 + b"}"],
    ids=["empty", "cut", "no UTF-8", "deep", "NaN", "infinity", "5,000 digits"],
)
def test_a_file_that_is_no_json_is_named(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json is damaged: it is not valid JSON"):
        read_config(tmp_path / "config.json")


def test_a_number_too_large_for_a_float_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"lr": 1e999}', "utf-8")
    with pytest.raises(ValueError, match=r"config\.json: --lr must be a finite number"):
        read_config(tmp_path / "config.json")


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        read_config(tmp_path / "nowhere.json")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(OPTIONS), json_values | st.sampled_from(list(OTHERS.values())), max_size=4))
def test_any_document_is_a_config_or_a_value_error(document):
    try:
        config = resolve(config_from_json(document, origin="here"))
    except ValueError:
        return
    assert resolve(config_from_json(json.loads(json.dumps(config_to_json(config))), origin="here")) == config


# Differences.


def test_only_the_options_that_differ_are_told_with_both_values():
    assert differing_options(TrainConfig(), TrainConfig()) == {}
    assert differing_options(TrainConfig(seed=1), TrainConfig(seed=2, lr=0.5)) == {
        "seed": (1, 2),
        "lr": (None, 0.5),
    }


@each_option
def test_every_option_counts_as_a_difference(name):
    changed = dataclasses.replace(TrainConfig(), **{name: OTHERS[name]})
    assert differing_options(TrainConfig(), changed) == {name: (getattr(TrainConfig(), name), OTHERS[name])}


def test_a_text_and_another_corpus_are_not_both_taken():
    with pytest.raises(ValueError, match=r"--text a\.txt and --corpus shakespeare both name a text"):
        resolve(TrainConfig(text=Path("a.txt"), corpus="shakespeare"))


def test_another_choice_takes_its_own_defaults():
    resolved = resolve(TrainConfig(text=Path("a.txt"), hidden_dim=200, direct_connections=True, seed=3))
    for choices, wanted in (
        ({"model": "counts"}, TrainConfig(model="counts", text=Path("a.txt"), seed=3)),
        ({"model": "bigram"}, TrainConfig(model="bigram", text=Path("a.txt"), seed=3)),
        (
            {"tokenizer": "char"},
            TrainConfig(text=Path("a.txt"), hidden_dim=200, direct_connections=True, seed=3, tokenizer="char"),
        ),
        (
            {"corpus": "shakespeare"},
            TrainConfig(corpus="shakespeare", hidden_dim=200, direct_connections=True, seed=3),
        ),
        (
            {"text": Path("b.txt")},
            TrainConfig(text=Path("b.txt"), hidden_dim=200, direct_connections=True, seed=3),
        ),
        (
            {"model": "mlp", "tokenizer": "bpe"},
            TrainConfig(text=Path("a.txt"), hidden_dim=200, direct_connections=True, seed=3),
        ),
    ):
        chosen = dataclasses.replace(reset_dependent_options(resolved, **choices), **choices)
        assert resolve(chosen) == resolve(wanted)
