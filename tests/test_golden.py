"""A golden run: the losses of the MLP's first steps on a short text, as numbers."""

import jax
import pytest

import jaxlm

TEXT = "the cat sat on the mat; the dog sat on the log; the hen sat on the egg. " * 2
# A float64 NumPy run of the same steps with hand-written gradients gave the same digits.
GOLDEN_LOSSES = [2.705675, 2.548846, 2.422460, 2.170721, 2.425177]  # nats, at steps 0, 4, 8, 12, 15
GOLDEN_PERPLEXITY = 7.840082
MESSAGE = """
The first steps of training gave other numbers than those in {file}.
Replace the numbers there if you meant to change one of these and all other tests pass: the numbers of characters,
how batches or initial weights follow from the key, the model, the loss, the default SGD; or if a new release of
jax, flax or optax draws other random numbers. Say which in the commit. Otherwise it is a bug.
expected: {expected}
actual:   {actual}"""


@pytest.mark.slow
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
