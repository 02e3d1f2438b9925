"""Three models with random weights and a tokenizer whose characters are a page's traps."""

import jax
import numpy as np

import jaxlm
from jaxlm.runs.page.describe import PageModel

TEXT = "to be or not to be, </script> <!-- &amp; שלום é🙂\n" * 9
TOKENIZER = jaxlm.CharTokenizer.train(TEXT)


def random_weights(model, seed):
    """Return variables whose distributions differ as much as those of a trained network."""
    rng = np.random.default_rng(seed)
    like = jax.eval_shape(lambda: jaxlm.init(model, jax.random.key(0)))
    return jax.tree.map(lambda leaf: rng.normal(scale=0.7, size=leaf.shape).astype(np.float32), like)


def make_page_models(folder, tokenizer=TOKENIZER):
    """Save one model of each kind in a folder, and return them."""
    size, ids = tokenizer.vocab_size, tokenizer.encode(TEXT)
    counts = jaxlm.CountsBigramLM(size, smoothing=0.1)
    bigram, mlp = jaxlm.NeuralBigramLM(size, 4), jaxlm.MLPLanguageModel(size, 3, 4, 8)
    variables = {
        counts: counts.fit(jaxlm.init(counts, jax.random.key(0)), ids),
        bigram: random_weights(bigram, 1),
        mlp: random_weights(mlp, 2),
    }
    models = []
    for title, model in zip(("counts", "bigram", "mlp"), variables, strict=True):
        jaxlm.save_model(folder / title, model, variables[model], tokenizer)
        models.append(PageModel(title, str(folder / title), model, variables[model], perplexity=9.5))
    return models
