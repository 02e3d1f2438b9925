"""Every way of a stage computes the same, and the figures are what they say. No test asserts a time."""

import dataclasses
import io
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.speed.jit import (
    compare as jit_comparison,
    plots as jit_pictures,
    stages as jit_stages,
    variants as jit_ways,
)
from experiments.speed.jit.compare import JitConfig, run_comparison
from experiments.speed.jit.diff_runs import describe_changes, read_results
from experiments.speed.jit.stages import COPIES, LEARNING_RATE, NUM_BATCHES, STAGES, Sizes, Stage, make_problem
from experiments.speed.jit.variants import cost_analysis, make_ways, measure, measure_ceiling, repeated
from jaxlm.runs.manifest import read_manifest
from jaxlm.utils.terminal import run_command

SIZES = Sizes(vocab_size=11, context_length=2, embedding_dim=3, hidden_dim=5, batch_size=4, items=3)
CPU = jax.devices("cpu")[0]


@pytest.fixture(scope="module")
def problem():
    """With every array far from zero, biases too."""
    fresh = make_problem(SIZES)
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), fresh.variables)
    return dataclasses.replace(fresh, variables=variables)


def outputs(stage, items, torch=None):
    """What each way's `output` is after its second call, of `items` items each (eager: of one)."""
    ways, missing = make_ways(stage, items, CPU, torch)
    assert not missing
    found = {}
    for name, way in ways.items():
        way.call()
        state = way.call()
        found[name] = state if name in ("numpy", "torch") else jax.device_get(stage.output(state))
    return found


def last_item(name, items):
    """The item that a way did last in `outputs`."""
    return {"eager": 2}.get(name, 2 * items) - 1


# What each deterministic stage has computed after items 0, ..., i, said once more in float64 and in loops.


def expected_count(problem, i):
    table = np.zeros((11, 11), int)
    for item in range(i + 1):
        start = (item % NUM_BATCHES) * jit_stages.PAIRS
        ids = problem.ids[start : start + jit_stages.PAIRS + 1]
        table += np.bincount(ids[:-1] * 11 + ids[1:], minlength=121).reshape(11, 11)
    return table


def logits_of(params, contexts):
    embedding, hidden_kernel, hidden_bias, kernel, bias = params
    rows = [np.concatenate([embedding[token] for token in context]) for context in contexts]
    return np.array([np.tanh(row @ hidden_kernel + hidden_bias) @ kernel + bias for row in rows])


def nats_of(logits, targets):
    return np.array([np.log(np.exp(row).sum()) - row[target] for row, target in zip(logits, targets, strict=True)])


def expected_forward(problem, i):
    return logits_of(float64(problem), problem.contexts[i % NUM_BATCHES])


def expected_loss(problem, i):
    logits = np.asarray(STAGES["loss"](problem).inputs[0], np.float64)
    return nats_of(logits[i % NUM_BATCHES], problem.targets[i % NUM_BATCHES]).mean()


def expected_evaluation(problem, i):
    batches = [item % NUM_BATCHES for item in range(i + 1)]
    return sum(
        nats_of(logits_of(float64(problem), problem.contexts[each]), problem.targets[each]).sum()
        for each in batches
    )


def expected_training_step(problem, i):
    """The loss of step i: gradients by central differences."""
    params = float64(problem)
    for item in range(i + 1):
        batch = problem.contexts[item % NUM_BATCHES], problem.targets[item % NUM_BATCHES]
        mean, gradients = loss_and_gradients(params, *batch)
        params = [param - LEARNING_RATE * gradient for param, gradient in zip(params, gradients, strict=True)]
    return mean


def loss_and_gradients(params, contexts, targets):
    def loss():
        return nats_of(logits_of(params, contexts), targets).mean()

    gradients = [np.zeros_like(param) for param in params]
    for param, gradient in zip(params, gradients, strict=True):
        for index in np.ndindex(param.shape):
            value = param[index]
            param[index] = value + 1e-5
            above = loss()
            param[index] = value - 1e-5
            gradient[index] = (above - loss()) / 2e-5
            param[index] = value
    return loss(), gradients


def float64(problem):
    return [array.astype(np.float64) for array in problem.arrays]


EXPECTED = {
    "count": expected_count,
    "forward": expected_forward,
    "loss": expected_loss,
    "training_step": expected_training_step,
    "evaluation": expected_evaluation,
}


def check_outputs(problem, name, torch=None):
    stage, items = STAGES[name](problem), 2
    ways = outputs(stage, items, torch)
    assert set(ways) == {"eager", "jit", "loop", "vmap", "numpy"} | ({"torch"} if torch else set())
    for way, output in ways.items():
        if way != "vmap":
            expected = EXPECTED[name](problem, last_item(way, items))
            np.testing.assert_allclose(np.asarray(output), expected, rtol=2e-5, atol=1e-5, err_msg=way)
    check_copies(stage, ways["vmap"])


def check_copies(stage, states):
    """Copy c did items c and COPIES + c, and those alone."""
    for copy in (0, COPIES - 1):
        state = stage.state
        for i in (copy, COPIES + copy):
            state = jax.jit(stage.step)(stage.inputs, state, i)
        expected = jax.tree.leaves(stage.output(state))
        for found, wanted in zip(jax.tree.leaves(states), expected, strict=True):
            np.testing.assert_allclose(found[copy], wanted, rtol=2e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "count",
        "forward",
        "loss",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("training_step", "evaluation")),
    ],
)
def test_every_way_computes_what_is_expected(problem, name):
    check_outputs(problem, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_pytorch_computes_what_is_expected(problem, name):
    torch = pytest.importorskip("torch")
    stage, items = STAGES[name](problem), 3
    run = stage.torch(torch, "cpu")
    for i in range(items):
        output = run(i)
    np.testing.assert_allclose(output.numpy(), EXPECTED[name](problem, items - 1), rtol=2e-5, atol=1e-5)


def with_torch():
    try:
        import torch
    except ImportError:
        return None
    return torch


@pytest.mark.slow
def test_batches_are_windows_of_the_stream(problem):
    """Of a stream that counts upwards, so that a window shows where it was cut."""
    counting = dataclasses.replace(problem, ids=np.arange(500, dtype=np.int32))
    for way, batch in outputs(STAGES["batch"](counting), 2, with_torch()).items():
        contexts, targets = (np.asarray(each) for each in batch)
        assert contexts.shape[-2:] == (SIZES.batch_size, SIZES.context_length), way
        windows = np.concatenate([contexts, targets[..., None]], axis=-1)
        assert (np.diff(windows, axis=-1) == 1).all(), way
        assert len(np.unique(targets)) > 1, way


@pytest.mark.slow
def test_samples_have_the_model_s_distribution(problem):
    """Logits that no context moves: token 3 with probability 1/4, token 7 with 3/4, no other."""
    variables = jax.tree.map(jnp.zeros_like, problem.variables)
    bias = np.full(11, -1e4, np.float32)
    bias[[3, 7]] = np.log([1, 3])
    variables["params"]["projection"]["bias"] = jnp.asarray(bias)
    stage = STAGES["sampling"](dataclasses.replace(problem, variables=variables))
    ways, _ = make_ways(stage, 1, CPU, with_torch())
    for name, way in ways.items():
        windows = [np.array(jax.device_get(way.call())) for _ in range(20 if name == "eager" else 300)]
        tokens = np.array(windows)[2:].reshape(-1, SIZES.context_length)[:, -1]
        assert set(tokens) <= {3, 7}, name
        # Five standard deviations, or what a false alarm in a million is.
        assert abs((tokens == 7).mean() - 0.75) < 5 * np.sqrt(0.25 * 0.75 / len(tokens)), name
        # The token drawn is appended to the window that there was.
        if name != "vmap":
            np.testing.assert_array_equal(np.array(windows)[1:, 0, :-1], np.array(windows)[:-1, 0, 1:])


def halve(problem):
    """The stage of a test: one function."""
    return Stage(
        item="1 number",
        step=lambda inputs, state, i: state / inputs + i,
        inputs=jnp.float32(2),
        state=jnp.float32(8),
        no_vmap="it is a test",
    )


def test_a_stage_is_one_function(finished):
    _, results, printed = finished
    assert [row["way"] for row in results["rows"] if row["stage"] == "halve"] == ["eager", "jit", "loop"]
    assert "no vmap for halve, small: it is a test" in printed
    assert "no numpy for halve, small: the stage has none" in results["notes"]
    ways, _ = make_ways(halve(None), 2, CPU)
    assert float(ways["eager"].call()) == 4
    assert [float(ways[name].call()) for name in ("jit", "loop")] == [8 / 4 + 1, 8 / 4 + 1]
    assert [float(ways[name].call()) for name in ("jit", "loop")] == [(3 / 2 + 2) / 2 + 3] * 2
    vmapped = make_ways(dataclasses.replace(halve(None), no_vmap=""), COPIES, CPU)[0]["vmap"]
    vmapped.call()
    np.testing.assert_allclose(vmapped.call(), [(8 / 2 + i) / 2 + COPIES + i for i in range(COPIES)])


@pytest.mark.slow
def test_a_stage_that_compiles_while_timed_is_an_error(monkeypatch, tmp_path, capsys):
    growing = iter(range(1, 10_000))
    double = jax.jit(lambda x: 2 * x)

    def recompiling(problem):
        numpy = lambda i: double(jnp.ones(next(growing)))  # noqa: E731
        return dataclasses.replace(halve(problem), numpy=numpy)

    monkeypatch.setitem(STAGES, "recompiling", recompiling)
    monkeypatch.setattr(
        jit_comparison, "measure_ceiling", lambda *_, **__: {"flops_per_second": 1, "bytes_per_second": 1}
    )
    config = quick(tmp_path / "run", stages=("recompiling",))
    monkeypatch.setitem(jit_comparison.SIZES, "small", SIZES)
    monkeypatch.setattr(jit_comparison, "find_torch", lambda: (None, "torch is not installed"))
    assert run_command(lambda: run_comparison(config, Console(file=io.StringIO()))) == 2
    error = capsys.readouterr().err
    assert re.search("error: recompiling on cpu:0: numpy compiled for .* while it was timed", error)
    assert error.count("\n") == 1
    assert not (config.out / "results.json").exists()


def test_eager_may_trace_but_not_compile():
    growing = iter(range(1, 10_000))
    tracing = repeated(lambda _, i: jax.eval_shape(lambda x: x * i, jnp.float32(1)), None)
    compiling = repeated(lambda _, i: jnp.ones(3) * jnp.ones((next(growing), 3)).sum(), None)
    assert measure({"eager": tracing}, 1, "a title")["eager"].median > 0
    with pytest.raises(ValueError, match="a title: jit compiled"):
        measure({"jit": tracing}, 1, "a title")
    with pytest.raises(ValueError, match="a title: eager compiled"):
        measure({"eager": compiling}, 1, "a title")


def quick(out, **options):
    return dataclasses.replace(JitConfig(quick=True, repeats=1, devices=("cpu",), out=out), **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, of a stage that there is and of the test's: its folder, its results, what it printed."""
    config = quick(tmp_path_factory.mktemp("jit") / "run", stages=("forward", "halve"), vocab_size=30)
    console = Console(file=io.StringIO(), width=80)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(STAGES, "halve", halve)
        monkeypatch.setattr(jit_ways, "REST_SECONDS", 0)
        monkeypatch.setattr(jit_comparison, "find_torch", lambda: (None, "torch is not installed"))
        run_comparison(config, console)
    return config.out, json.loads((config.out / "results.json").read_text("utf-8")), console.file.getvalue()


def test_every_artefact_is_there(finished):
    out, results, printed = finished
    names = [".lock", "config.json", "manifest.json", "results.json", "roofline.png", "speedups.png", "table.txt"]
    assert sorted(path.name for path in out.iterdir()) == names
    for name in ("roofline.png", "speedups.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert "PyTorch's column is empty: torch is not installed" in printed
    table = (out / "table.txt").read_text("utf-8")
    for way in ("eager", "jit", "loop", "vmap", "numpy"):
        assert re.search(rf"forward {way} +[\d.]+ +[\d.,]+ ", table)
    assert re.search(r"forward torch +- +- ", table)
    assert {"jax", "numpy", "torch", "jaxlm"} <= set(results["versions"])
    assert results["versions"]["torch"] is None
    assert results["sizes"]["small"]["vocab_size"] == 30
    assert list(results["devices"]) == ["cpu:0"]
    manifest = read_manifest(out)
    assert (manifest["kind"], manifest["state"]) == ("jit", "done")


def test_the_rows_hold_what_follows_from_each_other(finished):
    _, results, _ = finished
    rows = {row["way"]: row for row in results["rows"] if row["stage"] == "forward"}
    ceiling = results["ceilings"]["cpu:0"]
    matrix_products = 2 * 32 * (30 * 200 + 200 * 30)
    for row in rows.values():
        assert (row["device"], row["size"], row["stage"]) == ("cpu:0", "small", "forward")
        assert row["repeats"] == 1
        assert 0 < row["minimum_us"] <= row["median_us"]
        assert row["speedup"] == pytest.approx(rows["eager"]["median_us"] / row["median_us"])
        assert matrix_products <= row["flops"] <= 1.05 * matrix_products
        of_flops = row["flops"] / row["median_us"] * 1e6 / ceiling["flops_per_second"]
        of_bytes = row["bytes"] / row["median_us"] * 1e6 / ceiling["bytes_per_second"]
        assert row["share"] == pytest.approx(max(of_flops, of_bytes))
        assert row["share_of"] == ("flops" if of_flops > of_bytes else "bytes")
    assert rows["eager"]["items_per_call"] == 1
    assert rows["loop"]["items_per_call"] == rows["jit"]["items_per_call"] == rows["vmap"]["items_per_call"] > 1
    assert rows["jit"]["compile_seconds"] > 0 == rows["numpy"]["compile_seconds"]


def test_a_finished_run_compares_with_itself(finished, capsys):
    out, results, _ = finished
    jit_comparison.main(JitConfig(compare=(out / "results.json", out / "results.json")))
    printed = capsys.readouterr().out
    assert printed == f"nothing of {len(results['rows'])} figures moved beyond the noise\n"


@pytest.mark.parametrize("shape", [(3, 5, 7), (64, 32, 16)])
def test_a_matrix_product_has_2_m_n_k_flops(shape):
    m, k, n = shape
    cost = cost_analysis(jax.jit(jnp.matmul), np.ones((m, k), np.float32), np.ones((k, n), np.float32))
    assert cost == {"flops": 2 * m * n * k, "bytes": 4 * (m * k + k * n + m * n)}


@pytest.mark.parametrize(
    ("analysis", "cost"), [(None, (None, None)), ({}, (None, None)), ([{"flops": 3.0}], (3.0, None))]
)
def test_other_releases_say_less_of_the_cost(analysis, cost):
    class Program:
        lower = compile = lambda self, *arguments: self
        cost_analysis = staticmethod(lambda: analysis)

    assert tuple(cost_analysis(Program()).values()) == cost


def test_the_ceiling_is_what_the_fastest_sample_did(monkeypatch):
    monkeypatch.setattr(
        jit_ways,
        "time_interleaved",
        lambda calls, **options: {
            name: jit_ways.Measurement(9.0, {"copy": 0.5}.get(name, 0.25), 0, 1, 0) for name in calls
        },
    )
    assert measure_ceiling(CPU, 1, quick=True) == {
        "flops_per_second": 2 * 1024**3 / 0.25,
        "bytes_per_second": 2 * 4 * 2**24 / 0.5,  # read and written
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": ("forward", "backward")}, "unknown stage 'backward'; .*count, batch, forward, loss"),
        ({"devices": ("abacus",)}, "unknown device 'abacus'"),
        ({"repeats": 0}, "--repeats must be at least 1, got 0"),
        ({"hidden_dim": 0}, "--hidden-dim must be at least 1, got 0"),
        ({"size": "huge"}, "--size huge is for an accelerator"),
    ],
)
def test_bad_options_end_in_one_line_and_no_folder(tmp_path, capsys, options, message):
    config = quick(tmp_path / "run", **options)
    assert run_command(lambda: jit_comparison.main(config)) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count("\n") == 1
    assert not config.out.exists()


# Two runs, of which three figures differ: one beyond the noise, one within its spread, one by too little.
ROW = {
    "device": "cpu:0",
    "size": "small",
    "stage": "forward",
    "minimum_us": 99.0,
    "median_us": 100.0,
    "spread_us": 1.0,
}


def document(**changes):
    rows = [ROW | {"way": way} | changes.get(way, {}) for way in ("eager", "jit", "loop", "vmap")]
    return {
        "kind": "jit_comparison",
        "schema_version": 1,
        "versions": {"jax": "0.10.2"},
        "platform": "Linux",
        "cores": 2,
        "devices": {"cpu:0": "cpu"},
        "sizes": {"small": {"vocab_size": 27}},
        "ceilings": {"cpu:0": {"flops_per_second": 2e11, "bytes_per_second": 2e10}},
        "rows": rows,
    }


def test_compare_tells_what_moved_from_noise(tmp_path, capsys):
    new = document(
        jit={"median_us": 130.0, "minimum_us": 128.0},
        loop={"median_us": 130.0, "minimum_us": 100.5, "spread_us": 40.0},
        vmap={"median_us": 104.0, "minimum_us": 103.5},
    )
    for name, content in (("old", document()), ("new", new)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    config = JitConfig(compare=(tmp_path / "old.json", tmp_path / "new.json"), out=tmp_path / "run")
    assert run_command(lambda: jit_comparison.main(config)) == 0
    assert capsys.readouterr().out.splitlines() == [
        "cpu:0 small forward jit: 100 -> 130 us (+30%)",
        "1 of 4 figures moved beyond the noise",
    ]
    assert not config.out.exists()
    # The other way round it moved as well.
    assert "cpu:0 small forward jit: 130 -> 100 us (-23%)" in describe_changes(new, document())


def test_compare_says_what_makes_two_runs_hard_to_compare():
    new = document() | {"devices": {"cpu:0": "another"}, "versions": {"jax": "0.12.0"}, "cores": 16}
    new["sizes"] = {"small": {"vocab_size": 30}, "large": {}}
    new["rows"] = new["rows"][:3]
    new["ceilings"] = {"cpu:0": {"flops_per_second": 1e11, "bytes_per_second": 2.01e10}}
    lines = describe_changes(document(), new)
    assert lines == [
        "note: cores: 2 -> 16",
        "note: devices, cpu:0: cpu -> another",
        "note: versions, jax: 0.10.2 -> 0.12.0",
        "note: sizes, small: {'vocab_size': 27} -> {'vocab_size': 30}",
        "note: ceiling of cpu:0, flops_per_second: 2e+11 -> 1e+11 (-50%)",
        "note: rows that only one of the files has: 1",
        "nothing of 3 figures moved beyond the noise",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "no results.json of a jit comparison"),
        ('{"kind": "ladder", "schema_version": 1}', "no results.json of a jit comparison"),
        (json.dumps(document() | {"schema_version": 2}), "schema_version 2; this program reads 1"),
        (json.dumps(document() | {"rows": {}}), "rows must be a list, got {}"),
        (json.dumps(document() | {"rows": [3]}), "row 0 must be an object, got 3"),
        (json.dumps(document(jit={"way": None})), "row 1: way must be a text, got None"),
        (json.dumps(document(jit={"median_us": "quick"})), "row 1: median_us must be .*, got 'quick'"),
        (json.dumps(document(jit={"median_us": 0})), "row 1: median_us must be a positive, finite number, got 0"),
        (json.dumps(document() | {"ceilings": {"cpu:0": 3}}), "ceilings of cpu:0 .* got 3"),
        (json.dumps(document() | {"ceilings": {"cpu:0": {"copy": 0}}}), "ceilings of cpu:0 must be positive"),
        (json.dumps(document() | {"ceilings": {"cpu:0": {"copy": 10**400}}}), "ceilings of cpu:0 .* finite"),
        (json.dumps(document(jit={"median_us": 10**400})), "row 1: median_us must be .* finite number, got 10"),
        (json.dumps(document(jit={"minimum_us": float("inf")})), "row 1: minimum_us must be .*, got inf"),
        (json.dumps(document(jit={"spread_us": float("nan")})), "row 1: spread_us must be .*, got nan"),
        (json.dumps(document(loop={"way": "jit"})), "row 2: cpu:0 small forward jit is there already"),
    ],
)
def test_compare_refuses_what_it_cannot_read(tmp_path, content, message):
    path = tmp_path / "some.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_results(path)
    assert str(path) in str(caught.value)


def test_compare_of_a_missing_file_ends_in_one_line(tmp_path, capsys):
    path = tmp_path / "none.json"
    assert run_command(lambda: jit_comparison.main(JitConfig(compare=(path, path)))) == 2
    assert "none.json" in capsys.readouterr().err


def test_numbers_keep_three_digits():
    shown = [jit_pictures.number(value) for value in (0, 12345.6, 99.96, 3.14159, 0.001234)]
    assert shown == ["0", "12,346", "100", "3.14", "0.00123"]
