"""One golden run: from a text to the losses of the MLP's first steps, written down."""

import jax
import pytest

import jaxlm

TEXT = "the cat sat on the mat; the dog sat on the log; the hen sat on the egg. " * 2
# A float64 NumPy run of the same steps, its gradient by hand, gave these digits too.
GOLDEN_LOSSES = [2.705675, 2.548846, 2.422460, 2.170721, 2.425177]  # nats, at steps 0, 4, 8, 12, 15
GOLDEN_PERPLEXITY = 7.840082
MESSAGE = """
The first steps of training came out different from the numbers written in {file}.
It is right to write the new numbers there when you meant to change one of these, and the other tests pass:
how characters are numbered, how batches or starting weights follow from the key, the model, the loss, or the
default SGD; or when another release of jax, flax or optax draws other random numbers. Say which in the commit.
Otherwise it is a bug: find it, and leave the numbers.
written: {written}
now:     {now}"""


def test_the_first_steps_of_the_mlp_are_the_written_ones():
    tokenizer = jaxlm.CharTokenizer.train(TEXT)
    ids = tokenizer.encode(TEXT)
    model = jaxlm.MLPLanguageModel(tokenizer.vocab_size, context_length=3, embedding_dim=4, hidden_dim=8)
    variables, history = jaxlm.train_lm(
        model, ids, key=jax.random.key(0), batch_size=16, num_steps=16, lr=0.5, weight_decay=0.001, log_every=4
    )
    written = [*GOLDEN_LOSSES, GOLDEN_PERPLEXITY]
    now = [*history["train_losses"], jaxlm.perplexity(model, variables, ids)]
    assert now == pytest.approx(written, rel=1e-5), MESSAGE.format(file=__file__, written=written, now=now)
