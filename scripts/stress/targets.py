"""The readers under test: valid files for each, how to call it, and what its result must satisfy."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer

import jaxlm
from jaxlm.runs.config import config_from_json, config_to_json, read_config, resolve
from jaxlm.text.hugging_face import tokenizer_to_hugging_face

ARPA = """\\data\\
ngram 1=4
ngram 2=3

\\1-grams:
-1.1\t<unk>
0\t<s>\t-0.4
-0.9\t</s>\t0
-0.5\tcat\t-0.25

\\2-grams:
-0.2\t<s> cat
-0.6\tcat cat
-0.3\tcat </s>

\\end\\
"""
TEXT = "the cat sat on the mat; the dog ate the cat's hat.\n" * 4
TARGETS = {
    "model": 12,
    "tokenizer": 4,
    "hugging_face": 4,
    "arpa": 4,
    "config": 3,
    "text": 2,
}  # relative frequencies


def make_originals(folder: Path) -> dict[str, list[Path]]:
    """Write small valid files of every kind and return their paths by target."""
    tokenizers = [jaxlm.CharTokenizer.train(TEXT), jaxlm.ByteTokenizer(), jaxlm.BPETokenizer.train(TEXT, 270)]
    ngrams = jaxlm.CountsNgramLM(5, 2, jaxlm.KneserNey(0.5))
    models: list[tuple[Any, Any]] = [
        (jaxlm.CountsBigramLM(tokenizers[0].vocab_size, smoothing=0.5), tokenizers[0]),
        (jaxlm.NeuralBigramLM(256, 2), tokenizers[1]),
        (jaxlm.MLPLanguageModel(tokenizers[2].vocab_size, 2, 3, 4), tokenizers[2]),
        (jaxlm.MixtureLM((jaxlm.MLPLanguageModel(5, 2, 3, 4), ngrams), (0.25, 0.75)), None),
    ]
    originals = {target: [folder / f"{target}{number}" for number in range(4)] for target in TARGETS}
    for number, (model, tokenizer) in enumerate(models):
        variables = jaxlm.init(model, jax.random.key(number))
        if isinstance(model, jaxlm.MixtureLM):
            variables = (variables[0], ngrams.fit(variables[1], np.arange(40) ** 2 % 5))
        path = originals["model"][number] = folder / f"model{number}.safetensors"
        jaxlm.save_model(path, model, variables, tokenizer)
    for path, tokenizer in zip(originals["tokenizer"], [*tokenizers, jaxlm.CharTokenizer("ab")], strict=True):
        tokenizer.save(path)
    for path, tokenizer in zip(originals["hugging_face"], [*tokenizers[1:], *tokenizers[1:]], strict=True):
        path.write_text(tokenizer_to_hugging_face(tokenizer), "utf-8")
    for order, path in enumerate(originals["arpa"], 1):
        counts = jaxlm.count_ngrams(np.arange(40) ** 2 % 5, min(order, 3), vocab_size=5)
        jaxlm.write_arpa(path, *jaxlm.CountsNgramLM.from_counts(counts, smoothing=0.5))
    originals["arpa"][3].write_text(ARPA, "utf-8")
    configs = [{}, {"model": "counts", "smoothing": 0.5}, {"tokenizer": "char", "lr": 1, "text": "a/b.txt"}]
    for path, options in zip(originals["config"], [*configs, {"model": "bigram", "clip_norm": None}], strict=True):
        config = resolve(config_from_json(options, origin="here"))
        path.write_text(json.dumps(config_to_json(config)), "utf-8")
    for path, text in zip(originals["text"], [TEXT, "é日本語😀\r\n" * 9, "\ufeffx", "\0a\n"], strict=True):
        path.write_bytes(text.encode())
    return originals


def load(target: str, path: Path) -> Any:
    """Read one input: the call under test."""
    match target:
        case "model":
            return jaxlm.load_model(path)
        case "tokenizer" | "hugging_face":
            return jaxlm.load_tokenizer(path)
        case "arpa":
            return jaxlm.read_arpa(path)
        case "config":
            return resolve(read_config(path))
        case _:
            return jaxlm.read_text(path)


def check_use(target: str, path: Path, found: Any) -> None:
    """Assert that an accepted input is consistent and usable."""
    if target == "config":
        assert resolve(config_from_json(config_to_json(found), origin=path)) == found
    elif target == "text":
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        assert found.text == text
        assert found.sha256 == hashlib.sha256(text.encode()).hexdigest()
    elif target == "tokenizer":
        check_tokenizer(found)
    elif target == "hugging_face":
        check_tokenizer(found)
        assert found.encode(TEXT).tolist() == Tokenizer.from_file(str(path)).encode(TEXT).ids
    elif target == "arpa":
        model, variables, words = found
        assert len(set(words)) == len(words) == model.vocab_size
        log_probs = np.asarray(model.apply(variables, np.zeros((1, model.context_length), np.int32)))
        assert log_probs.shape == (1, model.vocab_size)
        assert not np.isnan(log_probs).any()
    else:
        model, variables, tokenizer = found
        if not isinstance(model, jaxlm.MixtureLM):  # its number of n-grams depends on the file
            expected = jax.eval_shape(lambda: jaxlm.init(model, jax.random.key(0)))
            found = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
            assert found == expected
        for leaf in map(np.asarray, jax.tree.leaves(variables)):
            assert np.isfinite(leaf).all()
            assert leaf.dtype != np.int32 or leaf.min(initial=0) >= 0
        contexts = np.zeros((1, model.context_length), np.int32)
        assert jax.eval_shape(model.apply, variables, contexts).shape == (1, model.vocab_size)
        if isinstance(model, jaxlm.MixtureLM):
            assert abs(float(np.exp(model.apply(variables, contexts)).sum()) - 1) < 1e-3
        if tokenizer is not None:
            assert tokenizer.vocab_size <= model.vocab_size
            check_tokenizer(tokenizer)


def check_tokenizer(tokenizer: Any) -> None:
    """Assert that a tokenizer encodes into its vocabulary and decodes to the same text."""
    text = getattr(tokenizer, "characters", TEXT)
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ((ids >= 0) & (ids < tokenizer.vocab_size)).all()
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()


def is_same(found: Any, original: Any) -> bool:
    """Return whether two results are equal, arrays to the bit."""
    if not isinstance(found, tuple):
        return found == original or getattr(found, "sha256", 0) == getattr(original, "sha256", 1)
    if jax.tree.structure(found[1]) != jax.tree.structure(original[1]):
        return False
    pairs = zip(jax.tree.leaves(found[1]), jax.tree.leaves(original[1]), strict=True)
    return (found[0], found[2]) == (original[0], original[2]) and all(
        leaf.dtype == twin.dtype and np.asarray(leaf).tobytes() == np.asarray(twin).tobytes()
        for leaf, twin in pairs
    )
