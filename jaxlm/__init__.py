"""Next-token language models in pure functional JAX: counts bigram, neural bigram, MLP.

Names are imported when first used, so that `import jaxlm` costs nothing and a command's `--help` never waits
for JAX.

>>> import jax, jaxlm
>>> model = jaxlm.NeuralBigramLM(vocab_size=27, embedding_dim=8)
>>> variables = jaxlm.init(model, jax.random.key(0))
>>> model.apply(variables, jax.numpy.array([[3], [5]])).shape
(2, 27)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxlm.batching import check_ids, get_batch, split_ids
    from jaxlm.checkpoints import load_model, save_model
    from jaxlm.corpora import Corpus, load_corpus, read_text
    from jaxlm.devices import resolve_device
    from jaxlm.evaluation import Evaluation, bits_per_byte, evaluate, perplexity, token_nats
    from jaxlm.models import CountsBigramLM, LanguageModel, MLPLanguageModel, NeuralBigramLM, init
    from jaxlm.sampling import sample
    from jaxlm.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer, load_tokenizer
    from jaxlm.training import Record, TrainState, train_lm

__version__ = "0.1.0"

_MODULE_OF = {
    name: module
    for module, names in {
        "batching": ("check_ids", "get_batch", "split_ids"),
        "checkpoints": ("load_model", "save_model"),
        "corpora": ("Corpus", "load_corpus", "read_text"),
        "devices": ("resolve_device",),
        "evaluation": ("Evaluation", "bits_per_byte", "evaluate", "perplexity", "token_nats"),
        "models": ("CountsBigramLM", "LanguageModel", "MLPLanguageModel", "NeuralBigramLM", "init"),
        "sampling": ("sample",),
        "tokenizers": ("BPETokenizer", "ByteTokenizer", "CharTokenizer", "Tokenizer", "load_tokenizer"),
        "training": ("Record", "TrainState", "train_lm"),
    }.items()
    for name in names
}

__all__ = [
    "BPETokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "Corpus",
    "CountsBigramLM",
    "Evaluation",
    "LanguageModel",
    "MLPLanguageModel",
    "NeuralBigramLM",
    "Record",
    "Tokenizer",
    "TrainState",
    "bits_per_byte",
    "check_ids",
    "evaluate",
    "get_batch",
    "init",
    "load_corpus",
    "load_model",
    "load_tokenizer",
    "perplexity",
    "read_text",
    "resolve_device",
    "sample",
    "save_model",
    "split_ids",
    "token_nats",
    "train_lm",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'jaxlm' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jaxlm.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
