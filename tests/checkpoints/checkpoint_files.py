"""Helpers to compare and damage saved arrays, checkpoints and models."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxlm

MLP = jaxlm.MLPLanguageModel(300, 3, 4, 5)


def make_variables(model):
    """Return normally distributed parameters, or the counts of a short text."""
    if isinstance(model, jaxlm.MixtureLM):
        return tuple(map(make_variables, model.models))
    if isinstance(model, jaxlm.UniformLM):
        return {}
    if isinstance(model, jaxlm.UnigramLM):
        return jnp.arange(model.vocab_size)
    if hasattr(model, "fit"):
        return model.fit(jaxlm.init(model, jax.random.key(0)), np.arange(900) % 300)
    random, like = np.random.default_rng(7), jax.eval_shape(lambda: jaxlm.init(model, jax.random.key(0)))
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), like)


def assert_same_bits(tree, other):
    """Equal structure, and for each leaf equal dtype, shape and bytes."""
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for leaf, twin in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        assert (leaf.dtype, leaf.shape) == (twin.dtype, twin.shape)
        assert np.asarray(leaf).tobytes() == np.asarray(twin).tobytes()


def flip_bytes(path, num_positions):
    """Flip a bit at evenly spaced positions, one at a time; yield each position while it is flipped.

    Skip whitespace of the JSON documents, which carries no meaning.
    """
    content = path.read_bytes()
    for position in sorted({int(each) for each in np.linspace(0, len(content) - 1, num_positions)}):
        if path.suffix == ".json" and content[position : position + 1].isspace():
            continue
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        yield position
    path.write_bytes(content)


def files_below(path):
    return sorted(each for each in path.rglob("*") if each.is_file())
