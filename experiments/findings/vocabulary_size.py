"""How does the vocabulary change perplexity and bits per byte?

    python -m experiments.findings.vocabulary_size           # about 3 min on 2 CPU cores
    python -m experiments.findings.vocabulary_size --quick   # three tokenizers, 100 steps, 24 s of CPU time

Tokenizers: characters, bytes, and byte-pair encodings of 256 to 8192 tokens. The text is split before it is
encoded, at a line start in its last tenth, so that every model is evaluated on the same bytes. The first
validation tokens are predicted too, after the last training tokens. BPE is trained on the training text; the
characters are those of the whole text. Models: uniform; bigram counts, with k selected on the last tenth of the
training text; modified Kneser-Ney, whose order grows from 2 to 6 while the perplexity on that tenth improves; and
the ladder's MLP (N = 3, D = 32, H = 64), trained for 3000 steps with the ladder's momentum recipe, which was made
for 4096 tokens. Three tokens of a larger vocabulary cover more bytes. This advantage of a tokenizer is part of the
comparison.

Expected on the classic tiny Shakespeare file, seed 0, as perplexity and bits per byte of bigram, Kneser-Ney, MLP:
characters 11.97, 4.58, 7.35 and 3.581, 2.197, 2.878; 4096 tokens 162.46, 93.72, 133.29 and 2.530, 2.256, 2.431;
8192 tokens 299.81, 153.68, 179.86 and 2.582, 2.280, 2.351. Kneser-Ney is best at 512 tokens (2.179). Bytes and BPE
of 256 tokens are the same tokens in another order: the counts agree, and the MLPs differ only by their random
numbers (2.863 and 2.870).

The MLPs are compared after equal numbers of steps, not at their best. From 2048 to 4096 tokens the MLP gains
nothing (2.421, then 2.431), nor does it with another seed (2.423, 2.437) or learning rate. With 6000 steps, 4096
tokens reach 106.66 and 2.321. Why 8192 tokens gain more from 3000 steps is not explained. BPE also
fits its training text better: with 4096 tokens, a token has 3.26 bytes there and 2.90 in validation; with 512,
1.94 and 1.88.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxlm
from experiments.ladder.rungs import RECIPES, NetworkOptions, fit_baselines, make_networks
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.options import TextOptions
from experiments.shared.report import format_records, plot_lines
from experiments.shared.training import Ids, fit_counts, train
from jaxlm.text.dataset import Dataset
from jaxlm.text.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True)
class VocabularySizeOptions(TextOptions):
    """Compare tokenizers on one text by perplexity and bits per byte."""


class Plan(NamedTuple):
    """Vocabulary sizes of BPE, the highest order of the n-grams, and the MLP's training steps."""

    bpe_sizes: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 8192)
    max_order: int = 6
    num_steps: int = RECIPES["momentum"].num_steps // 2


def prepare(options: VocabularySizeOptions) -> Experiment:
    """Check the options and load the text."""
    corpus = jaxlm.load_corpus(options.corpus) if options.text is None else jaxlm.read_text(options.text)
    plan = Plan((512,), max_order=3, num_steps=100) if options.quick else Plan()
    return Experiment("vocabulary-size", partial(measure, options.seed, plan, corpus))


def measure(seed: int, plan: Plan, corpus: jaxlm.Corpus, run: RunContext) -> Findings:
    """Evaluate every model with every tokenizer on the same bytes."""
    train_text, val_text = split_at_line(corpus.text)
    num_bytes = len(val_text.encode())
    rows = []
    for name, tokenizer in train_tokenizers(plan, corpus.text, train_text):
        data = Dataset(corpus, tokenizer, tokenizer.encode(train_text), tokenizer.encode(val_text))
        models = {}
        for title, model, variables, selected in fit_models(data, plan, jax.random.key(seed)):
            scores = evaluate_after(data.train_ids, data.val_ids, model, variables)
            bits_per_byte = jaxlm.bits_per_byte(scores.nats_per_token, num_bytes / scores.num_tokens)
            losses = {"nats_per_token": scores.nats_per_token, "perplexity": scores.perplexity}
            models[title] = {**selected, **losses, "bits_per_byte": bits_per_byte}
        num_tokens = {"train_tokens": len(data.train_ids), "val_tokens": len(data.val_ids)}
        row = {"tokenizer": name, "vocab_size": tokenizer.vocab_size, **num_tokens, "models": models}
        rows.append(row | {"val_bytes_per_token": num_bytes / len(data.val_ids)})
        bits = ", ".join(f"{title} {each['bits_per_byte']:.3f}" for title, each in models.items())
        run.log(f"{name}: bits per byte: {bits}")
    results = {"train_bytes": len(train_text.encode()), "val_bytes": num_bytes, "rows": rows}
    return Findings(results, format_results(rows), {"picture": plot(rows)})


def split_at_line(text: str) -> tuple[str, str]:
    """Split the text at the last line start in the first nine tenths of its characters."""
    cut = text.rfind("\n", 0, len(text) * 9 // 10) + 1
    return text[:cut], text[cut:]


def train_tokenizers(plan: Plan, text: str, train_text: str) -> Iterator[tuple[str, Tokenizer]]:
    """Yield the tokenizers by name, from the smallest vocabulary to the largest."""
    yield "char", jaxlm.CharTokenizer.train(text)
    yield "byte", jaxlm.ByteTokenizer()
    for size in plan.bpe_sizes:
        yield f"bpe {size}", jaxlm.BPETokenizer.train(train_text, size)


def fit_models(
    data: Dataset, plan: Plan, key: jax.Array
) -> Iterator[tuple[str, jaxlm.LanguageModel, Any, Mapping[str, float]]]:
    """Yield title, model, variables, and hyper-parameters selected on the last tenth of the training tokens."""
    vocab_size = data.tokenizer.vocab_size
    uniform, *_, bigram = fit_baselines(data)
    yield "uniform", uniform.model, uniform.variables, {}
    assert isinstance(bigram.model, jaxlm.CountsBigramLM)
    yield "counts bigram, best k", bigram.model, bigram.variables, {"smoothing": bigram.model.smoothing}
    order = select_order(vocab_size, data.train_ids, plan.max_order)
    ngram = jaxlm.CountsNgramLM(vocab_size, order - 1)
    yield "modified Kneser-Ney", ngram, fit_counts(ngram, data.train_ids), {"order": order}
    mlp = make_networks(vocab_size, NetworkOptions(), RECIPES["momentum"], plan.num_steps)[1]
    options = {"batch_size": mlp.batch_size, "optimizer": mlp.optimizer}
    trained = train(mlp.model, data.train_ids, plan.num_steps, key=key, **options)
    yield "MLP", mlp.model, trained.variables, {"context_length": mlp.model.context_length}


def select_order(vocab_size: int, train_ids: Ids, max_order: int) -> int:
    """Return the order of modified Kneser-Ney, from 2 up, until the loss on the last tenth stops improving."""
    fit_ids, held_out_ids = jaxlm.split_ids(train_ids)
    best_nats = np.inf
    for order in range(2, max_order + 1):
        model = jaxlm.CountsNgramLM(vocab_size, order - 1)
        nats = evaluate_after(fit_ids, held_out_ids, model, fit_counts(model, fit_ids)).nats_per_token
        if nats >= best_nats:
            return order - 1
        best_nats = nats
    return max_order


def evaluate_after(before: Ids, ids: Ids, model: jaxlm.LanguageModel, variables: Any) -> jaxlm.Evaluation:
    """Evaluate the model on every token of ids [T] once, the first ones in the context of the ids before [T']."""
    return jaxlm.evaluate(model, variables, np.concatenate([before[len(before) - model.context_length :], ids]))


def format_results(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one row for each tokenizer, with perplexity and bits per byte of each model."""
    titles = {"uniform": "uniform", "counts bigram, best k": "bigram", "modified Kneser-Ney": "KN", "MLP": "MLP"}
    columns = {
        "tokenizer": "{tokenizer}",
        "V": "{vocab_size:,}",
        "validation\ntokens": "{val_tokens:,}",
        "bytes/\ntoken": "{val_bytes_per_token:.3f}",
        "best\nk": "{models[counts bigram, best k][smoothing]:.3g}",
        "best\norder": "{models[modified Kneser-Ney][order]}",
    }
    columns |= {f"perplexity\n{short}": f"{{models[{title}][perplexity]:.2f}}" for title, short in titles.items()}
    columns |= {
        f"bits/byte\n{short}": f"{{models[{title}][bits_per_byte]:.3f}}" for title, short in titles.items()
    }
    return format_records(rows, columns)


def plot(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Plot perplexity and bits per byte by vocabulary size, one line per model."""
    sizes = [row["vocab_size"] for row in rows]
    panels = {
        title: {model: (sizes, [row["models"][model][unit] for row in rows]) for model in rows[0]["models"]}
        for title, unit in (("validation perplexity", "perplexity"), ("bits per byte", "bits_per_byte"))
    }
    return plot_lines(panels, xlabel="vocabulary size", xscale="log", yscale="log")


if __name__ == "__main__":
    main(VocabularySizeOptions, prepare)
