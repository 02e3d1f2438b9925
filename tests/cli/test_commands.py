import functools
import math
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from cli_helpers import TEXT, call, make_run, pipe, shown, terminal

import jaxlm
from jaxlm.cli import shared
from jaxlm.devices.selection import Choice
from jaxlm.models.interface import num_init_params
from jaxlm.runs.load import open_run
from jaxlm.runs.manifest import read_manifest, write_manifest
from jaxlm.runs.setup import SAMPLE_FOLD

train, evaluate, sample, tokenize, corpus, devices, export, import_ = (
    functools.partial(call, name)
    for name in ("train", "evaluate", "sample", "tokenize", "corpus", "devices", "export", "import")
)


def save_counts(path, text):
    """Save a model directory of the byte pairs in `text` and no others."""
    tokenizer = jaxlm.ByteTokenizer()
    model = jaxlm.CountsBigramLM(tokenizer.vocab_size, smoothing=0.0)
    variables = model.fit(jaxlm.init(model, jax.random.key(0)), tokenizer.encode(text))
    jaxlm.save_model(path, model, variables, tokenizer)
    return path


def test_train_returns_and_prints_results_and_a_sample(trained):
    options, document, printed = trained
    (row,) = document["results"]["models"]
    assert (document["state"], document["path"]) == ("done", str(options.out))
    assert document["perplexity"] == row["perplexity"] == pytest.approx(math.exp(row["nats_per_token"]))
    assert f"\n{row['title']} " in printed
    assert document["results"]["samples"][row["title"]] in printed
    assert f"{options.out / 'report.html'}; for more samples: jaxlm sample {options.out}\n" in printed


def test_train_resume_of_a_finished_run_shows_it(run):
    console = pipe()
    document = train(open_run(run).config, resume=run, console=console)
    assert document["state"] == "done"
    assert str(run) in shown(console)
    with pytest.raises(ValueError, match="remove --out and --overwrite"):
        train(resume=run, out=Path("elsewhere"))


def test_evaluate_run_on_its_own_validation_text(trained, run, text):
    console = pipe()
    document = evaluate(run, console=console)
    assert document["perplexity"] == trained[1]["perplexity"]
    assert document["bits_per_byte"] == pytest.approx(document["nats_per_token"] / math.log(2))  # 1 byte a token
    assert (document["part"], document["text"]) == ("validation", str(text))
    device, line = shown(console).splitlines()
    assert device.startswith("device: cpu:0 (cpu): ")
    assert line == (
        f"{text}, validation: {document['num_tokens']} tokens, perplexity {document['perplexity']:.2f}, "
        f"{document['nats_per_token']:.4f} nats/token, {document['bits_per_byte']:.3f} bits/byte"
    )


def test_evaluate_parts_are_those_of_training(run, tmp_path):
    tokens = {part: evaluate(run, part=part)["num_tokens"] for part in ("validation", "train", "all")}
    assert tokens == {"validation": 240 - 1, "train": 2160 - 1, "all": 2400 - 1}
    (tmp_path / "short.txt").write_text("to be")
    document = evaluate(run, text=tmp_path / "short.txt")
    assert (document["part"], document["num_tokens"]) == ("all", 4)


def test_evaluate_model_directory_and_file_equal_their_run(run, text, tmp_path):
    export(run, tmp_path / "model.safetensors")
    scores = {
        evaluate(model, text=text)["nats_per_token"]
        for model in (run, run / "model", tmp_path / "model.safetensors")
    }
    assert len(scores) == 1


def test_evaluate_refuses_a_changed_missing_or_second_text(run, text, tmp_path):
    other = shutil.copytree(run, tmp_path / "run")
    write_manifest(other, read_manifest(run) | {"corpus": {"sha256": "0" * 64}})
    for options, message in [
        ({}, r"hamlet\.txt has changed since .*run was trained; use --text"),
        (
            {"text": text, "corpus": "shakespeare"},
            "text .* and corpus shakespeare exclude each other; remove one",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            evaluate(other, **options)
    assert evaluate(other, text=text)["num_tokens"] == len(TEXT) - 1
    with pytest.raises(ValueError, match=r"model is not a run directory: .*--text FILE or --corpus NAME"):
        evaluate(run / "model")


def test_evaluate_refuses_what_is_not_a_model(tmp_path):
    ladder = make_run(tmp_path / "ladder", kind="ladder", config={"seed": 0})
    bare = jaxlm.NeuralBigramLM(3, 2)
    jaxlm.save_model(tmp_path / "bare.safetensors", bare, jaxlm.init(bare, jax.random.key(0)))
    for path, error, message in [
        (tmp_path / "nowhere", FileNotFoundError, "nowhere is not a saved model"),
        (tmp_path / "bare.safetensors", ValueError, "was saved without a tokenizer"),
        (ladder, ValueError, "ladder/models"),
    ]:
        with pytest.raises(error, match=message):
            evaluate(path)


def test_sample_equals_the_library(mlp):
    model, variables, tokenizer = jaxlm.load_model(mlp)
    key = jax.random.fold_in(jax.random.key(3), SAMPLE_FOLD)
    ids = jaxlm.sample(model, variables, tokenizer.encode("to be"), 30, key=key)
    for console in pipe(), terminal():
        document = sample(mlp, prompt="to be", num_tokens=30, seed=3, console=console)
        assert document["samples"] == [tokenizer.decode(ids)]
        assert document["ids"] == [ids.tolist()]
        assert shown(console) == document["samples"][0] + "\n"


def test_sample_does_not_show_the_padding(mlp):
    for prompt, num_tokens in [("t", 4), ("", 0), ("to be", 0)]:
        console = terminal()
        document = sample(mlp, prompt=prompt, num_tokens=num_tokens, console=console)
        assert [len(ids) for ids in document["ids"]] == [len(prompt) + num_tokens]
        assert document["samples"][0].startswith(prompt)
        assert shown(console) == document["samples"][0] + "\n"


def test_sample_numbers_several_streams(mlp):
    console = terminal()
    document = sample(mlp, num_tokens=6, streams=2, temperature=0, console=console)
    first, second = document["samples"]
    assert first == second
    assert shown(console) == f"--- 1 ---\n{first}\n--- 2 ---\n{second}\n"


def test_sample_writes_characters_whole_and_escapes_controls(tmp_path):
    model = save_counts(tmp_path / "kanji", "日本語\n" * 20)
    screen = terminal()
    document = sample(model, prompt="語", num_tokens=40, console=screen)
    assert shown(screen) == document["samples"][0] + "\n"
    assert not any("\ufffd" in text for text in screen.file.writes[:-1])
    model = save_counts(tmp_path / "escape", "\x1b[2J" * 20)
    for console, expected in ((terminal(), "\\x1b[2J\n"), (pipe(), "\x1b[2J\n")):
        sample(model, prompt="\x1b", num_tokens=3, console=console)
        assert shown(console) == expected
    model = save_counts(tmp_path / "end", "abcd")  # nothing follows the d
    screen = terminal()
    with pytest.raises(ValueError, match="probability"):
        sample(model, prompt="a", num_tokens=9, console=screen)
    assert shown(screen) == "a\n"


def test_sample_refuses_invalid_options(mlp):
    console = terminal()
    for options, message in [
        ({"seed": -1}, r"seed in \[0, 4294967295\], got 1 and -1"),
        ({"seed": 2**32}, "seed in"),
        ({"streams": 0}, "streams must be at least 1 .*, got 0"),
        ({"num_tokens": -1}, "num_tokens .*-1"),
        ({"top_k": 0}, "top_k .*0"),
        ({"prompt": "to £"}, "£"),
        ({"device": "abacus"}, "abacus"),
    ]:
        with pytest.raises(ValueError, match=message):
            sample(mlp, console=console, **options)
    assert shown(console) == ""


def test_the_device_depends_on_the_number_of_weights(mlp, text, monkeypatch):
    def choose_device(device, *, num_weights):
        return Choice(jax.devices("cpu")[0], f"{device} for {num_weights} weights")

    monkeypatch.setattr("jaxlm.runs.setup.choose_device", choose_device)
    console = pipe()
    evaluate(mlp, text=text, console=console)
    size = num_init_params(jaxlm.load_model(mlp).model)
    assert shown(console).startswith(f"device: cpu:0 (cpu): auto for {size} weights\n")


def test_on_cpu_needs_no_cpu_where_jax_has_none():
    with shared.on_cpu():
        assert jax.config.jax_default_device == jax.devices("cpu")[0]
    platforms = jax.config.jax_platforms
    jax.config.update("jax_platforms", "chip")
    try:
        with shared.on_cpu():
            assert jax.config.jax_default_device is None
    finally:
        jax.config.update("jax_platforms", platforms)


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_tokenize_trains_reports_and_saves(kind, text, tmp_path):
    console = pipe()
    out = tmp_path / "tokenizer.json"
    vocab_size = 260 if kind == "bpe" else None
    document = tokenize(text, tokenizer=kind, vocab_size=vocab_size, encode="to be", out=out, console=console)
    tokenizer = jaxlm.load_tokenizer(out)
    ids = tokenizer.encode(TEXT)
    assert (document["vocab_size"], document["tokens"]) == (tokenizer.vocab_size, len(ids))
    assert document["bytes_per_token"] == len(TEXT) / len(ids)
    assert document["unused"] == tokenizer.vocab_size - len(set(ids.tolist()))
    assert "".join(each["token"] for each in document["encoded"]) == "to be"
    best = document["frequent"][0]
    assert best["count"] == np.bincount(ids).max() == (ids == best["id"]).sum()
    lines = shown(console).splitlines()
    assert lines[0].startswith(f"{text}: 2,400 characters, {len(ids):,} tokens")
    assert [line.split(":")[0] for line in lines[1:]] == ["frequent", "encoded"]
    assert tokenize(text, load=out) == tokenize(text, load=tmp_path) == document | {"encoded": None, "out": None}


def test_tokenize_refuses_and_writes_nothing(text, run, tmp_path):
    console, out = pipe(), tmp_path / "tokenizer.json"
    with pytest.raises(ValueError, match="£"):
        tokenize(text, tokenizer="char", encode="£", out=out, console=console)
    assert shown(console) == ""
    assert not out.exists()
    with pytest.raises(FileExistsError, match=r"hamlet\.txt exists; choose another --out"):
        tokenize(text, tokenizer="byte", out=text)
    for options in ({"tokenizer": "byte"}, {"load": run}):
        with pytest.raises(ValueError, match="300 does not apply to"):
            tokenize(text, vocab_size=300, **options)
    with pytest.raises(ValueError, match="256"):
        tokenize(text, vocab_size=0)


def test_corpus_lists_fetches_and_verifies(tmp_path, monkeypatch, tinyshakespeare):
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path))
    path, console = tmp_path / "tinyshakespeare.txt", pipe()
    rows = corpus(console=console)["corpora"]
    assert rows[0] == {"name": "tinyshakespeare", "path": str(path), "bytes": None}
    assert [row["name"] for row in rows] == ["tinyshakespeare", "shakespeare"]
    assert shown(console).startswith(
        f"tinyshakespeare: not cached (jaxlm corpus fetch tinyshakespeare), {path}\nshakespeare:"
    )
    with pytest.raises(FileNotFoundError, match="jaxlm corpus fetch tinyshakespeare"):
        corpus("verify")
    path.write_text(tinyshakespeare, "utf-8")
    console = pipe()
    for action in ("fetch", "verify"):
        corpus(action, "tinyshakespeare", console=console)
    num_bytes = f"{path.stat().st_size:,} bytes"
    assert shown(console) == (
        f"tinyshakespeare: {num_bytes}, {path}\ntinyshakespeare: {num_bytes}, sha256 verified, {path}\n"
    )
    path.write_text("To be")
    with pytest.raises(ValueError, match=r"tinyshakespeare\.txt"):
        corpus("verify", "tinyshakespeare")
    with pytest.raises(ValueError, match="hamlet"):
        corpus("list", "hamlet")


def test_devices_shows_failures_and_what_auto_chooses(monkeypatch):
    cpu = {"platform": "cpu", "device": "cpu:0 (cpu)", "plugin": None, "version": None, "result": "built in"}
    metal = {"platform": "METAL", "device": None, "plugin": "jax-metal", "version": "0.1.1", "result": "fails"}
    described = {
        "devices": [
            cpu | {"reason": None, "auto": ["small", "large"]},
            metal | {"reason": "crashes\x1b[2J", "auto": []},
        ],
        "auto": [
            {"num_weights": 1000, "device": "cpu:0 (cpu)", "reason": "nothing else works"},
            {"num_weights": 10**7, "device": "cpu:0 (cpu)", "reason": "nothing else works"},
        ],
    }
    cleared = []
    monkeypatch.setattr("jaxlm.devices.listing.describe_devices", lambda: described)
    monkeypatch.setattr("jaxlm.devices.probe_cache.clear_probe_cache", lambda: cleared.append(True))
    console = pipe()
    assert devices(console=console) == described
    assert not cleared
    lines = [line.split() for line in shown(console).splitlines()]
    assert ["cpu", "cpu:0", "(cpu)", "-", "built", "in"] in lines
    assert ["METAL", "-", "jax-metal", "0.1.1", "fails"] in lines
    assert shown(console).splitlines()[-2:] == [
        r"jax-metal 0.1.1: fails: crashes\x1b[2J",
        "auto chooses cpu:0 (cpu): nothing else works",
    ]
    described["auto"][1]["device"] = "mps:0 (M1)"
    console = pipe()
    devices(probe=True, console=console)
    assert cleared
    assert shown(console).splitlines()[-2:] == [
        "auto (for a model of 1,000 weights) chooses cpu:0 (cpu): nothing else works",
        "auto (for a model of 10,000,000 weights) chooses mps:0 (M1): nothing else works",
    ]


def test_export_and_import_round_trip(mlp, tmp_path):
    out, back = pipe(), pipe()
    exported = export(mlp, tmp_path / "model.safetensors", console=out)
    imported = import_(tmp_path / "model.safetensors", tmp_path / "model", console=back)
    model, variables, tokenizer = jaxlm.load_model(mlp)
    loaded, loaded_variables, loaded_tokenizer = jaxlm.load_model(tmp_path / "model")
    assert (loaded, loaded_tokenizer) == (model, tokenizer)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, loaded_variables))
    assert exported["model"] == imported["model"] == "MLPLanguageModel"
    file = tmp_path / "model.safetensors"
    assert shown(out) == f"wrote {file}: {file.stat().st_size:,} bytes, MLPLanguageModel\n"
    assert shown(back) == f"saved {tmp_path / 'model'}: MLPLanguageModel\n"


def test_export_and_import_overwrite_only_on_request(mlp, tmp_path):
    file = tmp_path / "mine.safetensors"
    file.write_text("years of work")
    with pytest.raises(FileExistsError, match="overwrite"):
        export(mlp, file)
    with pytest.raises(ValueError, match=r"must end in \.safetensors, got .*mine"):
        export(mlp, tmp_path / "mine", overwrite=True)
    assert file.read_text() == "years of work"
    export(mlp, file, overwrite=True)
    import_(file, tmp_path / "model")
    with pytest.raises(FileExistsError, match="model"):
        import_(file, tmp_path / "model")
