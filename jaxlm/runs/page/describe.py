"""Describe models and tokenizers as JSON for the page. The scripts in `core/` read it."""

import base64
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxlm._types import Variables
from jaxlm.models import CountsBigramLM, LanguageModel, MLPLanguageModel, NeuralBigramLM
from jaxlm.text.bpe import BYTE_OF_CHARACTER, CHARACTERS
from jaxlm.text.dataset import padding_id
from jaxlm.text.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer

# The models that a page can show, in the order of the ladder, with their titles.
RUNGS = {CountsBigramLM: "counts bigram", NeuralBigramLM: "neural bigram", MLPLanguageModel: "MLP"}


class PageModel(NamedTuple):
    """A model to show on a page.

    Args:
        title: its heading, different from that of other models of the page.
        source: the path that `jaxlm sample` reads it from.
        perplexity: on the validation text, None if unknown.
    """

    title: str
    source: str
    model: LanguageModel
    variables: Variables
    perplexity: float | None = None


def describe_model(page_model: PageModel, *, num_tokens: int, float16: bool = False) -> dict[str, Any]:
    """Return the kind, the sizes and the arrays of a model.

    Args:
        num_tokens: the vocabulary size of the tokenizer. A model can have more ids, which are never drawn.
        float16: round weights to half precision.

    Raises:
        ValueError: the model is of another kind, has fewer ids than the tokenizer, or weights beyond the
            range of float16.
    """
    title, source, model, variables, perplexity = page_model
    model = check_shown(model, source)
    if model.vocab_size < num_tokens:
        raise ValueError(f"{source} has {model.vocab_size} ids, but its tokenizer {num_tokens}")
    sizes = {"vocabSize": int(model.vocab_size), "contextLength": int(model.context_length)}
    described = {"title": title, "source": source, "perplexity": perplexity, **sizes}
    if isinstance(model, CountsBigramLM):
        table = np.asarray(variables["counts"]["table"])
        return described | {
            "kind": "counts",
            "smoothing": model.smoothing,
            "arrays": {name: encode_array(array) for name, array in compress_rows(table).items()},
        }
    params = variables["params"]
    arrays = {
        "embedding": params["embedding"]["embedding"],
        "kernel": params["projection"]["kernel"],
        "bias": params["projection"]["bias"],
    }
    if isinstance(model, MLPLanguageModel):
        arrays |= {"hiddenKernel": params["hidden"]["kernel"], "hiddenBias": params["hidden"]["bias"]}
        arrays |= {"directKernel": params["direct"]["kernel"]} if model.direct_connections else {}
    largest = max(float(np.abs(np.asarray(array, np.float32)).max()) for array in arrays.values())
    if float16 and largest > float(np.finfo(np.float16).max):
        remedy = "pass float16=False (without --float16)"
        raise ValueError(f"{source} has weights up to {largest:.3g}, but float16 ends at 65504; {remedy}")
    points, shares = principal_components(np.asarray(arrays["embedding"])[:num_tokens])
    dtype = np.float16 if float16 else np.float32
    return described | {
        "kind": "mlp" if isinstance(model, MLPLanguageModel) else "bigram",
        "embeddingDim": int(model.embedding_dim),
        "arrays": {name: encode_array(np.asarray(array, dtype)) for name, array in arrays.items()},
        "points": encode_array(points),
        "shares": shares,
    }


def check_shown(model: LanguageModel, source: str | Path) -> CountsBigramLM | NeuralBigramLM | MLPLanguageModel:
    """Return the model. Raise a ValueError if a page cannot show it."""
    if not isinstance(model, CountsBigramLM | NeuralBigramLM | MLPLanguageModel):
        wanted = "a page shows counts bigrams, neural bigrams and MLPs"
        raise ValueError(f"{source} is a {type(model).__name__}; {wanted}")
    return model


def describe_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the kind of a tokenizer, its tokens, and the id that pads a prompt, as in `jaxlm sample`.

    Raises:
        ValueError: the tokenizer is of another class.
    """
    match tokenizer:
        case CharTokenizer():
            kind: dict[str, Any] = {"kind": "char", "tokens": list(tokenizer.characters)}
        case ByteTokenizer():
            kind = {"kind": "byte"}
        case BPETokenizer():
            pairs = (first + second for first, second in tokenizer.merges)
            tokens = list(dict.fromkeys([*BYTE_OF_CHARACTER, *pairs]))
            kind = {"kind": "bpe", "tokens": tokens, "alphabet": "".join(CHARACTERS)}
        case _:
            raise ValueError(f"a page needs a char, byte or bpe tokenizer, got a {type(tokenizer).__name__}")
    return kind | {"paddingId": padding_id(tokenizer)}


def compress_rows(table: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the nonzero counts of a table [V, V]: their columns, and the bounds of the rows, [V + 1].

    >>> {name: array.tolist() for name, array in compress_rows(np.array([[0, 2], [0, 0]])).items()}
    {'rows': [0, 1, 1], 'columns': [1], 'counts': [2]}
    """
    rows, columns = np.nonzero(table)
    bounds = np.append(0, np.cumsum(np.bincount(rows, minlength=len(table))))
    arrays = {"rows": bounds, "columns": columns, "counts": table[rows, columns]}
    return {name: array.astype(np.min_scalar_type(array.max(initial=0))) for name, array in arrays.items()}


def principal_components(vectors: NDArray[Any]) -> tuple[NDArray[np.float32], list[float]]:
    """Return the first two principal components of vectors [V, D], [V, 2], and their shares of the variance."""
    centered = vectors - vectors.mean(axis=0, dtype=np.float64)
    left, scales, right = np.linalg.svd(centered, full_matrices=False)
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])  # the same on every machine
    points, total = left * scales * signs, max(float((scales**2).sum()), 1e-300)
    points, scales = np.pad(points, ((0, 0), (0, 2)))[:, :2], np.pad(scales, (0, 2))[:2]  # D can be 1
    return points.astype(np.float32), (scales**2 / total).tolist()


def encode_array(array: ArrayLike) -> dict[str, str]:
    """Return the dtype and the little-endian values of an array.

    >>> encode_array(np.array([1.0], np.float32))
    {'dtype': 'float32', 'data': 'AACAPw=='}
    """
    array = np.asarray(array)
    values = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return {"dtype": array.dtype.name, "data": base64.b64encode(values.tobytes()).decode()}
