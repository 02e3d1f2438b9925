"""Exercise 6: read generated text, and measure how it fails.

Print samples of all your models side by side, at two temperatures, and read them aloud. Then put numbers to what
you notice. Each of these is a fraction between 0 and 1, and means little alone: compare it with real text.

Questions. Answer after the notebook, which draws the samples. Write each answer after its `>`.

1. What does the bigram get wrong that the MLP gets right? Give an example from your samples.
   > With characters: the bigram makes runs of letters that no word has; the MLP keeps to syllables and words.
2. What changes at a low temperature? Which of the three numbers shows it first?
   > The text falls into loops, so the repeated n-grams rise.
3. A model could repeat the training text word by word. Which of the numbers would be perfect, and what is missing?
   > No unseen pair and no made-up word. None of the numbers rewards anything new.
"""

import re
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax import Array


def repeated_ngrams(ids: Array, n: int) -> float:
    """Return the fraction of the n-grams of `ids` [T] that occurred before in `ids`; 0 if there is no n-gram.

    [1, 2, 1, 2, 1] has the 2-grams 12, 21, 12, 21. The last two occurred before: 0.5. Host function: use a set.
    """
    tokens = ids.tolist()
    ngrams = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def unseen_pairs(table: Array, ids: Array) -> Array:
    """Return the fraction of the pairs of `ids` [T] with count 0 in `table` [V, V], counted in a training text."""
    return (table[ids[:-1], ids[1:]] == 0).mean()


def made_up_words(text: str, known_text: str) -> float:
    """Return the fraction of the words of `text` that are not in `known_text`; 0 if `text` has no word.

    Both texts are lowered first. A word is then a run of the letters a to z: "The cat's" has the words "the",
    "cat" and "s". A word of `text` counts as often as it occurs.
    """
    known = set(re.findall("[a-z]+", known_text.lower()))
    words = re.findall("[a-z]+", text.lower())
    return sum(word not in known for word in words) / max(len(words), 1)


def own_law(course: Any, random: Any) -> Iterator[tuple[Any, Any]]:
    """A text after itself repeats half of its tokens, and capitals make no new words.

    Write a law of your own for one of the three functions. It must hold for a correct solution, and catch at least
    3 of our wrong ones. What do you know of a text followed by itself?
    """
    for length in (3, 6):
        ids = jnp.asarray(random.permutation(9)[:length])
        yield 0.5, course.repeated_ngrams(jnp.concatenate([ids, ids]), 1)
        yield 1.0, course.unseen_pairs(jnp.zeros((9, 9), int), ids)
        yield 0.25, course.made_up_words("THE Cat, the dog!", "the cat sat")
