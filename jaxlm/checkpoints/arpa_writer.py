"""Write n-gram models as ARPA files, which KenLM, SRILM and other programs read."""

import math
import os
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm._types import IntBN, Ngrams, Variables
from jaxlm.checkpoints.arpa_words import PLACEHOLDERS, spell_tokens
from jaxlm.models import CountsBigramLM, CountsNgramLM, LanguageModel
from jaxlm.models.backoff import find_contexts, take
from jaxlm.models.backoff_lm import LOG10_OF_ZERO
from jaxlm.models.jit import jit_model
from jaxlm.models.ngram_counts import NgramCounts, counts_of_ngrams, pack_ngrams, sort_and_count
from jaxlm.text.tokenizers import Tokenizer
from jaxlm.utils.atomic_files import check_absent, expand, write_atomically

_BLOCK = 2**13  # n-grams per compiled call


def write_arpa(
    path: str | os.PathLike[str],
    model: LanguageModel,
    variables: Variables,
    tokenizer: Tokenizer | None = None,
    *,
    overwrite: bool = False,
) -> None:
    r"""Write a counts bigram or an n-gram model as an ARPA file. Host function; not for use inside `jit`.

    A word is a token in GPT-2's printable alphabet of bytes, so a space is `Ġ`, or an id if there is no tokenizer.
    Each suffix and each context of a listed n-gram is listed, as KenLM requires. The special words `<unk>`, `<s>`
    and `</s>` have the log-probability -99, because token streams have no sentences. So has a probability of 0.

    `window_nats` scores each token after the N tokens before it. KenLM does so with `BaseScore`, from a state of
    `NullContextWrite`, which has no `<s>`; its result is the base-10 logarithm of the probability.

    Args:
        model: a `CountsBigramLM` or `CountsNgramLM`. KenLM requires an order of at least 2.
        overwrite: replace an existing file.

    Raises:
        ValueError: the model is of another class, or the tokenizer has more tokens than the model.
        OSError: the file exists and `overwrite` is False, or it cannot be written.

    >>> import jaxlm, tempfile
    >>> model, variables = CountsNgramLM.from_counts(jaxlm.count_ngrams([0, 1, 0, 1, 1], order=2), smoothing=1.0)
    >>> path = f"{tempfile.mkdtemp()}/lm.arpa"
    >>> write_arpa(path, model, variables, jaxlm.CharTokenizer(" a"))
    >>> _, _, words = jaxlm.read_arpa(path)
    >>> words
    ['Ġ', 'a']
    """
    path = expand(path)
    check_absent(path, overwrite=overwrite)
    if isinstance(model, CountsBigramLM):
        model, variables = _to_ngrams(model, variables)
    if not isinstance(model, CountsNgramLM):
        kinds = "a CountsBigramLM or CountsNgramLM"
        raise ValueError(f"an ARPA file holds n-grams; write {kinds}, not a {type(model).__name__}")
    words = spell_tokens(model.vocab_size, tokenizer)
    write_atomically(path, _lines(model, variables, words), parents=True)


def _to_ngrams(model: CountsBigramLM, variables: Variables) -> tuple[CountsNgramLM, Variables]:
    table = np.asarray(variables["counts"]["table"])
    pairs = np.argwhere(table)
    counts = counts_of_ngrams(pairs.astype(np.int32), table[tuple(pairs.T)], model.vocab_size)
    return CountsNgramLM.from_counts(counts, model.smoothing)


def _lines(model: CountsNgramLM, variables: Variables, words: Sequence[str]) -> Iterator[str]:
    orders = _list_ngrams(model, variables)
    yield "\\data\\\n"
    for order, ngrams in enumerate(orders, 1):
        yield f"ngram {order}={len(ngrams) + (len(PLACEHOLDERS) if order == 1 else 0)}\n"
    for order, ngrams in enumerate(orders, 1):
        yield f"\n\\{order}-grams:\n"
        if order == 1:
            yield from (f"{line}\n" for line in PLACEHOLDERS)
        for begin in range(0, len(ngrams), _BLOCK):
            block = ngrams[begin : begin + _BLOCK]
            for ngram, log_prob, *backoff in zip(block.tolist(), *_look_up(model, variables, block), strict=True):
                spelled = " ".join([words[token] for token in ngram])
                yield "\t".join([f"{log_prob:.9g}", spelled, *(f"{value:.9g}" for value in backoff)]) + "\n"
    yield "\n\\end\\\n"


def _list_ngrams(model: CountsNgramLM, variables: Variables) -> list[Ngrams]:
    """Return the n-grams of each order: all tokens, and all parts of n-grams of the highest order."""
    ngrams, _ = model.ngrams_of(variables)
    orders = [ngrams]
    for order in range(model.context_length, 0, -1):
        parts = np.concatenate([orders[0][:, :-1], orders[0][:, 1:]])
        keys, counts = sort_and_count(pack_ngrams(parts, model.vocab_size))
        orders.insert(0, NgramCounts(model.vocab_size, order, keys, counts).ngrams())
    return [np.arange(model.vocab_size, dtype=np.int32)[:, None], *orders[1:]]


def _look_up(model: CountsNgramLM, variables: Variables, ngrams: Ngrams) -> list[list[float]]:
    """Return the log-probabilities of n-grams and, except for the highest order, their backoffs. Base 10."""
    length, order = model.context_length + 1, ngrams.shape[1]
    padded = np.full((_BLOCK, length), -1, np.int32)  # -1 is in no context, so only the tokens after it are used
    padded[: len(ngrams), length - order :] = ngrams
    columns = jax.device_get(_look_up_block(model, variables, jnp.asarray(padded), order))
    num_columns = 1 if order == length else 2
    return [np.clip(column[: len(ngrams)], LOG10_OF_ZERO, 0).tolist() for column in columns[:num_columns]]


@jit_model
def _look_up_block(model: CountsNgramLM, variables: Variables, ngrams: IntBN, order: int) -> list[jax.Array]:
    log_probs = model.target_log_probs(variables, ngrams[:, :-1])(jnp.arange(_BLOCK), ngrams[:, -1])
    trie, root = variables["trie"], jnp.zeros(_BLOCK, jnp.int32)
    context = jnp.stack([root, *find_contexts(trie, ngrams[:, 1:])])[order]
    return [log_probs / math.log(10), jnp.log10(take(trie.backoffs, context))]
