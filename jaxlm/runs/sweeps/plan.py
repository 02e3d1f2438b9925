"""Plan the runs of a sweep: a grid of options, random draws, or both."""

import dataclasses
import itertools
import math
import operator
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jaxlm.runs.config import TrainConfig, accepts_float, resolve

_NAMES = tuple(field.name for field in dataclasses.fields(TrainConfig))
_MAX_RUNS = 10_000
_MAX_END = 1e300
_RANGE = re.compile(r"(log:)?([^,]+?)\.\.([^,]+)")


def plan_sweep(
    config: TrainConfig,
    grid: Mapping[str, Iterable[Any]] | None = None,
    settings: Iterable[Mapping[str, Any]] = ({},),
) -> list[TrainConfig]:
    """Return the options of each run of a sweep: all combinations of the settings and the values of the grid.

    Args:
        config: the options that all runs share.
        grid: option -> values. The last option varies fastest, the settings slowest.
        settings: options that vary together, such as those of `draw_settings`.

    Raises:
        ValueError: An option does not exist, is out of range or given twice, two runs are equal, or there are more
            than 10,000 runs.

    >>> [(run.lr, run.seed) for run in plan_sweep(TrainConfig(), {"lr": [0.1, 0.3], "seed": range(2)})]
    [(0.1, 0), (0.1, 1), (0.3, 0), (0.3, 1)]
    """
    settings = list(itertools.islice(settings, _MAX_RUNS + 1))
    columns = {name: list(itertools.islice(values, _MAX_RUNS + 1)) for name, values in (grid or {}).items()}
    if len(settings) * math.prod(map(len, columns.values())) > _MAX_RUNS:
        raise ValueError(f"a sweep must have at most {_MAX_RUNS:,} runs; remove values of the grid")
    configs = []
    for setting in settings:
        if unknown := [name for name in [*setting, *columns] if name not in _NAMES]:
            raise ValueError(f"unknown option {unknown[0]!r}; available options: {', '.join(_NAMES)}")
        if twice := [name for name in setting if name in columns]:
            raise ValueError(f"{twice[0]} is both drawn and in the grid; remove one")
        for values in itertools.product(*columns.values()):
            configs.append(dataclasses.replace(config, **setting, **dict(zip(columns, values, strict=True))))
            resolve(configs[-1])  # raises the errors of options that exclude each other
    if not configs:
        raise ValueError("a sweep needs at least one run; each option of the grid needs at least one value")
    if len(set(configs)) < len(configs):
        ((equal, _),) = Counter(configs).most_common(1)
        names = dict.fromkeys([*itertools.chain(*settings), *columns])
        options = ", ".join(f"{name} {getattr(equal, name)}" for name in names)
        raise ValueError(f"two runs of the sweep are equal ({options}); remove the repeated value")
    return configs


def draw_settings(num_settings: int, ranges: Mapping[str, str], *, seed: int = 0) -> list[dict[str, Any]]:
    """Draw different random settings for `plan_sweep`. More settings with the same seed begin with the same ones.

    Args:
        ranges: option -> "0.1..0.9" (uniform), "log:0.01..3" (uniform logarithm), rounded to 4 digits, or
            a list "sgd,adam". An option of integers draws integers; both ends are included.

    Raises:
        ValueError: A range is invalid, or the ranges have too few values for so many settings.

    >>> draw_settings(2, {"lr": "log:0.01..3", "hidden_dim": "32..64"})
    [{'lr': 1.235, 'hidden_dim': 57}, {'lr': 0.1101, 'hidden_dim': 40}]
    """
    generator = random.Random(operator.index(seed))  # noqa: S311  the same numbers in all versions of Python
    if num_settings > _MAX_RUNS:
        raise ValueError(f"a sweep must have at most {_MAX_RUNS:,} runs, got {num_settings:,}")
    settings: dict[tuple[Any, ...], None] = {}
    for _ in range(100 * num_settings):  # enough to draw each of `num_settings` values at least once
        if len(settings) == num_settings:
            break
        settings.setdefault(tuple(_draw(name, text, generator.random()) for name, text in ranges.items()))
    if len(settings) < num_settings:
        text = " ".join(f"{name}={text}" for name, text in ranges.items())
        wanted = f"{num_settings:,} different settings"
        raise ValueError(f"{text} must have {wanted}, got {len(settings):,}; draw fewer")
    return [dict(zip(ranges, values, strict=True)) for values in settings]


def parse_values(text: str) -> Sequence[Any]:
    """Return the values of an option in a list such as "0.1,0.3" or a range of integers such as "0..4".

    >>> parse_values("0..2"), parse_values("0.1,1,None")
    (range(0, 3), [0.1, 1, None])
    """
    if bounds := _parse_range(text):
        is_log, first, last = bounds
        if is_log or isinstance(first, float) or isinstance(last, float):
            wanted = "values such as 0.1,0.3 or a range of integers such as 0..4"
            raise ValueError(f"a grid needs {wanted}, got {text!r}")
        return range(first, last + 1)
    return [_parse_value(word) for word in text.split(",")]


def varied_options(configs: Sequence[TrainConfig]) -> list[str]:
    """Return the names of the options that are not the same in all runs."""
    return [name for name in _NAMES if any(getattr(each, name) != getattr(configs[0], name) for each in configs)]


def run_names(configs: Sequence[TrainConfig]) -> list[str]:
    """Return the name of each run's directory, such as `03-lr=0.3,seed=1`: its index and the options that vary."""
    varied, width = varied_options(configs), len(str(len(configs) - 1))
    names = []
    for index, config in enumerate(configs):
        options = ",".join(f"{name}={_shorten(getattr(config, name))}" for name in varied)
        names.append(f"{index:0{width}}-{options}"[:100].rstrip("-"))
    return names


def _shorten(value: Any) -> str:
    return re.sub(r"[^\w.+-]", "_", value.name if isinstance(value, Path) else str(value), flags=re.ASCII)


def _draw(name: str, text: str, uniform: float) -> Any:
    """Return the value of an option for a number in [0, 1)."""
    if (bounds := _parse_range(text)) is None:
        values = parse_values(text)
        return values[int(uniform * len(values))]
    is_log, first, last = bounds
    if not (0 < first < last if is_log else first < last):
        raise ValueError(f"{name}={text} must be an ascending range{' above 0' if is_log else ''}")
    is_integer = isinstance(first, int) and isinstance(last, int) and not accepts_float(name)
    low, high = (first - 0.5, last + 0.5) if is_integer else (first, last)
    low, high = (math.log(low), math.log(high)) if is_log else (low, high)
    value = low * (1 - uniform) + high * uniform  # `high - low` can overflow
    value = math.exp(value) if is_log else value
    return round(value) if is_integer else float(f"{value:.4g}")


def _parse_range(text: str) -> tuple[bool, Any, Any] | None:
    """Return whether a range such as "log:0.01..3" is logarithmic, and its ends; None if `text` is not a range."""
    if (match := _RANGE.fullmatch(text)) is None:
        return None
    first, last = _parse_value(match[2]), _parse_value(match[3])
    if not all(isinstance(end, int | float) and abs(end) < _MAX_END for end in (first, last)):
        raise ValueError(f"the ends of a range must be numbers below {_MAX_END:g}, got {text!r}")
    return match[1] is not None, first, last


def _parse_value(word: str) -> Any:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(word)
    return {"None": None, "True": True, "False": False}.get(word, word)
