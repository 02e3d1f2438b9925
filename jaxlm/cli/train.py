"""`jaxlm train`."""

import shlex
from dataclasses import dataclass, field
from typing import Any

from tyro.conf import OmitArgPrefixes

import jaxlm
from jaxlm.cli.options import Console, JsonFlag, OptionalPath
from jaxlm.cli.shared import resume_hint
from jaxlm.runs.config import TrainConfig
from jaxlm.utils.json_files import read_json
from jaxlm.utils.terminal import print_plain, write


@dataclass(frozen=True)
class TrainOptions:
    """Start or resume a training run. A resumed run gives the same bits as one that was never stopped."""

    training: OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)
    resume: OptionalPath = None
    """Resume the run in this directory, with its own options. Only --num-steps may be raised."""
    config: OptionalPath = None
    """Read options from this JSON file, such as a run's config.json. Options on the command line override it."""
    out: OptionalPath = None
    """Run directory. None means runs/MODEL-CORPUS-TOKENIZER-DATE-TIME."""
    overwrite: bool = False
    """Replace the run in --out."""
    json: JsonFlag = False


def train_model(options: TrainOptions, console: Console) -> dict[str, Any]:
    """Start or resume a run; return its summary and its `results.json`. An interrupt says how to resume."""
    from jaxlm.runs.report.tables import results_table
    from jaxlm.runs.summary import summarise_run

    config, resume, out, overwrite = options.training, options.resume, options.out, options.overwrite
    if resume is not None and (out is not None or overwrite):
        raise ValueError("--resume continues the run in its own directory; remove --out and --overwrite")
    started = [] if resume is None else [resume]
    try:
        if resume is not None:
            path = jaxlm.resume_run(resume, config, console=console)
        else:
            path = jaxlm.start_run(config, out, overwrite=overwrite, console=console, on_start=started.append)
    except KeyboardInterrupt as stop:
        if not started:
            raise
        raise KeyboardInterrupt(f"by {str(stop) or 'SIGINT'}; {resume_hint(started[0])}") from None
    results = read_json(path / "results.json")
    console.print(results_table(results["models"]))
    write(console, f"\n{next(iter(results['samples'].values()))}\n\n")
    print_plain(
        console, f"report: {path / 'report.html'}; for more samples: jaxlm sample {shlex.quote(str(path))}"
    )
    return summarise_run(path) | {"results": results}
