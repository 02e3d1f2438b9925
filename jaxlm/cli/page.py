"""`jaxlm page`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from tyro.conf import Positional, arg

from jaxlm.cli.shared import CommandOptions, Console, ModelOptions, open_model_on_cpu
from jaxlm.utils.atomic_files import check_absent, write_atomically
from jaxlm.utils.terminal import print_plain


@dataclass(frozen=True)
class PageOptions(CommandOptions):
    """Write a web page on which models continue a text step by step. It works offline, from disk."""

    device: ClassVar[str] = "cpu"
    # Runs, saved models or exported files with the same tokenizer, or a run of scripts/ladder with its models.
    models: Annotated[tuple[Path, ...], Positional, arg(metavar="RUN [RUN ...]")]
    out: Path = Path("page.html")  # HTML file to write.
    prompt: str | None = None  # Text at the start. None: the prompt of the run's samples.
    title: str = "Next-token models"  # Heading of the page.
    # Store weights in half precision. The page has half the size, but not exactly the text of `jaxlm sample`.
    float16: bool = False
    overwrite: bool = False  # Replace an existing file.


def write_page(options: PageOptions, console: Console) -> dict[str, Any]:
    """Write the page and print its size."""
    from jaxlm.runs.page.build import build_page
    from jaxlm.runs.page.sources import load_page_models

    out = options.out
    if not options.models:
        raise ValueError("name at least one run, saved model or exported file")
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"the page must end in .html, got {out}")
    check_absent(out, overwrite=options.overwrite)
    paths = list(dict.fromkeys(options.models))
    models, tokenizer, prompt = load_page_models(paths, lambda path: open_model_on_cpu(ModelOptions(path)))
    prompt = prompt if options.prompt is None else options.prompt
    tokenizer.encode(prompt)  # raises an error that names an unknown character
    page = build_page(models, tokenizer, title=options.title, prompt=prompt, float16=options.float16)
    write_atomically(out, page, parents=True)
    print_plain(console, f"wrote {out}: {len(page.encode()):,} bytes; open it in a browser")
    return {"file": str(out), "bytes": len(page.encode()), "models": [model.source for model in models]}
