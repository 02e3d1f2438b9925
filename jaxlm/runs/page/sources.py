"""Find the models of a page: in runs, saved models and exported files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxlm.models import CountsBigramLM, LanguageModel
from jaxlm.runs.page.describe import RUNGS, PageModel, check_shown
from jaxlm.text.tokenizers import Tokenizer
from jaxlm.utils.json_files import read_json


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
    tokenizers: list[Tokenizer] = []
    prompt = ""
    for path in paths:
        recorded_prompt, perplexities = _read_results(path / "results.json")
        prompt = prompt or recorded_prompt
        group = []
        for source in sorted((path / "models").glob("*/")) or [path]:
            model, variables, tokenizer = load(source)
            # The only model of a run has another name than its directory.
            perplexity = perplexities.get(source.name if source != path else next(iter(perplexities), ""))
            group.append(PageModel(describe_title(model, source), str(source), model, variables, perplexity))
            tokenizers.append(tokenizer)
            if tokenizer != tokenizers[0]:
                remedy = "make one page per tokenizer"
                raise ValueError(f"{source} has another tokenizer than {(models + group)[0].source}; {remedy}")
        models += sorted(group, key=lambda each: list(RUNGS).index(type(each.model)))
    titles = [each.title for each in models]
    models = [
        each if titles.count(each.title) == 1 else each._replace(title=f"{each.title}, {each.source}")
        for each in models
    ]
    return models, tokenizers[0], prompt


def describe_title(model: LanguageModel, source: Path) -> str:
    """Return the heading of a model. Raise a ValueError if a page cannot show it."""
    model = check_shown(model, source)
    added = f", add {model.smoothing:.3g}" if isinstance(model, CountsBigramLM) else ""
    return RUNGS[type(model)] + added


def _read_results(file: Path) -> tuple[str, dict[str, float | None]]:
    """Return the prompt of a run, and the perplexities of its models by name. Without a file, both are empty."""
    if not file.exists():
        return "", {}
    results = read_json(file)
    try:
        return results["prompt"], {row["name"]: row["perplexity"] for row in results["models"]}
    except (KeyError, TypeError):
        raise ValueError(f"{file} does not hold the results of a run; restore or delete it") from None
