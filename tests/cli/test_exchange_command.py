"""`jaxlm export` and `jaxlm import`."""

import jax
import numpy as np
import pytest
from cli_helpers import export, import_, pipe, shown

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
