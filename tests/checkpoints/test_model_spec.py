"""Models and variables as JSON records and named arrays, and back."""

import jax
import numpy as np
import pytest
from checkpoint_files import assert_same_bits

import jaxlm
from jaxlm.checkpoints.model_spec import model_from_spec, model_to_spec, variables_from_arrays, variables_to_arrays

MODEL = jaxlm.CountsNgramLM(300, 3)
ARRAYS = {"ngrams": np.arange(4, dtype=np.int32)[None], "counts": np.ones(1, np.int32)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ngrams": ARRAYS["ngrams"][:, 1:]}, r"\[M, 4\].*\[1, 3\]"),
        ({"ngrams": ARRAYS["ngrams"] + 297}, "300"),
        ({"counts": ARRAYS["counts"] - 1}, "at least 1, got 0"),
        ({"counts": ARRAYS["counts"].astype(np.float32)}, "int32 and float32"),
        ({"counts": np.ones(2, np.int32)}, r"\[1, 4\] and \[2\]"),
        ({"backoffs": ARRAYS["counts"]}, "must be named counts, ngrams"),
    ],
    ids=["order", "range", "zero", "floats", "length", "name"],
)
def test_variables_from_arrays_refuses_invalid_counts(changes, message):
    with pytest.raises(ValueError, match=rf"^here: .*{message}"):
        variables_from_arrays(MODEL, ARRAYS | changes, "here")


def test_variables_from_arrays_refuses_another_table_or_mixture():
    bigram = jaxlm.CountsBigramLM(5)
    mixture = jaxlm.MixtureLM((bigram, jaxlm.NeuralBigramLM(5, 2)), (0.5, 0.5))
    table = {"counts": {"table": np.zeros((5, 5), np.int32)}}
    for model, arrays, message in [
        (bigram, {"counts": {"table": np.zeros((5, 5), np.float32)}}, r"float32\[5, 5\], expected int32\[5, 5\]"),
        (bigram, {"counts": {"table": np.zeros((4, 5), np.int32)}}, r"int32\[4, 5\], expected int32\[5, 5\]"),
        (bigram, ARRAYS, r"'counts' is int32\[1\], expected no array of that name"),
        (mixture, {"0": table}, "'params/embedding/embedding' is missing"),
        (mixture, {"2": np.zeros(2)}, "must be named 0, 1"),
        (mixture, np.zeros(2), "must be named 0, 1"),
    ]:
        with pytest.raises(ValueError, match=f"^here: .*{message}"):
            variables_from_arrays(model, arrays, "here")


def test_variables_to_arrays_keeps_only_the_counts():
    variables = MODEL.fit(jaxlm.init(MODEL, jax.random.key(0)), np.arange(40) % 7)
    arrays = variables_to_arrays(MODEL, variables)
    assert {name: array.shape for name, array in arrays.items()} == {"ngrams": (7, 4), "counts": (7,)}
    assert arrays["counts"].sum() == 40 - 3
    assert_same_bits(variables_from_arrays(MODEL, arrays, "here"), variables)
    largest = ARRAYS | {"counts": np.array([2**31 - 1], np.int32)}
    assert_same_bits(variables_to_arrays(MODEL, variables_from_arrays(MODEL, largest, "here")), largest)


def test_model_to_spec_is_readable_json():
    spec = model_to_spec(jaxlm.MixtureLM((jaxlm.CountsNgramLM(np.int64(5), 1, jaxlm.AddK(0.5)),), (1.0,)))
    ngrams = {"vocab_size": 5, "context_length": 1}
    smoothing = {"class": "AddK", "fields": {"k": 0.5}}
    assert spec == {
        "class": "MixtureLM",
        "of_jaxlm": True,
        "vocab_size": 5,
        "context_length": 1,
        "fields": {
            "models": [{"class": "CountsNgramLM", "fields": ngrams | {"smoothing": smoothing}}],
            "weights": [1.0],
        },
    }
    for nested in ({"class": "Path", "fields": {}}, {"class": "AddK", "fields": {"k": 0.5}, "x": 1}):
        spec["fields"]["models"][0]["fields"]["smoothing"] = nested
        with pytest.raises(ValueError, match=r"here is damaged: .* is not a record of this library"):
            model_from_spec(spec, "here")
