"""Kill `jaxlm train` by SIGKILL, resume it, and compare the result with an undisturbed run.

    scripts/torture --kills 100        # 100 of 100 identical, 0 unreadable directories
    scripts/torture --every-call       # a kill before each call that changes the directory of a short run

A process is killed after a random time, or just before a random call that changes the run directory, such as an
open for writing, a rename or an fsync. Orbax writes arrays from C++, so only a random time can interrupt that.
Some runs are slowed down at such calls, so that a random time hits them more often. After each kill, the directory
is read as another process would read it; the manifest and the metrics are read while the run trains, too.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro
from training_process import KINDS, PHASES, Kill, start

from jaxlm.checkpoints.train_states import checkpoint_steps, load_checkpoint
from jaxlm.runs.load import load_model, open_run
from jaxlm.runs.manifest import read_manifest
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.runs.setup import abstract_state, make_model, make_optimizer
from jaxlm.utils.json_files import read_json

_MODEL = "--tokenizer char --embedding-dim 4 --hidden-dim 8 --batch-size 16 --device cpu --save-seconds 600"
_RUN = "--num-steps 120 --save-every 10 --log-every 7 --keep 2"
_SHORT_RUN = "--num-steps 2 --save-every 1 --log-every 1 --keep 1"
_WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "hat")
_TIMES = ("compile_seconds", "train_seconds")


@dataclass(frozen=True)
class Options:
    """Kill training at random moments, resume it, and compare the result with an undisturbed run."""

    kills: int = 100
    """Number of runs to kill, each at least once."""
    most_kills: int = 3
    """Maximum number of kills per run."""
    seed: int = 0
    """Seed of the random kills."""
    out: Path | None = None
    """A new directory for the runs. Runs that differ are kept. None: a temporary directory."""
    every_call: bool = False
    """Start one short run per call that changes its directory, and kill it before that call; no random kills."""
    workers: int = 2
    """Number of runs at a time."""


@dataclass(frozen=True)
class Plan:
    """The kills of one run. A cold run imports and compiles everything itself."""

    index: int
    kills: tuple[Kill, ...]
    is_cold: bool = False


class KillRecord(NamedTuple):
    """A kill that happened: in which phase, and whether the run was resumed."""

    kill: Kill
    phase: int
    resumed: bool = False


class Outcome(NamedTuple):
    """The kills of a run, and the violations found."""

    killed: list[KillRecord]
    unreadable: list[str]
    differences: list[str]


@dataclass(frozen=True)
class Setting:
    """The directory of the runs, the command that starts one, and calls and seconds of the undisturbed run."""

    folder: Path
    command: list[str]
    like: Any
    calls: dict[str, int]
    seconds: float

    @property
    def reference(self) -> Path:
        return self.folder / "reference"


def main(options: Options) -> int:
    """Kill runs, print the table, and return 1 if there is a violation."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # for the processes too
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # a cold run compiles everything itself
    folder = Path(tempfile.mkdtemp(prefix="torture-")) if options.out is None else options.out.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty; choose another --out")
    os.chdir(folder)  # a run records the git commit of its working directory, which must not change meanwhile
    setting = prepare(folder, _SHORT_RUN if options.every_call else _RUN)
    counted = ", ".join(f"{number} {kind.removeprefix('os.')}" for kind, number in setting.calls.items())
    print(f"undisturbed: {setting.seconds:.1f} s; {sum(setting.calls.values())} calls: {counted}", flush=True)
    plans = plan_every_call(setting) if options.every_call else plan_random_kills(setting, options)
    outcomes = []
    with ThreadPoolExecutor(options.workers) as executor:
        for plan, outcome in executor.map(lambda plan: (plan, kill_and_resume(setting, plan)), plans):
            outcomes.append(outcome)
            for wrong in [*outcome.unreadable, *outcome.differences]:
                print(f"seed {options.seed}, run {plan.index}: {wrong}; {plan}", flush=True)
    return report(outcomes)


def prepare(folder: Path, options: str) -> Setting:
    """Write the text and the undisturbed run. It runs twice: the first run fills the compilation cache."""
    words = np.random.default_rng(0).choice(_WORDS, size=(200, 8))
    (folder / "text.txt").write_text("\n".join(map(" ".join, words)), "utf-8")
    command = ["train", "--text", str(folder / "text.txt"), *_MODEL.split(), *options.split()]
    for name in ("first", "reference"):
        begin = time.monotonic()
        path = folder / name
        process, progress = start([*command, "--out", str(path)], path, folder / "cache", Kill(), is_cold=False)
        process.join()
        if process.exitcode != 0:
            raise SystemExit(f"the undisturbed run failed; see {path}.log")
    config, (model, _, _) = open_run(path).config, load_model(path)
    optimizer = make_optimizer(config)
    assert optimizer is not None
    like = abstract_state(make_model(config, model.vocab_size), optimizer, config)
    return Setting(folder, command, like, dict(zip(KINDS, progress.calls, strict=True)), time.monotonic() - begin)


def plan_random_kills(setting: Setting, options: Options) -> Iterator[Plan]:
    """Plan one or more kills per run, half of them at a call. Every eighth run is cold."""
    for index in range(options.kills):
        random = np.random.default_rng([options.seed, index])
        is_cold, kills = index % 8 == 7, []
        for _ in range(random.integers(1, options.most_kills + 1)):
            delay = float(random.choice([0, 0.001, 0.005]))
            if random.random() < 0.5:
                kind = str(random.choice(KINDS))
                kills.append(Kill(int(random.integers(setting.calls[kind])) + 1, kind, delay=delay))
            else:
                longest = setting.seconds * (2 if is_cold else 1) + delay * sum(setting.calls.values())
                kills.append(Kill(seconds=float(random.uniform(0, longest)), delay=delay))
        yield Plan(index, tuple(kills), is_cold)


def plan_every_call(setting: Setting) -> Iterator[Plan]:
    """Plan one kill before each call of the undisturbed run."""
    return (Plan(number, (Kill(number),)) for number in range(1, sum(setting.calls.values()) + 1))


def kill_and_resume(setting: Setting, plan: Plan) -> Outcome:
    """Start a run, kill and resume it as planned, let it finish, and compare it with the undisturbed run."""
    path = setting.folder / f"run-{plan.index}"
    cache = setting.folder / f"cache-{plan.index}" if plan.is_cold else setting.folder / "cache"
    killed: list[KillRecord] = []
    unreadable: list[str] = []
    code = None
    for kill in [*plan.kills, Kill()]:
        # Like a scheduler that restarts a job: resume if the run exists.
        is_run = (path / "manifest.json").exists()
        words = ["train", "--resume", str(path)] if is_run else [*setting.command, "--out", str(path)]
        process, progress = start(words, path, cache, kill, is_cold=plan.is_cold)
        watch(process, path, kill.seconds, unreadable)
        code = process.exitcode
        if killed and code in (0, -signal.SIGKILL):
            killed[-1] = killed[-1]._replace(resumed=True)
        if code != -signal.SIGKILL:
            break
        killed.append(KillRecord(kill, progress.phase))
        unreadable += check_directory(setting, path)
    differences = [f"exit code {code}, see {path}.log"] if code else compare(setting, path)
    if not killed and not differences:  # the run finished before its kills
        shutil.rmtree(path)
        return kill_and_resume(setting, replace(plan, kills=tuple(map(halve, plan.kills))))
    if not differences and not unreadable:
        for rest in (path, setting.folder / f"cache-{plan.index}"):
            shutil.rmtree(rest, ignore_errors=True)
        path.with_suffix(".log").unlink()
    return Outcome(killed, unreadable, differences)


def halve(kill: Kill) -> Kill:
    """Return a kill after half the time or half the calls."""
    return replace(kill, call=kill.call and -(-kill.call // 2), seconds=kill.seconds and kill.seconds / 2)


def watch(process: Any, path: Path, seconds: float | None, unreadable: list[str]) -> None:
    """Wait for the process or kill it after `seconds`, reading its files meanwhile."""
    end = time.monotonic() + (3600 if seconds is None else seconds)
    while process.is_alive() and time.monotonic() < end:
        process.join(min(0.2, max(end - time.monotonic(), 0)))
        unreadable += check_logs(path)
    process.kill()
    process.join()


def check_logs(path: Path) -> list[str]:
    """Return the faults of the manifest and the metrics."""
    try:
        if (path / "manifest.json").exists():
            read_manifest(path)
        read_metrics(path / "metrics.jsonl")
    except (OSError, ValueError) as error:
        return [f"unreadable: {error}"]
    return []


def check_directory(setting: Setting, path: Path) -> list[str]:
    """Return the faults of a killed run's directory: every file with a final name must be complete."""
    if wrong := check_logs(path):
        return wrong
    if (path / "manifest.json").exists() and (state := read_manifest(path)["state"]) not in ("killed", "done"):
        wrong.append(f"unreadable: the state is {state}")
    steps = checkpoint_steps(path / "checkpoints")
    for each in ["config.json", "results.json", "jaxlm_tokenizer.json", *steps]:
        try:
            if isinstance(each, int):
                load_checkpoint(path / "checkpoints", each, setting.like)
            elif (path / each).exists():
                read_json(path / each)
        except (OSError, ValueError) as error:
            wrong.append(f"unreadable: {error}")
    return wrong


def compare(setting: Setting, path: Path) -> list[str]:
    """Return how a finished run differs from the undisturbed one."""

    def bits(tree: Any) -> list[tuple[str, bytes]]:
        return [(str(leaf.dtype), np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]

    def last_state(path: Path) -> Any:
        step = checkpoint_steps(path / "checkpoints")[-1]
        return step, bits(load_checkpoint(path / "checkpoints", step, setting.like).state)

    names = ("metrics.jsonl", "samples.txt", "config.json", "jaxlm_tokenizer.json")
    parts: dict[str, Callable[[Path], Any]] = {
        "content of files": lambda path: [(path / name).read_bytes() for name in names],
        "model": lambda path: bits(load_model(path)[1]),
        "last checkpoint": last_state,
        "best parameters": lambda path: bits(load_model(path, "best")[1]),
        "results.json": read_results_without_times,
        "manifest.json": lambda path: [read_manifest(path)[name] for name in ("state", "notes", "config")],
        "list of files": lambda path: sorted(entry.name for entry in path.iterdir()),
    }
    differences = []
    for name, part in parts.items():
        try:
            if part(path) != part(setting.reference):
                differences.append(f"{path}: {name} differs")
        except (OSError, ValueError, LookupError, AssertionError) as error:
            differences.append(f"{path}: cannot read {name}: {error!r}")
    return differences


def read_results_without_times(path: Path) -> dict[str, Any]:
    """Return `results.json` without its measured times."""
    results: dict[str, Any] = json.loads((path / "results.json").read_text("utf-8"))
    rows = [{name: value for name, value in row.items() if name not in _TIMES} for row in results["models"]]
    return results | {"models": rows}


def report(outcomes: Sequence[Outcome]) -> int:
    """Print the outcomes by phase. Return 1 if there is a violation, else 0."""
    kills = [(killed, outcome) for outcome in outcomes for killed in outcome.killed]
    print(f"{'killed during':<15}{'kills':>7}{'resumed':>9}{'identical':>11}{'unreadable':>12}")
    for number, phase in enumerate(PHASES):
        those = [(killed, outcome) for killed, outcome in kills if killed.phase == number]
        resumed = sum(killed.resumed for killed, _ in those)
        identical = sum(not outcome.differences for _, outcome in those)
        unreadable = sum(bool(outcome.unreadable) for _, outcome in those)
        print(f"{phase:<15}{len(those):>7}{resumed:>9}{identical:>11}{unreadable:>12}")
    moments = Counter(
        "timer" if killed.kill.call is None else killed.kill.kind or "any call" for killed, _ in kills
    )
    triggers = ", ".join(f"{moment.removeprefix('os.')} {n}" for moment, n in moments.most_common())
    print(f"kills by trigger: {triggers}")
    identical = sum(not outcome.differences for outcome in outcomes)
    unreadable = sum(bool(outcome.unreadable) for outcome in outcomes)
    print(f"{identical} of {len(outcomes)} identical, {unreadable} unreadable directories", flush=True)
    return int(identical < len(outcomes) or unreadable > 0)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, prog="torture", config=(tyro.conf.FlagCreatePairsOff,))))
