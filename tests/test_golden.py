"""The losses of the MLP's first steps on a short text equal stored numbers."""

import jax
import pytest

import jaxlm

TEXT = "the cat sat on the mat; the dog sat on the log; the hen sat on the egg. " * 2
# A float64 NumPy run of the same steps with hand-written gradients gave the same digits.
GOLDEN_LOSSES = [2.705675, 2.548846, 2.422460, 2.170721, 2.425177]  # nats, at steps 0, 4, 8, 12, 15
GOLDEN_PERPLEXITY = 7.840082
MESSAGE = """
Training gave other losses than {file} expects.
Replace the numbers there if all other tests pass and you meant to change one of these: the ids of characters, the
batches or initial weights drawn from a key, the model, the loss, the default SGD; or if a new release of jax, flax
or optax draws other random numbers. Give the reason in the commit message. Otherwise it is a bug.
expected: {expected}
actual:   {actual}"""


def test_first_steps_of_the_mlp_match_the_golden_numbers():
    tokenizer = jaxlm.CharTokenizer.train(TEXT)
    ids = tokenizer.encode(TEXT)
    model = jaxlm.MLPLanguageModel(tokenizer.vocab_size, context_length=3, embedding_dim=4, hidden_dim=8)
    variables, history = jaxlm.train_lm(
        model, ids, key=jax.random.key(0), batch_size=16, num_steps=16, lr=0.5, weight_decay=0.001, log_every=4
    )
    expected = [*GOLDEN_LOSSES, GOLDEN_PERPLEXITY]
    actual = [*history["train_losses"], jaxlm.perplexity(model, variables, ids)]
    assert actual == pytest.approx(expected, rel=1e-5), MESSAGE.format(
        file=__file__, expected=expected, actual=actual
    )
