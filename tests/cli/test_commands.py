"""`jaxlm tokenize`, `corpus`, `devices`, `export` and `import`, and what all commands share."""

import jax
import numpy as np
import pytest
from cli_helpers import TEXT, corpus, devices, export, import_, pipe, shown, tokenize

import jaxlm
from jaxlm.cli import shared


def test_default_to_cpu_without_a_cpu_backend():
    with shared.default_to_cpu():
        assert jax.config.jax_default_device == jax.devices("cpu")[0]
    platforms = jax.config.jax_platforms
    jax.config.update("jax_platforms", "chip")
    try:
        with shared.default_to_cpu():
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
    for saved in (out, tmp_path):
        assert tokenize(text, tokenizer=saved) == document | {"encoded": None, "out": None}


def test_tokenize_refuses_and_writes_nothing(text, run, tmp_path):
    console, out = pipe(), tmp_path / "tokenizer.json"
    with pytest.raises(ValueError, match="£"):
        tokenize(text, tokenizer="char", encode="£", out=out, console=console)
    assert shown(console) == ""
    assert not out.exists()
    with pytest.raises(FileExistsError, match=r"hamlet\.txt exists; choose another --out"):
        tokenize(text, tokenizer="byte", out=text)
    for tokenizer in ("byte", run):
        with pytest.raises(ValueError, match="300 does not apply to"):
            tokenize(text, vocab_size=300, tokenizer=tokenizer)
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
        "devices": [cpu | {"reason": None}, metal | {"reason": "crashes\x1b[2J"}],
        "auto": {"device": "cpu:0 (cpu)", "reason": "nothing else works", "from_parameters": None},
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
    described["auto"] |= {"device": "mps:0 (M1)", "from_parameters": 20_000}
    console = pipe()
    devices(probe=True, console=console)
    assert cleared
    line = "auto chooses mps:0 (M1) for models of at least 20,000 parameters: nothing else works"
    assert shown(console).splitlines()[-1] == line


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
