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
    from jaxlm.config import TrainConfig
    from jaxlm.corpora import Corpus, load_corpus, read_text
    from jaxlm.devices import resolve_device
    from jaxlm.evaluation import Evaluation, bits_per_byte, evaluate, perplexity, token_nats, window_nats
    from jaxlm.mixing import mixture_weights
    from jaxlm.models import (
        AddK,
        CountsBigramLM,
        CountsNgramLM,
        KneserNey,
        LanguageModel,
        MixtureLM,
        MLPLanguageModel,
        ModifiedKneserNey,
        NeuralBigramLM,
        WittenBell,
        init,
    )
    from jaxlm.runs import list_runs
    from jaxlm.sampling import sample, sample_pieces
    from jaxlm.saved_models import export_model, import_model, load_model, save_model
    from jaxlm.sweeps import sweep_grid, train_many
    from jaxlm.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer, load_tokenizer
    from jaxlm.training import Record, TrainState, train_lm
    from jaxlm.training_runs import load_run, open_model, resume_run, start_run

__version__ = "0.1.0"

_MODULE_OF = {
    name: module
    for module, names in {
        "batching": ("check_ids", "get_batch", "split_ids"),
        "config": ("TrainConfig",),
        "corpora": ("Corpus", "load_corpus", "read_text"),
        "devices": ("resolve_device",),
        "evaluation": ("Evaluation", "bits_per_byte", "evaluate", "perplexity", "token_nats", "window_nats"),
        "mixing": ("mixture_weights",),
        "models": (
            "AddK",
            "CountsBigramLM",
            "CountsNgramLM",
            "KneserNey",
            "LanguageModel",
            "MLPLanguageModel",
            "MixtureLM",
            "ModifiedKneserNey",
            "NeuralBigramLM",
            "WittenBell",
            "init",
        ),
        "runs": ("list_runs",),
        "sampling": ("sample", "sample_pieces"),
        "saved_models": ("export_model", "import_model", "load_model", "save_model"),
        "sweeps": ("sweep_grid", "train_many"),
        "tokenizers": ("BPETokenizer", "ByteTokenizer", "CharTokenizer", "Tokenizer", "load_tokenizer"),
        "training": ("Record", "TrainState", "train_lm"),
        "training_runs": ("load_run", "open_model", "resume_run", "start_run"),
    }.items()
    for name in names
}

__all__ = [
    "AddK",
    "BPETokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "Corpus",
    "CountsBigramLM",
    "CountsNgramLM",
    "Evaluation",
    "KneserNey",
    "LanguageModel",
    "MLPLanguageModel",
    "MixtureLM",
    "ModifiedKneserNey",
    "NeuralBigramLM",
    "Record",
    "Tokenizer",
    "TrainConfig",
    "TrainState",
    "WittenBell",
    "bits_per_byte",
    "check_ids",
    "evaluate",
    "export_model",
    "get_batch",
    "import_model",
    "init",
    "list_runs",
    "load_corpus",
    "load_model",
    "load_run",
    "load_tokenizer",
    "mixture_weights",
    "open_model",
    "perplexity",
    "read_text",
    "resolve_device",
    "resume_run",
    "sample",
    "sample_pieces",
    "save_model",
    "split_ids",
    "start_run",
    "sweep_grid",
    "token_nats",
    "train_lm",
    "train_many",
    "window_nats",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'jaxlm' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jaxlm.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
