"""The laws of exercise 6: what is measured in generated text."""

from itertools import pairwise

import jax.numpy as jnp
import numpy as np

from jaxlm.course.law import Comparisons, Implementation, Random, make_laws


def first_occurrences_do_not_count(course: Implementation, random: Random) -> Comparisons:
    """An n-gram counts as repeated from its second occurrence on: if all n-grams differ, the fraction is 0."""
    for n in (1, 2, 3):
        yield 0.0, course.repeated_ngrams(jnp.asarray(random.permutation(6)), n)
        yield (6 - n) / (7 - n), course.repeated_ngrams(jnp.full(6, 3), n)
    yield 0.5, course.repeated_ngrams(jnp.array([1, 2, 1, 2, 1]), 2)


def ngrams_overlap(course: Implementation, random: Random) -> Comparisons:
    """T tokens have T - n + 1 n-grams: one begins at each token, and their tokens keep their order."""
    yield 0.0, course.repeated_ngrams(jnp.array([1, 2, 1]), 2)
    yield 1 / 3, course.repeated_ngrams(jnp.array([1, 1, 1, 2]), 2)
    for length in (4, 9):
        ids = random.integers(0, 3, length)
        pairs = list(pairwise(ids.tolist()))
        repeated = sum(pair in pairs[:index] for index, pair in enumerate(pairs))
        yield repeated / (length - 1), course.repeated_ngrams(jnp.asarray(ids), 2)


def short_texts_repeat_nothing(course: Implementation, random: Random) -> Comparisons:
    """A text with fewer than n tokens has no n-gram, so nothing is repeated."""
    for length in (1, 2):
        yield 0.0, course.repeated_ngrams(jnp.arange(length), 3)


def training_text_has_no_unseen_pair(course: Implementation, random: Random) -> Comparisons:
    """The training text has no unseen pair; after empty counts, every pair is unseen."""
    for length in (2, 6):
        ids = random.integers(0, 4, length)
        table = np.zeros((4, 4), np.int32)
        np.add.at(table, (ids[:-1], ids[1:]), 1)
        yield 0.0, course.unseen_pairs(jnp.asarray(table), jnp.asarray(ids))
        yield 1.0, course.unseen_pairs(jnp.zeros((4, 4), jnp.int32), jnp.asarray(ids))


def pairs_count_as_often_as_they_occur(course: Implementation, random: Random) -> Comparisons:
    """The fraction is of the pairs of the text, in their order, each as often as it occurs."""
    table = np.zeros((4, 4), np.int32)
    table[0, 1] = 3
    yield 0.5, course.unseen_pairs(jnp.asarray(table), jnp.array([0, 1, 0]))
    for length in (6, 9):
        ids, table = random.integers(0, 4, length), random.integers(0, 2, (4, 4)).astype(np.int32)
        expected = np.mean([table[pair] == 0 for pair in pairwise(ids.tolist())])
        yield expected, course.unseen_pairs(jnp.asarray(table), jnp.asarray(ids))


def known_words_are_known(course: Implementation, random: Random) -> Comparisons:
    """A text of known words has no made-up word: case and punctuation do not matter."""
    yield 0.0, course.made_up_words("cat", "the cat")
    yield 0.0, course.made_up_words("The CAT, the cat!", "A cat; the end.")


def parts_of_words_are_made_up(course: Implementation, random: Random) -> Comparisons:
    """A part of a known word is not a known word."""
    for part in ("ca", "he", "t"):
        yield 1.0, course.made_up_words(part, "the cat")


def words_count_as_often_as_they_occur(course: Implementation, random: Random) -> Comparisons:
    """The fraction is of the words of the text, each as often as it occurs; no word at all is 0."""
    yield 0.0, course.made_up_words("...", "the cat")
    words = random.permutation(["the", "cat", "blorf", "blorf"]).tolist()
    yield 0.5, course.made_up_words(" ".join(words), "the cat")


LAWS = make_laws(
    6,
    first_occurrences_do_not_count,
    ngrams_overlap,
    short_texts_repeat_nothing,
    training_text_has_no_unseen_pair,
    pairs_count_as_often_as_they_occur,
    known_words_are_known,
    parts_of_words_are_made_up,
    words_count_as_often_as_they_occur,
)
