"""Models and variables as JSON records and named arrays, and back."""

import jax
import numpy as np
import pytest
from checkpoint_files import assert_same_bits

import jaxlm
from jaxlm.checkpoints.model_spec import model_from_spec, model_to_spec
from jaxlm.checkpoints.named_arrays import check_model_arrays, variables_from_arrays, variables_to_arrays

MODEL = jaxlm.CountsNgramLM(300, 3)
ARRAYS = {"ngrams": np.arange(4, dtype=np.int32)[None], "counts": np.ones(1, np.int32)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ngrams": ARRAYS["ngrams"] + 297}, "300"),
        ({"counts": ARRAYS["counts"] - 1}, "at least 1, got 0"),
    ],
    ids=["range", "zero"],
)
def test_variables_from_arrays_refuses_invalid_counts(changes, message):
    with pytest.raises(ValueError, match=rf"^here: .*{message}"):
        variables_from_arrays(MODEL, ARRAYS | changes, "here")


def test_check_model_arrays_of_mixtures():
    own = jaxlm.MixtureLM((MODEL, jaxlm.UniformLM(300), jaxlm.UnigramLM(300)), (0.5, 0.2, 0.3))
    mixture = jaxlm.MixtureLM((own, MODEL), (0.5, 0.5))
    arrays = {f"{part}/{name}": array for part in ("0/0", "1") for name, array in ARRAYS.items()}
    arrays["0/2"] = np.zeros(300, np.int32)
    check_model_arrays(mixture, arrays, "here")
    for name in ("0", "2/counts", "0/1", "0/1/x", "0/2/x", "x"):
        with pytest.raises(ValueError, match=r"^here: (array '\S+' is .*, expected no array|.* form a tree)"):
            check_model_arrays(mixture, arrays | {name: np.zeros(1)}, "here")
    del arrays["0/2"]
    with pytest.raises(ValueError, match=r"'0/2' is missing, expected int32\[300\]"):
        check_model_arrays(mixture, arrays, "here")


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
        with pytest.raises(ValueError, match=r"here: .* is not a record of this library"):
            model_from_spec(spec, "here")


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b", "a"], ["a/"], ["a/" * 101 + "b"]])
def test_variables_from_arrays_refuses_names_that_form_no_tree(names):
    with pytest.raises(ValueError, match=r"^here: .*the names of its arrays do not form a tree"):
        variables_from_arrays(jaxlm.NeuralBigramLM(5, 2), dict.fromkeys(names, np.zeros(1)), "here")
