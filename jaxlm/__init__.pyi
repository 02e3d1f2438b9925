__version__: str

from . import reference as reference
from .checkpoints.arpa_reader import ArpaModel as ArpaModel, read_arpa as read_arpa
from .checkpoints.arpa_writer import write_arpa as write_arpa
from .checkpoints.hugging_face import write_hugging_face as write_hugging_face
from .checkpoints.model_files import SavedModel as SavedModel, save_model as save_model
from .checkpoints.stablehlo import write_stablehlo as write_stablehlo
from .devices.selection import resolve_device as resolve_device
from .evaluation.evaluate import (
    Evaluation as Evaluation,
    evaluate as evaluate,
    perplexity as perplexity,
    window_nats as window_nats,
)
from .evaluation.loss import bits_per_byte as bits_per_byte, token_nats as token_nats
from .evaluation.mixture_weights import mixture_weights as mixture_weights
from .evaluation.score import Scores as Scores, score as score
from .models.backoff_lm import BackoffLM as BackoffLM
from .models.baselines import UniformLM as UniformLM, UnigramLM as UnigramLM
from .models.count_ngrams import count_ngrams as count_ngrams
from .models.counts_bigram import CountsBigramLM as CountsBigramLM
from .models.counts_ngram import CountsNgramLM as CountsNgramLM
from .models.interface import LanguageModel as LanguageModel, compute_logits as compute_logits, init as init
from .models.mixture import MixtureLM as MixtureLM
from .models.mlp import MLPLanguageModel as MLPLanguageModel
from .models.neural_bigram import NeuralBigramLM as NeuralBigramLM
from .models.ngram_counts import NgramCounts as NgramCounts
from .models.smoothing import (
    AddK as AddK,
    KneserNey as KneserNey,
    ModifiedKneserNey as ModifiedKneserNey,
    WittenBell as WittenBell,
)
from .runs.config import TrainConfig as TrainConfig
from .runs.load import Run as Run, load_model as load_model, open_run as open_run
from .runs.setup import training_recipe as training_recipe
from .runs.summary import list_runs as list_runs
from .runs.sweeps.plan import draw_settings as draw_settings, plan_sweep as plan_sweep
from .runs.sweeps.run import run_sweep as run_sweep
from .runs.sweeps.summary import list_sweep_runs as list_sweep_runs, summarize_sweep as summarize_sweep
from .runs.train import resume_run as resume_run, start_run as start_run
from .sampling.generate import generate as generate, tabulate as tabulate
from .sampling.sample import sample as sample, sample_stream as sample_stream
from .text.batching import (
    Batch as Batch,
    Split as Split,
    check_ids as check_ids,
    get_batch as get_batch,
    split_ids as split_ids,
    windows as windows,
)
from .text.corpora import Corpus as Corpus, load_corpus as load_corpus, read_text as read_text
from .text.encode_files import encode_files as encode_files
from .text.open_tokens import open_tokens as open_tokens
from .text.token_stream import TokenStream as TokenStream
from .text.tokenizer_files import load_tokenizer as load_tokenizer
from .text.tokenizers import (
    BPETokenizer as BPETokenizer,
    ByteTokenizer as ByteTokenizer,
    CharTokenizer as CharTokenizer,
    Tokenizer as Tokenizer,
)
from .training.early_stopping import stop_early as stop_early
from .training.loop import train as train, train_lm as train_lm
from .training.optimizers import sgd as sgd
from .training.state import Record as Record, TrainState as TrainState, init_state as init_state
from .training.step import train_step as train_step
from .training.sweep import sweep_grid as sweep_grid, train_many as train_many
