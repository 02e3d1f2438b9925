"""`jaxlm sample`."""

import jax
import pytest
from cli_helpers import pipe, sample, shown, terminal

import jaxlm
from jaxlm.runs.setup import SAMPLE_FOLD


def save_counts(path, text):
    """Save a model directory of the byte pairs in `text` and no others."""
    tokenizer = jaxlm.ByteTokenizer()
    model = jaxlm.CountsBigramLM(tokenizer.vocab_size, smoothing=0.0)
    variables = model.fit(jaxlm.init(model, jax.random.key(0)), tokenizer.encode(text))
    jaxlm.save_model(path, model, variables, tokenizer)
    return path


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


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_k": 60, "streams": 2}])
def test_sample_draws_no_ids_without_a_token(options, tmp_path):
    tokenizer = jaxlm.CharTokenizer.train("hello")
    model = jaxlm.NeuralBigramLM(len("ehlo") + 60, 2)
    variables = jaxlm.init(model, jax.random.key(0))
    padded = jax.numpy.arange(model.vocab_size) * 0.05  # the ids without a token are the most likely
    variables["params"]["projection"]["bias"] = padded
    jaxlm.save_model(tmp_path / "padded", model, variables, tokenizer)
    document = sample(tmp_path / "padded", prompt="he", num_tokens=30, **options)
    assert {max(ids) for ids in document["ids"]} <= {2, 3}
    assert document["samples"] == [tokenizer.decode(ids) for ids in document["ids"]]


def test_sample_writes_characters_whole_and_escapes_controls(tmp_path):
    model = save_counts(tmp_path / "kanji", "日本語\n" * 20)
    screen = terminal()
    document = sample(model, prompt="語", num_tokens=40, console=screen)
    assert shown(screen) == document["samples"][0] + "\n"
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
        ({"prompt": "to £"}, "£"),
        ({"device": "abacus"}, "abacus"),
    ]:
        with pytest.raises(ValueError, match=message):
            sample(mlp, console=console, **options)
    assert shown(console) == ""
