"""The rungs of the ladder, and the interface that they share. Flax stays behind this package."""

from jaxlm.models.counts_bigram import CountsBigramLM
from jaxlm.models.interface import LanguageModel, init
from jaxlm.models.mlp import MLPLanguageModel
from jaxlm.models.neural_bigram import NeuralBigramLM

__all__ = ["CountsBigramLM", "LanguageModel", "MLPLanguageModel", "NeuralBigramLM", "init"]
