"""`jaxlm evaluate`."""

import math
import shutil

import jax
import pytest
from cli_helpers import evaluate, make_run, pipe, shown

import jaxlm
from jaxlm.models.interface import num_init_params
from jaxlm.runs.manifest import read_manifest, write_manifest


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


def test_evaluate_refuses_a_changed_missing_or_second_text(run, text, tmp_path):
    other = shutil.copytree(run, tmp_path / "run")
    write_manifest(other, read_manifest(run) | {"corpus": {"sha256": "0" * 64}})
    with pytest.raises(ValueError, match=r"hamlet\.txt has changed since .*run was trained; use --text"):
        evaluate(other)
    with pytest.raises(ValueError, match=r"text .* and corpus shakespeare exclude each other; remove one"):
        evaluate(other, text=text, corpus="shakespeare")
    with pytest.raises(ValueError, match=r"model is not a run directory; .*--text FILE or --corpus NAME"):
        evaluate(run / "model")
    first, second = (evaluate(model, text=text)["nats_per_token"] for model in (other, run / "model"))
    assert first == second


def test_evaluate_refuses_tokens_of_another_tokenizer(run, text, tmp_path):
    jaxlm.encode_files(text, "bpe", tmp_path / "tokens", vocab_size=260)
    with pytest.raises(ValueError, match="tokens was encoded by another tokenizer; encode its text with the one"):
        evaluate(run, tokens=tmp_path / "tokens")


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


def test_evaluate_device_depends_on_the_parameters(mlp, text, monkeypatch):
    def choose_device(device, *, num_weights):
        return (jax.devices("cpu")[0], f"{device} for {num_weights} weights")

    monkeypatch.setattr("jaxlm.runs.setup.choose_device", choose_device)
    console = pipe()
    evaluate(mlp, text=text, console=console)
    size = num_init_params(jaxlm.load_model(mlp).model)
    assert shown(console).startswith(f"device: cpu:0 (cpu): auto for {size} weights\n")
