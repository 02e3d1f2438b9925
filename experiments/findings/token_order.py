"""Does the order of the context matter? Concatenated embeddings against their sum and their mean.

    python -m experiments.findings.token_order           # about 3 min on 2 CPU cores
    python -m experiments.findings.token_order --quick   # two networks, few steps

Four networks differ in the input of their hidden layer: the N embeddings concatenated (`MLPLanguageModel`), their
sum, or their mean; *sum, wider* has more hidden units, so that it has as many parameters as the first. They are
trained on characters, and on an order-2 Markov source whose next token depends on the order of the last two
tokens. The entropy of the source is the floor of every model with N = 2, and H(next | the two tokens in no order)
is the floor of every model that ignores order. Both floors, and the loss of each network, are sums over all
contexts, without sampling noise.

Every network is trained on the first nine tenths of the training text with each learning rate and seed. The last
tenth selects the rate for each network and N, by the mean over the seeds. Validation uses that rate only.

Expected on the classic tiny Shakespeare file, seed 0, validation perplexity: one character 12.27; two characters,
concatenation 8.77, sum 10.88, wider 10.89, mean 11.13; four characters, 7.81, 13.85, 13.71, 14.37: networks that
ignore order get worse with a longer context. On the source, in nats: entropy 1.4110, concatenation 1.4305; floor
without order 1.6009, sums 1.6092 and 1.6149, mean 1.6133. The mean selects the highest learning rate of the grid
on four characters and on the source, the wider sum the lowest on the source, so a wider grid may improve these
figures slightly.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxlm
from experiments.shared import synthetic
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.options import TextOptions
from experiments.shared.report import format_records, plot_lines
from experiments.shared.training import Floats, Ids, momentum_sgd, train_side_by_side
from jaxlm.models.interface import num_params
from jaxlm.text.dataset import Dataset, load_dataset

_EMBEDDING_DIM, _HIDDEN_DIM, _BATCH_SIZE = 32, 64, 128
_SOURCE_VOCAB_SIZE, _SOURCE_CONCENTRATION = 8, 0.5


@dataclass(frozen=True, kw_only=True)
class TokenOrderOptions(TextOptions):
    """Compare networks that use the order of their context with networks that ignore it."""


class Plan(NamedTuple):
    """Context lengths, training steps, seeds, learning rates and networks."""

    context_lengths: tuple[int, ...] = (1, 2, 4)
    num_steps: int = 1500
    num_seeds: int = 3
    source_tokens: int = 200_000
    learning_rates: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0)
    networks: tuple[str, ...] = ("concatenation", "sum", "sum, wider", "mean")


@dataclass(frozen=True)
class PooledLM:
    """An MLP whose hidden layer [D, H] reads the sum or the mean of N embeddings.

    Its prediction is the same for every order of the context. Its variables are those of `network`, whose context
    length is 1.
    """

    network: jaxlm.MLPLanguageModel
    context_length: int
    pool: Literal["sum", "mean"] = "sum"

    @property
    def vocab_size(self) -> int:
        return self.network.vocab_size

    def init(self, key: Array, contexts: Array) -> Any:
        """Return the network's initial variables."""
        return jaxlm.init(self.network, key)

    def apply(self, variables: Any, contexts: Array) -> Array:
        """Return the logits [B, V] after the contexts [B, N]."""
        params = variables["params"]
        embedded = params["embedding"]["embedding"][contexts]  # [B, N, D]
        pooled = embedded.sum(axis=1) if self.pool == "sum" else embedded.mean(axis=1)
        hidden = jnp.tanh(pooled @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
        return hidden @ params["projection"]["kernel"] + params["projection"]["bias"][None]


def prepare(options: TokenOrderOptions) -> Experiment:
    """Load the text."""
    plan = Plan((3,), 200, 2, 20_000, (0.5, 1.0), ("concatenation", "sum")) if options.quick else Plan()
    data = load_dataset(options.corpus, options.text, "char", min_tokens=2 * (max(plan.context_lengths) + 1))
    return Experiment("token-order", partial(measure, options.seed, plan, data))


def measure(seed: int, plan: Plan, data: Dataset, run: RunContext) -> Findings:
    """Train every network on the text, for each context length, and on the Markov source."""
    text_key, stream_key, source_key = jax.random.split(jax.random.key(seed), 3)
    vocab_size = data.tokenizer.vocab_size
    text_rows = []
    for length in plan.context_lengths:
        models = make_models(vocab_size, length, plan)
        score = partial(jaxlm.perplexity, ids=data.val_ids)
        text_rows += compare_models(models, data.train_ids, score, plan, text_key, run)
    source, log_rows, joint = synthetic.draw_source(_SOURCE_VOCAB_SIZE, 2, _SOURCE_CONCENTRATION, seed)
    stream = synthetic.sample_source(source, log_rows, plan.source_tokens, key=stream_key)
    models = make_models(source.vocab_size, source.context_length, plan)
    score = partial(synthetic.cross_entropy, windows=joint)
    results = {
        "learning_rates": plan.learning_rates,
        "steps": plan.num_steps,
        "text": {"vocab_size": vocab_size, "rows": text_rows},
        "source": {
            "vocab_size": source.vocab_size,
            "tokens": plan.source_tokens,
            "entropy_nats": synthetic.conditional_entropy(joint),
            "floor_without_order_nats": synthetic.conditional_entropy(symmetrize(joint)),
            "rows": compare_models(models, stream, score, plan, source_key, run),
        },
    }
    return Findings(results, format_results(results), {"picture": plot(results)})


def compare_models(
    models: Mapping[str, Any], ids: Ids, score: Callable[..., float], plan: Plan, key: Array, run: RunContext
) -> list[dict[str, Any]]:
    """Train the networks on ids [T]; return their sizes and rates, and the scores of the seeds."""
    rows = []
    for title, model in models.items():
        lr, runs = train_best_rate(model, ids, plan, key)
        scores = [score(model, variables) for variables in runs]
        rows.append(
            {
                "network": title,
                "context_length": model.context_length,
                "hidden_dim": len(runs[0]["params"]["hidden"]["bias"]),
                "num_parameters": num_params(runs[0]),
                "lr": lr,
                "scores": scores,
                "mean": float(np.mean(scores)),
                "deviation": float(np.std(scores, ddof=1)),
            }
        )
        run.log(f"N = {model.context_length}, V = {model.vocab_size}, {title}: {rows[-1]['mean']:.4f}")
    return rows


def make_models(vocab_size: int, context_length: int, plan: Plan) -> dict[str, Any]:
    """Return the plan's networks by title, with equal D and H; "sum, wider" has as many parameters as the first.

    With N = 1 all would equal the first, so only that one is returned.
    """
    other_weights = 1 + vocab_size  # of a hidden unit, besides those that read the embeddings
    wider = _HIDDEN_DIM * (context_length * _EMBEDDING_DIM + other_weights) / (_EMBEDDING_DIM + other_weights)
    network = jaxlm.MLPLanguageModel(vocab_size, 1, _EMBEDDING_DIM, _HIDDEN_DIM)
    models = {
        "concatenation": network.clone(context_length=context_length),
        "sum": PooledLM(network, context_length),
        "sum, wider": PooledLM(network.clone(hidden_dim=round(wider)), context_length),
        "mean": PooledLM(network, context_length, "mean"),
    }
    return {title: models[title] for title in (plan.networks if context_length > 1 else plan.networks[:1])}


def train_best_rate(model: jaxlm.LanguageModel, train_ids: Ids, plan: Plan, key: Array) -> tuple[float, list[Any]]:
    """Return the learning rate that is best on the last tenth of the tokens, and the variables of each seed."""
    fit_ids, held_out_ids = jaxlm.split_ids(train_ids)
    key = jax.random.clone(key)  # type: ignore[no-untyped-call]  # every network has the same seeds
    keys, hyperparams = jaxlm.sweep_grid(jax.random.split(key, plan.num_seeds), lr=plan.learning_rates)
    runs, histories = train_side_by_side(
        model,
        fit_ids,
        plan.num_steps,
        keys=keys,
        hyperparams=hyperparams,
        optimizer=partial(momentum_sgd, num_steps=plan.num_steps),
        val_ids=held_out_ids,
        batch_size=_BATCH_SIZE,
    )
    perplexities = np.array([history["val_perplexities"][-1] for history in histories])
    best = int(np.nanargmin(np.log(perplexities).reshape(plan.num_seeds, -1).mean(axis=0)))
    return plan.learning_rates[best], runs[best :: len(plan.learning_rates)]


def symmetrize(joint: Floats) -> Floats:
    """Return the window probabilities [V, V, V] with the first two tokens in random order."""
    return (joint + joint.transpose(1, 0, 2)) / 2


def format_results(results: Mapping[str, Any]) -> str:
    """Return a table for the text and one for the Markov source."""
    source = results["source"]
    floors = f"entropy {source['entropy_nats']:.4f}, floor without order {source['floor_without_order_nats']:.4f}"
    columns = {
        "network": "{network}",
        "N": "{context_length}",
        "hidden units": "{hidden_dim}",
        "parameters": "{num_parameters:,}",
        "learning rate": "{lr:g}",
        "mean": "{mean:.4f}",
        "standard deviation": "{deviation:.4f}",
    }
    tables = [format_records(results[name]["rows"], columns) for name in ("text", "source")]
    return (
        f"Characters: validation perplexity\n{tables[0]}\n\nMarkov source: nats per token; {floors}\n{tables[1]}"
    )


def plot(results: Mapping[str, Any]) -> Any:
    """Plot the perplexity on the text by N; at N = 1 all networks are one."""
    rows, lines = results["text"]["rows"], {}
    for title in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == title or row["context_length"] == 1]
        lines[title] = [[row[name] for row in own] for name in ("context_length", "mean", "deviation")]
    return plot_lines({"validation perplexity": lines}, xlabel="context length N (characters)")


if __name__ == "__main__":
    main(TokenOrderOptions, prepare)
