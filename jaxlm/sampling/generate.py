"""Generate tokens in one `lax.scan`: compute the distribution, draw a token, shift it into the context."""

import functools
from dataclasses import dataclass
from typing import Any, cast, final

import jax
import jax.numpy as jnp
from jax import Array, lax
from numpy.typing import ArrayLike

from jaxlm._types import FloatB, FloatBV, IntB, IntBN, IntBT, IntScalar, KeyLike, Variables
from jaxlm.models.interface import LanguageModel, check_contexts, compute_logits, encode_contexts, num_contexts
from jaxlm.models.jit import jit_model
from jaxlm.sampling.distributions import (
    BLOCK_SIZE,
    Distributions,
    Options,
    check_options,
    compute_distributions,
    sample_tokens,
)
from jaxlm.utils.keys import check_key, vmap_over_steps

MAX_TABLE_SIZE = 40 * 2**20  # elements, 160 MiB: enough for a bigram at V = 4096 with ranked tokens
_CONTEXTS_PER_CHUNK = 64  # Contexts per step of `lax.map` in `compute_table`.


def generate(
    model: LanguageModel,
    variables: Variables,
    context: ArrayLike,
    *,
    key: Array,
    num_tokens: int,
    start: Array | int = 0,
    temperature: Array | float = 1.0,
    top_k: int | None = None,
    top_p: Array | float | None = None,
) -> IntBT:
    """Continue each context by `num_tokens` tokens. A pure function, for use inside `jit`, `vmap` and `scan`.

    Tokens follow from `key` as in `sample`. Under `vmap`, it must be a threefry key (JAX's default).

    Args:
        context: integers [B, N], the last N tokens of each stream.
        num_tokens: T, the length of the scan. Each new length recompiles; `sample` does not.
        start: t of the first token, 0 or the number of tokens generated before. May be traced.
        temperature, top_k, top_p: as in `sample`. All except `top_k` may be traced; traced values are not checked.

    Returns:
        int32 [B, T]. -1 means that all tokens have probability 0; the tokens after it are meaningless.

    Raises:
        ValueError: the context has another shape, or an option is out of range.

    >>> from jaxlm import NeuralBigramLM, init
    >>> model = NeuralBigramLM(5, embedding_dim=2)
    >>> variables, keys = init(model, jax.random.key(0)), jax.random.split(jax.random.key(1), 3)
    >>> sample_7 = lambda key: generate(model, variables, jnp.array([[0]]), key=key, num_tokens=7)
    >>> jax.jit(jax.vmap(sample_7))(keys).shape
    (3, 1, 7)
    """
    context = check_contexts(context, model.context_length).astype(jnp.int32)
    options = resolve_options(model, temperature, top_k, top_p)
    return generate_block(model, variables, context, check_key(key), start, options, num_tokens)[1]


@functools.partial(jit_model, static_argnames="num_tokens")
def generate_block(
    model: LanguageModel,
    variables: Variables,
    context: IntBN,
    key: KeyLike,
    start: IntScalar | int,
    options: Options | None,
    num_tokens: int,
) -> tuple[IntBN, IntBT]:
    """Return the context after `generate`, and its tokens. Without options, look up what a `TableLM` stores."""

    def append(context: IntBN, uniforms: FloatB) -> tuple[IntBN, IntB]:
        if options is None:
            distributions = cast(TableLM, model).look_up(variables, context)
        else:
            distributions = compute_distributions(compute_logits(model, variables, context), options)
        tokens = sample_tokens(distributions, uniforms)
        return jnp.concatenate([context, tokens[:, None]], axis=1)[:, 1:], tokens

    draw = functools.partial(jax.random.uniform, shape=(len(context),), dtype=jnp.float32)
    uniforms = vmap_over_steps(draw, key, start + jnp.arange(num_tokens))  # [T, B]
    if options is not None:
        uniforms = jnp.where(options.temperature > 0, uniforms, 0)  # greedy takes the first of equals
    context, tokens = lax.scan(append, context, uniforms)
    return context, tokens.T


@final
@dataclass(frozen=True)
class TableLM:
    """A model whose variables are a table from `tabulate`. It looks distributions up instead of computing them."""

    vocab_size: int
    context_length: int

    def look_up(self, table: Distributions, contexts: IntBN) -> Distributions:
        """Return the distributions after contexts. At V = 4096, a token takes 3 us; with `apply`, 11 us."""
        codes = encode_contexts(contexts, self.vocab_size)
        return jax.tree.map(lambda leaf: leaf[codes], table)

    def apply(self, table: Distributions, contexts: IntBN) -> FloatBV:
        """Return logits for contexts."""
        weights = self.look_up(table, contexts).weights.reshape(len(contexts), -1)
        return jnp.log(weights[:, : self.vocab_size])


def resolve_options(model: LanguageModel, temperature: Any, top_k: Any, top_p: Any) -> Options | None:
    """Check and return the options of `sample`; None if `model` is a `TableLM` and they are those of its table."""
    options = check_options(model.vocab_size, temperature, top_k, top_p)
    # A traced temperature cannot be compared.
    is_stored = isinstance(model, TableLM) and isinstance(options.temperature, float) and options == Options()
    return None if is_stored else options


def tabulate(model: LanguageModel, variables: Variables) -> tuple[TableLM, Distributions]:
    """Return a model that looks up the predictions of `model`, and its variables: a table of all V^N contexts.

    Raises:
        ValueError: the table would take more than 160 MiB.

    >>> from jaxlm import UniformLM, perplexity
    >>> table_model, table = tabulate(UniformLM(5), {})
    >>> round(perplexity(table_model, table, [0, 3, 1]), 4)
    5.0
    """
    if (size := table_size(model, Options())) > MAX_TABLE_SIZE:
        raise ValueError(
            f"a table of V^N = {num_contexts(model):,} contexts has {size:,} elements, more than "
            f"{MAX_TABLE_SIZE:,}; use the model itself"
        )
    return TableLM(model.vocab_size, model.context_length), compute_table(model, variables, Options())


def table_size(model: LanguageModel, options: Options) -> int:
    """Return the number of elements in a table of all contexts, including padding and block sums."""
    is_ranked = options.top_k is not None or options.top_p is not None
    return num_contexts(model) * (int(model.vocab_size) * (1 + is_ranked) + 2 * BLOCK_SIZE)


def is_table_worthwhile(model: LanguageModel, options: Options, num_ids: int) -> bool:
    """Return whether a table of all contexts fits into `MAX_TABLE_SIZE` and halves the forward passes."""
    return 2 * num_contexts(model) <= num_ids and table_size(model, options) <= MAX_TABLE_SIZE


@jit_model
def compute_table(model: LanguageModel, variables: Variables, options: Options) -> Distributions:
    """Return the distributions after all V^N contexts, ordered by the integer that encodes the context."""
    powers = [int(model.vocab_size) ** power for power in reversed(range(model.context_length))]

    def compute_chunk(first: IntScalar) -> Distributions:
        codes = (first + jnp.arange(_CONTEXTS_PER_CHUNK, dtype=jnp.int32))[:, None]
        contexts = codes // jnp.array(powers, jnp.int32)[None, :] % model.vocab_size
        return compute_distributions(compute_logits(model, variables, contexts), options)

    chunks = lax.map(compute_chunk, jnp.arange(0, num_contexts(model), _CONTEXTS_PER_CHUNK, dtype=jnp.int32))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), chunks)
