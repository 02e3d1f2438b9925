"""A folder in the layout of the Hugging Face Hub."""

import errno
import json

import jax
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

import jaxlm

MODEL, TOKENIZER = jaxlm.MLPLanguageModel(256, 2, 3, 4), jaxlm.ByteTokenizer()


def test_write_hugging_face_is_read_by_each_library(tmp_path):
    variables = jaxlm.init(MODEL, jax.random.key(0))
    jaxlm.write_hugging_face(tmp_path / "mlp", MODEL, variables, TOKENIZER, figures={"perplexity": "9.50"})
    assert Tokenizer.from_file(str(tmp_path / "mlp" / "tokenizer.json")).encode("é").ids == [195, 169]
    arrays = load_file(tmp_path / "mlp" / "model.safetensors")
    assert sum(array.size for array in arrays.values()) == 256 * 3 + 2 * 3 * 4 + 4 + 4 * 256 + 256
    config = json.loads((tmp_path / "mlp" / "config.json").read_text())
    assert config["architectures"] == ["MLPLanguageModel"]
    assert [config[name] for name in ("vocab_size", "context_length", "embedding_dim", "hidden_dim")] == [
        256,
        2,
        3,
        4,
    ]
    card = (tmp_path / "mlp" / "README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name: jaxlm\n")
    assert "| perplexity | 9.50 |" in card
    loaded, _, tokenizer = jaxlm.load_model(tmp_path / "mlp")
    assert (loaded, tokenizer) == (MODEL, TOKENIZER)
    assert jaxlm.load_tokenizer(tmp_path / "mlp") == TOKENIZER


def test_write_hugging_face_writes_all_or_nothing(tmp_path, monkeypatch):
    variables = jaxlm.init(MODEL, jax.random.key(0))
    with pytest.raises(ValueError, match="a CharTokenizer has no tokenizer"):
        jaxlm.write_hugging_face(tmp_path / "mlp", MODEL, variables, jaxlm.CharTokenizer("ab"))
    assert not (tmp_path / "mlp").exists()
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match=r"README\.md exists; .*overwrite"):
        jaxlm.write_hugging_face(tmp_path, MODEL, variables, TOKENIZER)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    monkeypatch.chdir(tmp_path)
    jaxlm.write_hugging_face(".", MODEL, variables, TOKENIZER, overwrite=True)
    assert len([*tmp_path.iterdir()]) == 4
    assert f"# {tmp_path.name}\n" in (tmp_path / "README.md").read_text("utf-8")


def test_write_hugging_face_leaves_nothing_on_a_full_disk(tmp_path, monkeypatch):
    def fail(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", "a temporary file")

    monkeypatch.setattr("jaxlm.checkpoints.hugging_face.write_atomically", fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*mlp'$"):
        jaxlm.write_hugging_face(tmp_path / "mlp", MODEL, jaxlm.init(MODEL, jax.random.key(0)), TOKENIZER)
    assert not [*tmp_path.iterdir()]
