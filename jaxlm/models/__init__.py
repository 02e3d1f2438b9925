"""The models and the interface that they share. The only folder that imports Flax."""

from jaxlm.models.backoff_lm import BackoffLM as BackoffLM
from jaxlm.models.counts_bigram import CountsBigramLM as CountsBigramLM
from jaxlm.models.counts_ngram import CountsNgramLM as CountsNgramLM
from jaxlm.models.interface import LanguageModel as LanguageModel, init as init
from jaxlm.models.mixture import MixtureLM as MixtureLM
from jaxlm.models.mlp import MLPLanguageModel as MLPLanguageModel
from jaxlm.models.neural_bigram import NeuralBigramLM as NeuralBigramLM
