"""Plans of sweeps: grids, random draws, names, and which runs are one program."""

import math
import statistics
from pathlib import Path

import numpy as np
import pytest

from jaxlm.runs.config import TrainConfig, config_to_command
from jaxlm.runs.sweeps.packs import group_by_shape
from jaxlm.runs.sweeps.plan import draw_settings, parse_values, plan_sweep, run_names

BASE = TrainConfig()


def test_plan_sweep_holds_all_combinations():
    configs = plan_sweep(BASE, {"lr": [0.1, 1], "seed": range(2)}, [{"momentum": 0.5}, {"momentum": 0.8}])
    rows = [(each.momentum, each.lr, each.seed) for each in configs]
    grid = [(0.1, 0), (0.1, 1), (1, 0), (1, 1)]
    assert rows == [(0.5, *each) for each in grid] + [(0.8, *each) for each in grid]
    grid = {"lr": np.array([0.1, 1]), "seed": np.arange(2)}
    assert plan_sweep(BASE, grid, [{"momentum": np.float64(0.5)}]) == configs[:4]


@pytest.mark.parametrize(
    ("grid", "settings", "message"),
    [
        ({"rate": [1]}, [{}], "unknown option 'rate'; available options: model, corpus"),
        ({"lr": [-1]}, [{}], r"lr must be in \[0, "),
        ({"lr": ["x"]}, [{}], "lr must be float or None, got 'x'"),
        ({"model": ["bigram"], "dropout": [0.1]}, [{}], "dropout 0.1 does not apply to model bigram"),
        ({"lr": []}, [{}], "at least one run"),
        ({"lr": [1, 1.0]}, [{}], r"two runs of the sweep are equal \(lr 1\)"),
        ({"lr": [1, 1.0], "seed": [3, 4]}, [{}], r"two runs of the sweep are equal \(lr 1, seed 3\)"),
        ({"seed": range(2**40)}, [{}], "at most 10,000 runs"),
        ({"seed": range(101), "lr": [i / 100 for i in range(100)]}, [{}], "at most 10,000 runs"),
        ({"lr": [1]}, [{"lr": 2}], "lr is both drawn and in the grid"),
    ],
)
def test_plan_sweep_refuses_what_cannot_run(grid, settings, message):
    with pytest.raises(ValueError, match=message):
        plan_sweep(BASE, grid, settings)


def test_draw_settings_covers_each_range_evenly():
    ranges = {"lr": "log:0.01..100", "momentum": "0..0.9", "hidden_dim": "2..5", "model": "bigram,mlp"}
    settings = draw_settings(400, ranges, seed=1)
    assert draw_settings(9, ranges, seed=np.int64(1)) == settings[:9] != draw_settings(9, ranges, seed=2)
    assert statistics.mean(math.log10(each["lr"]) for each in settings) == pytest.approx(0, abs=0.2)
    assert statistics.mean(each["momentum"] for each in settings) == pytest.approx(0.45, abs=0.05)
    assert all(0.01 <= each["lr"] <= 100 and each["lr"] == float(f"{each['lr']:.4g}") for each in settings)
    for name, values in (("hidden_dim", [2, 3, 4, 5]), ("model", ["bigram", "mlp"])):
        counts = [sum(each[name] == value for each in settings) for value in values]
        assert sum(counts) == 400
        assert min(counts) > 0.7 * 400 / len(values)


def test_draw_settings_draws_between_distant_ends():
    for text in ("log:1e-320..1", "-1e299..1e299"):
        values = [each["lr"] for each in draw_settings(50, {"lr": text})]
        assert all(map(math.isfinite, values))
        assert max(values) > 1e-20
        assert min(values) < 1e-100


@pytest.mark.parametrize("text", ["3..1", "log:0..3", "log:-1..3", "1..x", "1..inf", f"1..{10**400}"])
def test_draw_settings_refuses_other_ranges(text):
    with pytest.raises(ValueError, match=r"lr=.* must be an ascending range|ends of a range must be numbers"):
        draw_settings(1, {"lr": text})


def test_draw_settings_draws_different_ones():
    drawn = draw_settings(6, {"hidden_dim": "2..4", "model": "bigram,mlp"})
    assert {tuple(each.values()) for each in drawn} == {
        (n, model) for n in (2, 3, 4) for model in ("bigram", "mlp")
    }
    with pytest.raises(ValueError, match=r"hidden_dim=2\.\.4 must have 4 different settings, got 3; draw fewer"):
        draw_settings(4, {"hidden_dim": "2..4"})
    with pytest.raises(ValueError, match="at most 10,000 runs, got 10,001"):
        draw_settings(10_001, {"lr": "0..1"})


def test_parse_values_reads_lists_and_integer_ranges():
    assert parse_values("0.1,1e-3,2,char,None,True") == [0.1, 0.001, 2, "char", None, True]
    assert list(parse_values("-1..2")) == [-1, 0, 1, 2]
    for text in ("0.1..0.5", "log:1..3"):
        with pytest.raises(ValueError, match="a grid needs values such as"):
            parse_values(text)


def test_run_names_hold_index_and_varied_options():
    grid = {"lr": [0.1, 3], "tokenizer": ["char", Path("/a b/c d.json")], "seed": range(3)}
    names = run_names(plan_sweep(BASE, grid))
    assert (names[0], names[-1]) == ("00-tokenizer=char,lr=0.1,seed=0", "11-tokenizer=c_d.json,lr=3,seed=2")
    assert run_names([BASE]) == ["0"]
    long = run_names([BASE, TrainConfig(text=Path("/" + "\u6587" * 80))])[1]
    assert len(long.encode()) <= 100


def test_group_by_shape_groups_numbers_of_sgd_and_seeds():
    one_program = {"lr": [0.1, 0.2], "weight_decay": [0, 0.1], "clip_norm": [1, 2], "seed": [0, 1]}
    for grid, sizes in [
        (one_program, [16]),
        ({"momentum": [0, 0.5, 0.9]}, [1, 2]),
        ({"warmup_steps": [0, 1, 2]}, [1, 2]),
        ({"clip_norm": [None, 1]}, [1, 1]),
        ({"batch_size": [8, 9], "seed": [0, 1]}, [2, 2]),
        ({"model": ["bigram", "mlp", "counts"], "seed": [0, 1]}, [2, 2, 1, 1]),
        ({"optimizer": ["adam"], "seed": [0, 1]}, [1, 1]),
        ({"patience": [3], "seed": [0, 1]}, [1, 1]),
    ]:
        configs = plan_sweep(BASE, grid)
        groups = group_by_shape(dict(zip(run_names(configs), configs, strict=True)))
        assert [len(group) for group in groups] == sizes, grid


def test_config_to_command_repeats_only_what_differs():
    config = TrainConfig(optimizer="adam", lr=0.01, direct_connections=True, tokenizer="bpe", vocab_size=300)
    words = "jaxlm train --vocab-size 300 --direct-connections --optimizer adam"
    assert config_to_command(config) == words.split()  # the default rate of adam is 0.01
    assert config_to_command(TrainConfig(tokenizer=Path("/t.json")))[2:] == ["--tokenizer", "/t.json"]
