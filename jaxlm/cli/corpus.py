"""`jaxlm corpus`."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from jaxlm.cli.shared import CommandOptions, Console
from jaxlm.utils.terminal import print_plain


@dataclass(frozen=True)
class CorpusOptions(CommandOptions):
    """List or fetch the named corpora."""

    # list: show the cached files. fetch: verify them, and download what is missing or damaged.
    action: Positional[Literal["list", "fetch"]] = "list"
    name: Annotated[str | None, Positional, arg(metavar="[NAME]")] = None  # Name of a corpus. None means all.


def manage_corpora(options: CorpusOptions, console: Console) -> dict[str, Any]:
    """List named corpora, after fetching them if requested."""
    from jaxlm.text.corpora import CORPORA, cached_corpus_path, load_corpus

    act = {"list": cached_corpus_path, "fetch": load_corpus}[options.action]
    rows = []
    for name in CORPORA if options.name is None else (options.name,):
        act(name)
        path = cached_corpus_path(name)
        num_bytes = path.stat().st_size if path.exists() else None
        rows.append({"name": name, "path": str(path), "bytes": num_bytes})
        state = f"not cached (jaxlm corpus fetch {name})" if num_bytes is None else f"{num_bytes:,} bytes"
        print_plain(console, f"{name}: {state}, {path}")
    return {"action": options.action, "corpora": rows}
