"""Next-token language models in pure functional JAX: counts bigram, neural bigram, MLP.

Names are imported on first use, so `import jaxlm` does not import JAX. `__init__.pyi` lists each public name once.

>>> import jax, jaxlm
>>> model = jaxlm.NeuralBigramLM(vocab_size=27, embedding_dim=8)
>>> variables = jaxlm.init(model, jax.random.key(0))
>>> model.apply(variables, jax.numpy.array([[3], [5]])).shape
(2, 27)
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
