"""The rungs of the ladder, and the interface that they share. Flax stays behind this package."""

from jaxlm.models.counts_bigram import CountsBigramLM
from jaxlm.models.counts_ngram import CountsNgramLM
from jaxlm.models.interface import LanguageModel, init
from jaxlm.models.mixture import MixtureLM
from jaxlm.models.mlp import MLPLanguageModel
from jaxlm.models.neural_bigram import NeuralBigramLM
from jaxlm.models.smoothing import AddK, KneserNey, ModifiedKneserNey, WittenBell

__all__ = [
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
]
