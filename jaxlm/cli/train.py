"""`jaxlm train`."""

import shlex
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import tyro
from tyro.conf import OmitArgPrefixes

import jaxlm
from jaxlm.cli.processes import ProcessOptions, make_mesh
from jaxlm.cli.shared import CommandOptions, Console
from jaxlm.runs.config import TrainConfig, read_config, reset_dependent_options
from jaxlm.utils.json_files import read_json
from jaxlm.utils.terminal import drop_output_errors, print_plain, write

T = TypeVar("T", bound="TrainingOptions")


@dataclass(frozen=True)
class TrainingOptions(CommandOptions):
    """Options of a subcommand that trains."""

    training: TrainConfig = field(default_factory=TrainConfig)
    _: KW_ONLY
    config: Path | None = None  # JSON file of options, such as a run's config.json. Other options override it.


@dataclass(frozen=True)
class TrainOptions(TrainingOptions):
    """Start or resume a training run. A resumed run is bit-identical to an uninterrupted one."""

    sharing: ProcessOptions = field(default_factory=ProcessOptions)
    # Resume the run in this directory. Only --num-steps can be changed, to a larger number.
    resume: Path | None = None
    out: Path | None = None  # Run directory. None means runs/MODEL-CORPUS-TOKENIZER-DATE-TIME.
    overwrite: bool = False  # Replace the run in --out.


def parse_over_saved_options(words: Sequence[str], options: T) -> T:
    """Parse the words after the subcommand again, with the options of `--resume` or `--config` as the defaults.

    `options` are the same words parsed with the defaults of `TrainConfig`.
    """

    def parse(defaults: TrainConfig) -> TrainConfig:
        default = replace(options, training=defaults)
        config = (OmitArgPrefixes,)  # `FlagCreatePairsOff` would refuse a flag whose default is now True
        return tyro.cli(type(options), args=words, default=default, config=config).training

    resumed = options.resume if isinstance(options, TrainOptions) else None
    if resumed is not None and options.config is not None:
        raise ValueError("--resume reads the options from the run; remove --config")
    if resumed is not None:
        saved = jaxlm.open_run(resumed).config
    elif options.config is not None:
        saved = read_config(options.config)
    else:
        return options
    chosen = parse(replace(saved, corpus=""))  # "" unless the words name a corpus
    choices = {name: getattr(chosen, name) for name in ("model", "tokenizer", "optimizer")}
    saved = reset_dependent_options(saved, **choices)
    if chosen.corpus:
        saved = replace(saved, text=None, tokens=None)
    elif chosen.text != saved.text:
        saved = replace(saved, corpus=TrainConfig.corpus, tokens=None)
    elif chosen.tokens != saved.tokens:
        others = {name: getattr(TrainConfig, name) for name in ("corpus", "text", "tokenizer", "vocab_size")}
        saved = replace(saved, **others)
    return replace(options, training=parse(saved))


def train_model(options: TrainOptions, console: Console) -> dict[str, Any]:
    """Start or resume a run; return its summary and its `results.json`."""
    from jaxlm.runs.processes import is_follower
    from jaxlm.runs.report.tables import results_table
    from jaxlm.runs.summary import summarize_run

    config, out, overwrite = options.training, options.out, options.overwrite
    mesh = make_mesh(options.sharing, config.device)
    if options.resume is None:
        path = jaxlm.start_run(config, out, overwrite=overwrite, mesh=mesh, console=console)
    elif out is None and not overwrite:
        path = jaxlm.resume_run(options.resume, config, mesh=mesh, console=console)
    else:
        raise ValueError("--resume continues the run in its own directory; remove --out and --overwrite")
    if is_follower(mesh):
        return {}
    results, quoted = read_json(path / "results.json"), shlex.quote(str(path))
    with drop_output_errors(console):  # the run is done
        console.print(results_table(results["models"]))
        write(console, f"\n{next(iter(results['samples'].values()))}\n\n")
        print_plain(console, f"report: {path / 'report.html'}; for more samples: jaxlm sample {quoted}")
    return summarize_run(path) | {"results": results}
