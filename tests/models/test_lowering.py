"""The programs that the package compiles, as an Apple GPU's plugin gets them: they hold nothing that fails there.

Each is lowered to StableHLO for that platform, with the arguments that the package's own functions give it. Few
can do without a loop, and loops have crashed jax-metal: those that index by their counter up to 0.1.0 (jax-ml/jax
#21552), `lax.scan` and `lax.map` in an issue that is open (#20750). Whether it runs one the probe has to say, in a
process of its own, which trains and samples in loops too.
"""

import ast
import importlib
import pkgutil
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlm
from jaxlm.devices.listing import measure_throughput
from jaxlm.devices.probe_program import CHECKS, run_check
from jaxlm.models import counts_bigram
from jaxlm.models.baselines import UniformLM, UnigramLM
from jaxlm.training.optimizers import sgd

PACKAGE = Path(jaxlm.__file__).parent
# jax-metal runs on jax 0.5.0 alone, which lowers some things for it alone; the others get what any platform gets.
PLATFORM = "METAL" if jax.__version__ == "0.5.0" else "metal"

IDS = np.random.default_rng(0).integers(0, 7, 300)
NEURAL = [
    jaxlm.NeuralBigramLM(200, 3),  # so many tokens that one is drawn in two levels
    jaxlm.MLPLanguageModel(7, 2, 3, 4),
    jaxlm.MLPLanguageModel(7, 2, 3, 4, dropout=0.5, direct_connections=True),
]
COUNTED = [
    jaxlm.CountsBigramLM(7),
    jaxlm.CountsNgramLM(7, 2),
    jaxlm.CountsNgramLM(7, 2, jaxlm.KneserNey(), table="sparse"),
]
OPTIMIZERS = [
    None,
    optax.adam(1e-3),
    sgd(0.1, 9, schedule="cosine", momentum=0.9, weight_decay=0.1, clip_norm=1),
]

# Operations, and who reports that one of the plugins refuses them.
REFUSED = {
    "stablehlo.cholesky": "jax-ml/jax#16321",
    "stablehlo.complex": "jax-ml/jax#16416",
    "stablehlo.count_leading_zeros": "jax-ml/jax#21389",
    "stablehlo.fft": "jax-ml/jax#16416",
    "stablehlo.infeed": "jax-ml/jax#20375",
    "stablehlo.outfeed": "jax-ml/jax#20375",
    "stablehlo.recv": "jax-ml/jax#20375",
    "stablehlo.rng": "dfm/metal-pjrt-plugin docs/op-coverage.md",
    "stablehlo.rng_bit_generator": "jax-ml/jax#24867",
    "stablehlo.send": "jax-ml/jax#20375",
    "stablehlo.triangular_solve": "jax-ml/jax#17490",
    # JAX makes running sums of other operations for jax-metal alone.
    **({"stablehlo.reduce_window": "jax-ml/jax#21498"} if PLATFORM == "METAL" else {}),
}
# What JAX writes where it keeps an array's layout, no call. All others are LAPACK's, callbacks, or a vendor's.
CALLS = {"Sharding"}
# JAX's generator counts what it draws in 64 bits, and takes the counts apart at once. The living plugins compare
# its numbers with the CPU's, bit for bit, in tests of their own.
COUNTING = {
    "stablehlo.constant",
    "stablehlo.iota",
    "stablehlo.broadcast_in_dim",
    "stablehlo.multiply",
    "stablehlo.add",
    "stablehlo.shift_right_logical",
    "stablehlo.convert",
}


class Operation(NamedTuple):
    """One of a program: its name, the function outside of the program that it calls, the types in and out."""

    name: str
    call: str
    types: set[str]


def uses_of_jit():
    """Every `jax.jit` in the package, by the function that it stands in or decorates: `training.train_until`."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        for statement in ast.parse(path.read_text("utf-8")).body:
            for node in ast.walk(statement):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jax":
                    assert not {"jit", "pjit"} & {alias.name for alias in node.names}, f"{path}: write jax.jit"
                if isinstance(node, ast.Attribute) and node.attr in {"jit", "pjit", "pmap"}:
                    yield f"{module}.{getattr(statement, 'name', 'a statement')}"


PROGRAMS = sorted(set(uses_of_jit()))


@pytest.fixture(scope="module")
def lowered():
    """For each of PROGRAMS, what it is lowered to whenever the package calls it; nothing is compiled or run."""
    found = {name: [] for name in PROGRAMS}

    def recording(name, jitted):
        def call(*args, **kwargs):
            leaves = jax.tree.leaves((args, kwargs))
            if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
                return jitted(*args, **kwargs)  # part of a program that is being traced
            traced = jitted.trace(*args, **kwargs)
            with warnings.catch_warnings():  # not every plugin takes a buffer over, which costs memory alone
                warnings.filterwarnings("ignore", "Some donated buffers were not usable")
                found[name].append(traced.lower(lowering_platforms=(PLATFORM,)))
            return jax.tree.map(lambda info: np.broadcast_to(np.ones((), info.dtype), info.shape), traced.out_info)

        return call

    jit = jax.jit

    def recording_jit(function, **options):
        caller = sys._getframe(1)
        module = caller.f_globals["__name__"]
        name = f"{module.removeprefix('jaxlm.')}.{caller.f_code.co_name}"
        return recording(name, jit(function, **options)) if name in found else jit(function, **options)

    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(jaxlm.__path__, "jaxlm.")
        if not module.name.endswith("__main__")
    ]
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            for name, value in vars(module).copy().items():
                if isinstance(value, type(jit(len))):
                    home = f"{value.__module__.removeprefix('jaxlm.')}.{value.__name__}"
                    patch.setattr(module, name, recording(home, value))
        patch.setattr(jax, "jit", recording_jit)
        call_everything()
    return {name: [list(operations(each)) for each in lowerings] for name, lowerings in found.items()}


def call_everything():
    key = jax.random.key(0)
    jaxlm.get_batch(IDS, 2, 4, key=key)
    for model in NEURAL:
        variables = jaxlm.init(model, key)
        for optimizer in OPTIMIZERS:
            jaxlm.train_lm(model, IDS, key=key, num_steps=3, val_ids=IDS, optimizer=optimizer)
        jaxlm.train_many(model, IDS, keys=key[None], hyperparams={"lr": [0.1]}, num_steps=3)
        evaluate_and_sample(model, variables)
        for options in ({"temperature": 0}, {"top_k": 3}, {"top_p": 0.5}, {"top_k": 3, "top_p": 0.5}):
            evaluate_and_sample(model, variables, **options)
    for model in COUNTED:
        evaluate_and_sample(model, model.fit(jaxlm.init(model, key), IDS))
    mixed = [NEURAL[1], COUNTED[1]]
    evaluate_and_sample(jaxlm.MixtureLM(tuple(mixed), (0.5, 0.5)), [jaxlm.init(model, key) for model in mixed])
    jaxlm.evaluate(UniformLM(7), {}, IDS)
    jaxlm.evaluate(UnigramLM(7), np.ones(7, np.int32), IDS)
    large = jaxlm.CountsBigramLM(99)  # beside its table the text is short
    large.fit(jaxlm.init(large, key), IDS)
    shape = jax.ShapeDtypeStruct((50_000, 50_000), jnp.int32)  # so large that its pairs have no number in 32 bits
    counts_bigram.add_pairs(shape, np.zeros(3, np.int32), 2)
    for name in CHECKS:
        run_check(name, jax.devices("cpu")[0])
    measure_throughput(jax.devices("cpu")[0])


def evaluate_and_sample(model, variables, **options):
    jaxlm.evaluate(model, variables, IDS)
    prompts = np.stack([IDS[: model.context_length]] * 2)
    # One token by the model's logits, and as many as there are contexts by a table.
    for num_tokens in (1, model.vocab_size**model.context_length):
        jaxlm.sample(model, variables, prompts, num_tokens, key=jax.random.key(1), **options)


def operations(lowering):
    """Every operation of a program, those in the bodies of others too."""
    waiting = [lowering.compiler_ir("stablehlo").operation]
    while waiting:
        operation = waiting.pop()
        for region in operation.regions:
            for block in region.blocks:
                waiting.extend(each.operation for each in block.operations)
        types = {str(value.type) for value in [*operation.operands, *operation.results]}
        is_call = operation.name == "stablehlo.custom_call"
        call = operation.attributes["call_target_name"].value if is_call else ""
        yield Operation(operation.name, call, types)


each_program = pytest.mark.parametrize("program", PROGRAMS)


@each_program
def test_program_is_lowered(lowered, program):
    """A program that `call_everything` leaves out would be held by none of the tests below."""
    assert lowered[program], f"let call_everything make {program} compile"


@each_program
def test_program_holds_32_bits_at_most(lowered, program):
    for operation in all_of(lowered[program]):
        wide = {kind for kind in operation.types if "64" in kind.rpartition("x")[2] or "complex" in kind}
        assert not wide or (operation.name in COUNTING and all("ui64" in kind for kind in wide)), operation


@each_program
def test_program_has_static_shapes(lowered, program):
    for operation in all_of(lowered[program]):
        assert not any("?" in kind for kind in operation.types), operation


@each_program
def test_program_calls_nothing_outside(lowered, program):
    assert {operation.call for operation in all_of(lowered[program])} <= {"", *CALLS}


@each_program
def test_program_holds_nothing_that_a_plugin_refuses(lowered, program):
    for operation in all_of(lowered[program]):
        assert operation.name not in REFUSED, f"{operation} fails on Apple GPUs: see {REFUSED[operation.name]}"


def test_the_probe_loops_as_the_programs_do(lowered):
    loops = {name for name in PROGRAMS if any(each.name == "stablehlo.while" for each in all_of(lowered[name]))}
    assert "training.step.train_until" in loops
    assert any(name.startswith("devices.probe_program.") for name in loops)


def test_what_fails_is_seen():
    def bad(x):
        jax.debug.callback(print, x)
        return jnp.linalg.cholesky(jnp.fft.fft(x).real)

    found = list(operations(jax.jit(bad).lower(jnp.eye(3))))
    assert {"stablehlo.fft", "stablehlo.custom_call"} <= {operation.name for operation in found}
    assert any("complex" in kind for operation in found for kind in operation.types)
    assert any(operation.call not in {"", *CALLS} for operation in found)


def all_of(lowerings):
    return [operation for lowering in lowerings for operation in lowering]
