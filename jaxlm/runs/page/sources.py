"""Find the models of a page: in runs, saved models and exported files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxlm.models import CountsBigramLM, LanguageModel, MLPLanguageModel, NeuralBigramLM
from jaxlm.runs.page.describe import PageModel
from jaxlm.text.tokenizers import Tokenizer
from jaxlm.utils.json_files import read_json

_TITLES = {CountsBigramLM: "counts bigram", NeuralBigramLM: "neural bigram", MLPLanguageModel: "MLP"}
_RUNGS = list(_TITLES)


def load_page_models(
    paths: Sequence[Path], load: Callable[[Path], tuple[Any, Any, Tokenizer]]
) -> tuple[list[PageModel], Tokenizer, str]:
    """Return the models, their tokenizer, and the prompt of the first run that records one, else "".

    Args:
        paths: at least one; each is a path for `load`, or a run with several models, such as one of
            `scripts/ladder`, whose models are ordered as the rungs are.

    Raises:
        ValueError: a model is of another kind, or has another tokenizer than the first.
    """
    models: list[PageModel] = []
    prompt, tokenizers = "", dict[str, Tokenizer]()
    for path in paths:
        results = read_json(path / "results.json") if (path / "results.json").exists() else {}
        prompt = prompt or results.get("prompt", "")
        group = []
        for each in sorted((path / "models").glob("*/")) or [path]:
            model, variables, tokenizers[str(each)] = load(each)
            if type(model) not in _TITLES:
                wanted = "a page shows counts bigrams, neural bigrams and MLPs"
                raise ValueError(f"{each} is a {type(model).__name__}; {wanted}")
            perplexity = _find_perplexity(results.get("models", []), each.name)
            group.append(PageModel(describe_title(model), str(each), model, variables, perplexity))
        models += sorted(group, key=lambda each: _RUNGS.index(type(each.model)))
    first = tokenizers[models[0].source]
    for source, tokenizer in tokenizers.items():
        if tokenizer != first:
            remedy = "make one page per tokenizer"
            raise ValueError(f"{source} has another tokenizer than {models[0].source}; {remedy}")
    titles = [each.title for each in models]
    paths_of = [f"{each.title}, {each.source}" if titles.count(each.title) > 1 else each.title for each in models]
    models = [each._replace(title=title) for each, title in zip(models, paths_of, strict=True)]
    return models, first, prompt


def describe_title(model: LanguageModel) -> str:
    """Return the heading of a model."""
    added = f", add {model.smoothing:.3g}" if isinstance(model, CountsBigramLM) else ""
    return _TITLES[type(model)] + added


def _find_perplexity(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    """Return the perplexity in the row of `results.json` with this name, or in its only row."""
    named = [row for row in rows if row["name"] == name] or rows
    return named[0]["perplexity"] if len(named) == 1 else None
