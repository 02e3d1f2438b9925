"""A short jit comparison writes rows that follow from each other, and its options are checked first."""

import re
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from experiments.speed.jit.compare import JitOptions, compare, prepare
from experiments.speed.jit.stages import Sizes, make_problem

README = Path(__file__).parents[3] / "experiments" / "speed" / "README.md"
QUICK = {"quick": True, "repeats": 1, "device": "cpu"}
STAGE_FILE = """
import jax, jax.numpy as jnp, optax
optimizer = optax.adamw(0.1)
def step(inputs, state, i):
    gradient = jax.grad(lambda params: (params * inputs[i % 8]).sum())(state[0])
    updates, optimizer_state = optimizer.update(gradient, state[1], state[0])
    return optax.apply_updates(state[0], updates), optimizer_state
STAGES = {"adamw": lambda _: (step, jnp.ones((8, 3)), (jnp.ones(3), optimizer.init(jnp.ones(3))))}
"""


@pytest.mark.slow
def test_comparison_writes_consistent_rows(run, tmp_path):
    path, results, output = run(prepare, JitOptions(**QUICK, out=tmp_path / "run", stages=("forward",)))
    for name in ("roofline.png", "speedups.png"):
        assert (path / name).read_bytes().startswith(b"\x89PNG")
    rows = {row["variant"]: row for row in results["rows"]}
    assert {"eager", "no jit", "jit", "donated", "loop", "scan", "vmap", "numpy"} <= set(rows)
    assert all(name in output for name in rows)
    ceiling = results["ceiling"]
    matrix_products = 2 * 32 * (30 * 200 + 200 * 27)
    for row in rows.values():
        assert (row["size"], row["stage"], row["repeats"]) == ("small", "forward", 1)
        assert 0 < row["minimum_us"] <= row["median_us"]
        assert row["speedup"] == pytest.approx(rows["eager"]["median_us"] / row["median_us"])
        assert matrix_products <= row["flops"] <= 1.05 * matrix_products
        rates = {unit: row[unit] / row["median_us"] * 1e6 for unit in ("flops", "bytes")}
        shares = {unit: rate / ceiling[f"{unit}_per_second"] for unit, rate in rates.items()}
        assert row["share"] == pytest.approx(max(shares.values()))
        assert row["share_of"] == max(shares, key=shares.get)
    assert rows["eager"]["units_per_call"] == rows["no jit"]["units_per_call"] == 1
    assert rows["loop"]["units_per_call"] == rows["jit"]["units_per_call"] == rows["vmap"]["units_per_call"] > 1
    assert rows["jit"]["compile_seconds"] > 0 == rows["numpy"]["compile_seconds"]


@pytest.mark.slow
def test_stage_file_with_adamw_fills_a_row(run, tmp_path):
    (tmp_path / "mine.py").write_text(STAGE_FILE)
    _, results, _ = run(prepare, JitOptions(**QUICK, out=tmp_path / "run", stage_file=tmp_path / "mine.py"))
    rows = results["rows"]
    assert [row["variant"] for row in rows] == ["eager", "no jit", "jit", "donated", "loop", "scan", "vmap"]
    assert all(row["error"] is None and row["stage"] == "adamw" and row["median_us"] > 0 for row in rows)


def test_stage_of_the_readme_keeps_the_form_of_its_state(tmp_path):
    (block,) = re.findall(r"^```python\n(.*?adamw.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.py").write_text(block)
    stages = runpy.run_path(str(tmp_path / "mine.py"))["STAGES"]
    step, inputs, state = stages["adamw"](make_problem(Sizes(5, 2, 2, 3, 4, items=2)))
    assert jax.eval_shape(step, jnp.asarray(inputs), state, 0) == jax.eval_shape(lambda: state)


@pytest.mark.slow
def test_compare_keeps_the_variants_that_work(capsys):
    def step(inputs, state, i):
        return state + inputs if i >= 0 else state  # a traced i has no truth value

    rows = {row["variant"]: row for row in compare({"own": (step, jnp.ones(3), 0.0)}, items=2, repeats=1)}
    assert {name for name, row in rows.items() if row["error"] is None} == {"eager", "no jit"}
    assert rows["no jit"]["median_us"] > 0
    assert "median_us" not in rows["scan"]
    assert "jit, donated, loop, scan, vmap of own: TracerBoolConversionError" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": ("forward", "backward")}, "unknown stage 'backward'; .*count, batch, forward, loss"),
        ({"stage_file": Path(__file__)}, r"test_jit_compare\.py defines no stages"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
    ],
)
def test_prepare_refuses_an_option(options, message):
    with pytest.raises(ValueError, match=message):
        prepare(JitOptions(**options))
