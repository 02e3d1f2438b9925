"""Build the page: one HTML file with its scripts, its style and the models."""

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources

import jinja2
from markupsafe import Markup

from jaxlm.runs.metrics_log import replace_nonfinite
from jaxlm.runs.page.describe import PageModel, describe_model, describe_tokenizer
from jaxlm.text.tokenizers import Tokenizer

_MAX_PROMPT_LENGTH = 4000  # characters; each change of the prompt computes all their losses
_START = '\nstartPage(JSON.parse(byId("data").textContent));\n'


def build_page(
    models: Sequence[PageModel], tokenizer: Tokenizer, *, title: str, prompt: str = "", float16: bool = False
) -> str:
    """Return a self-contained HTML page on which the models continue a text. It works offline, from disk.

    Host function; not for use inside `jit`.

    Args:
        models: at least one; counts bigrams, neural bigrams and MLPs with the same tokenizer.
        prompt: the text to begin with, at most 4,000 characters.
        float16: store weights in half precision: half the size, but not exactly the text of `jaxlm sample`.

    Raises:
        ValueError: a model or the tokenizer is of another kind, the prompt is too long, or weights exceed float16.

    >>> import jax, jaxlm
    >>> model = jaxlm.NeuralBigramLM(vocab_size=256, embedding_dim=2)
    >>> models = [PageModel("bigram", "runs/bigram", model, jaxlm.init(model, jax.random.key(0)))]
    >>> build_page(models, jaxlm.ByteTokenizer(), title="Bytes").startswith("<!doctype html>")
    True
    """
    if len(prompt) > _MAX_PROMPT_LENGTH:
        raise ValueError(
            f"prompt must have at most {_MAX_PROMPT_LENGTH} characters, got {len(prompt)}; shorten it"
        )
    num_tokens = int(tokenizer.vocab_size)
    data = {
        "prompt": prompt,
        "tokenizer": describe_tokenizer(tokenizer),
        "models": [describe_model(each, num_tokens=num_tokens, float16=float16) for each in models],
    }
    script = read_scripts("core") + read_scripts("view") + _START
    style = _read("style.css")
    # "<" could end the script element or start a comment in it.
    encoded = json.dumps(replace_nonfinite(data), separators=(",", ":"), allow_nan=False).replace("<", r"\u003c")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(_read("page.html.jinja")).render(
        title=title,
        script=Markup(script),  # noqa: S704  files of this folder
        style=Markup(style),  # noqa: S704
        max_prompt_length=_MAX_PROMPT_LENGTH,
        is_half=float16,
        data=Markup(encoded),  # noqa: S704  JSON without "<"
        script_hash=_hash_source(script),
        style_hash=_hash_source(style),
    )


def read_scripts(folder: str) -> str:
    """Return the scripts of a folder as one script: browsers refuse modules from disk."""
    files = resources.files(__package__).joinpath(folder).iterdir()
    return "\n".join(file.read_text("utf-8") for file in sorted(files, key=lambda file: file.name))


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _hash_source(source: str) -> str:
    """Return the source expression of a Content-Security-Policy that allows this script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
