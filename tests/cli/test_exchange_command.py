"""`jaxlm export` and `jaxlm import`."""

import jax
import numpy as np
import pytest
from cli_helpers import evaluate, export, import_, pipe, sample, shown
from safetensors.numpy import save_file

import jaxlm
from jaxlm.cli.evaluate import EvaluateOptions
from jaxlm.cli.shared import open_model_on_cpu


def test_open_model_on_cpu_if_there_is_one(mlp, monkeypatch):
    devices, options, platforms = [], EvaluateOptions(mlp), jax.config.jax_platforms
    saved = jaxlm.load_model(mlp)
    monkeypatch.setattr(jaxlm, "load_model", lambda *_: devices.append(jax.config.jax_default_device) or saved)
    open_model_on_cpu(options)
    jax.config.update("jax_platforms", "chip")
    try:
        open_model_on_cpu(options)
    finally:
        jax.config.update("jax_platforms", platforms)
    assert devices == [jax.devices("cpu")[0], None]


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


def test_export_and_import_arpa(run, tmp_path):
    exported = export(run, tmp_path / "lm.arpa")
    assert (exported["format"], exported["model"]) == ("arpa", "CountsBigramLM")
    console = pipe()
    import_(tmp_path / "lm.arpa", tmp_path / "model", tokenizer=run, console=console)
    assert shown(console) == f"saved {tmp_path / 'model'}: BackoffLM\n"
    text = jaxlm.open_run(run).config.text
    documents = [evaluate(path, text=text) for path in (run, tmp_path / "model")]
    assert documents[1]["perplexity"] == pytest.approx(documents[0]["perplexity"], rel=1e-6)
    assert len(sample(tmp_path / "model", prompt="to", num_tokens=9)["samples"][0]) == 11
    (tmp_path / "lm.arpa").rename(tmp_path / "LM.ARPA")
    import_(tmp_path / "LM.ARPA", tmp_path / "again", tokenizer=tmp_path / "model")
    assert jaxlm.load_model(tmp_path / "again").tokenizer == jaxlm.load_model(tmp_path / "model").tokenizer
    import_(tmp_path / "LM.ARPA", tmp_path / "bare", console=console)
    assert shown(console).endswith("BackoffLM, without a tokenizer\n")


@pytest.mark.slow
def test_export_hugging_face_describes_the_run(text, tmp_path):
    config = jaxlm.TrainConfig(text=text, model="counts", tokenizer="byte")
    run = jaxlm.start_run(config, tmp_path / "run")
    export(run, tmp_path / "hub", format="hf")
    card = (tmp_path / "hub" / "README.md").read_text("utf-8")
    assert f"| perplexity | {jaxlm.list_runs(tmp_path)[0]['perplexity']:.2f} |" in card
    assert evaluate(tmp_path / "hub", text=text)["perplexity"] == evaluate(run, text=text)["perplexity"]


def test_export_and_import_refuse_what_does_not_fit(mlp, tmp_path):
    with pytest.raises(ValueError, match=r"an ARPA file holds n-grams; write .*, not a MLPLanguageModel"):
        export(mlp, tmp_path / "lm.arpa")
    export(mlp, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"--tokenizer is for \.arpa files, got .*model\.safetensors"):
        import_(tmp_path / "model.safetensors", tmp_path / "model", tokenizer=mlp)
    save_file({"weight": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors is not a saved model of jaxlm"):
        import_(tmp_path / "other.safetensors", tmp_path / "model")
    (tmp_path / "lm.arpa.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(ValueError, match=r"lm\.arpa\.gz, line 1 is a gzip file"):
        import_(tmp_path / "lm.arpa.gz", tmp_path / "model")


def test_export_and_import_overwrite_only_on_request(mlp, tmp_path):
    file = tmp_path / "mine.safetensors"
    file.write_text("years of work")
    with pytest.raises(FileExistsError, match="overwrite"):
        export(mlp, file)
    with pytest.raises(ValueError, match=r"must end in \.safetensors, .*, got .*mine; or choose a --format"):
        export(mlp, tmp_path / "mine", overwrite=True)
    assert file.read_text() == "years of work"
    export(mlp, file, overwrite=True)
    import_(file, tmp_path / "model")
    with pytest.raises(FileExistsError, match="model"):
        import_(file, tmp_path / "model")
