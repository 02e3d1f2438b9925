"""Lower every program of the package for an Apple GPU's plugin, and exit with 1 if one would fail there.

`test_lowering` runs this file in a process of its own, because `jax.jit` must be replaced before the package is
imported. Whether a plugin can run loops, `jaxlm.devices.probe_program` finds out (jax-ml/jax#20750, #21552).
"""

import ast
import importlib
import pkgutil
import sys
import tempfile
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

# jax-metal needs jax 0.5.0, which has lowering rules for it; other plugins use the default rules.
PLATFORM = "METAL" if jax.__version__ == "0.5.0" else "metal"

# Operations that a plugin refuses, and who reports it.
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
    # JAX lowers running sums to other operations for jax-metal only.
    **({"stablehlo.reduce_window": "jax-ml/jax#21498"} if PLATFORM == "METAL" else {}),
}
# JAX's generator counts in uint64 and splits the counts at once. The living plugins test its numbers bit for bit.
COUNTING = {"constant", "iota", "broadcast_in_dim", "multiply", "add", "shift_right_logical", "convert"}


def find_faults(lowered):
    """Describe each operation of a lowered program that an Apple GPU's plugin cannot run."""
    waiting, faults = [lowered.compiler_ir("stablehlo").operation], []
    while waiting:
        operation = waiting.pop()
        waiting += [each.operation for region in operation.regions for block in region.blocks for each in block]
        types = {str(value.type) for value in [*operation.operands, *operation.results]}
        wide = {kind for kind in types if "64" in kind.rpartition("x")[2] or "complex" in kind}
        if wide and not (
            operation.name.removeprefix("stablehlo.") in COUNTING and all("ui64" in kind for kind in wide)
        ):
            faults.append(f"{operation.name} has 64 bits or complex numbers: {wide}")
        if any("?" in kind for kind in types):
            faults.append(f"{operation.name} has a dynamic shape: {types}")
        if operation.name in REFUSED:
            faults.append(f"{operation.name} is refused: {REFUSED[operation.name]}")
        # The target "Sharding" only annotates an array. All others are LAPACK's, callbacks or a vendor's.
        if operation.name == "stablehlo.custom_call":
            target = operation.attributes["call_target_name"].value
            if target != "Sharding":
                faults.append(f"call of {target}")
    return faults


def record_jit(calls, faults):
    """Replace `jax.jit` by one whose programs, when called, are lowered and return ones.

    `calls` gets the file and line of each `jax.jit` whose program is called, `faults` what `find_faults` finds.
    """
    jit = jax.jit

    def recording_jit(function, **options):
        jitted, caller = jit(function, **options), sys._getframe(1)
        if caller.f_globals["__name__"] == "jaxlm.models.jit":
            caller = caller.f_back
        if not caller.f_globals["__name__"].startswith("jaxlm."):
            return jitted
        place = caller.f_code.co_filename, caller.f_lineno

        def call(*args, **kwargs):
            calls.add(place)
            leaves = jax.tree.leaves((args, kwargs))
            if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
                return jitted(*args, **kwargs)  # part of a program that is being traced
            with warnings.catch_warnings():  # plugins that do not support donation only take more memory
                warnings.filterwarnings("ignore", "Some donated buffers were not usable")
                traced = jitted.trace(*args, **kwargs)
                lowered = traced.lower(lowering_platforms=(PLATFORM,))
            faults.extend(f"{place[0]}:{place[1]}: {fault}" for fault in find_faults(lowered))
            # To compile and run the program would take four times as long.
            return jax.tree.map(lambda out: np.broadcast_to(np.ones((), out.dtype), out.shape), traced.out_info)

        return call

    jax.jit = recording_jit


def find_statements_with_jit(package):
    """Yield file, first and last line of each top-level statement that uses `jax.jit` or `jit_model`."""
    # Exercises of the course run on the CPU, and exported programs on other platforms.
    skipped = {Path(package, "models", "jit.py"), *Path(package, "course").rglob("*.py")}
    skipped.add(Path(package, "checkpoints", "stablehlo.py"))
    for path in set(Path(package).rglob("*.py")) - skipped:
        for statement in ast.parse(path.read_text("utf-8")).body:
            nodes = list(ast.walk(statement))
            names = {getattr(node, "attr", getattr(node, "id", None)) for node in nodes}
            if names & {"jit", "pjit", "pmap", "jit_model"}:
                lines = [node.lineno for node in nodes if hasattr(node, "lineno")]
                yield str(path), min(lines), statement.end_lineno


def call_everything(jaxlm):
    from jaxlm.devices import probe_program
    from jaxlm.models.counts_bigram import add_pairs

    key, cpu = jax.random.key(0), jax.devices("cpu")[0]
    ids = np.random.default_rng(0).integers(0, 7, 300)

    def evaluate_and_sample(model, variables, **options):
        jaxlm.evaluate(model, variables, ids)
        jaxlm.score(model, variables, ids)
        prompts = np.stack([ids[: model.context_length]] * 2)
        # One token is drawn from the logits, many from a table of all contexts.
        for num_tokens in (1, model.vocab_size**model.context_length):
            jaxlm.sample(model, variables, prompts, num_tokens, key=key, **options)

    for array in (ids, jnp.asarray(ids)):
        jaxlm.get_batch(array, 2, 4, key=key)
    jaxlm.windows(ids, 2)
    large = jaxlm.NeuralBigramLM(200, 3)  # sampling searches so many tokens in two levels
    small = jaxlm.MLPLanguageModel(7, 2, 3, 4, dropout=0.5, direct_connections=True)
    for model in (large, small):
        variables = jaxlm.init(model, key)
        for options in ({}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.5}, {"top_k": 3, "top_p": 0.5}):
            evaluate_and_sample(model, variables, **options)
        jaxlm.train_lm(model, ids, key=key, num_steps=3, val_ids=ids)
    full_sgd = jaxlm.sgd(0.1, 9, schedule="cosine", momentum=0.9, weight_decay=0.1, clip_norm=1)
    for optimizer in (optax.adam(1e-3), full_sgd):
        jaxlm.train_lm(small, ids, key=key, num_steps=3, optimizer=optimizer)
    mesh = jax.sharding.Mesh(np.array([cpu]), ("data",))
    jaxlm.train_lm(small, ids, key=key, num_steps=3, val_ids=ids, mesh=mesh, grad_shards=2)
    jaxlm.train_many(small, ids, keys=key[None], hyperparams={"lr": [0.1]}, num_steps=3, val_ids=ids)
    counts = [jaxlm.CountsBigramLM(7), jaxlm.CountsNgramLM(7, 2, jaxlm.KneserNey())]
    fitted = [model.fit(jaxlm.init(model, key), ids) for model in counts]
    for model, variables in zip(counts, fitted, strict=True):
        evaluate_and_sample(model, variables)
    with tempfile.TemporaryDirectory() as folder:
        jaxlm.write_arpa(f"{folder}/lm.arpa", counts[1], fitted[1])
        evaluate_and_sample(*jaxlm.read_arpa(f"{folder}/lm.arpa")[:2])
    mixture = jaxlm.MixtureLM((small, jaxlm.CountsNgramLM(7, 2)), (0.5, 0.5))
    evaluate_and_sample(mixture, jaxlm.init(mixture, key))
    jaxlm.evaluate(jaxlm.UniformLM(7), {}, ids)
    jaxlm.evaluate(jaxlm.UniformLM(3), {}, ids % 3)  # nats of 1 may be those of probabilities
    jaxlm.evaluate(jaxlm.UnigramLM(7), np.ones(7, np.int32), ids)
    counts[0].fit(jaxlm.init(counts[0], key), ids, mesh=mesh)
    wide = jaxlm.CountsBigramLM(99)  # for its table the text is short
    wide.fit(jaxlm.init(wide, key), ids)
    # So large that its pairs have no 32-bit number.
    add_pairs(jax.ShapeDtypeStruct((50_000, 50_000), np.int32), np.zeros(3, np.int32), 2)
    probe_program.run_checks(cpu)


def main():
    calls, faults = set(), []
    record_jit(calls, faults)
    jaxlm = importlib.import_module("jaxlm")
    for module in pkgutil.walk_packages(jaxlm.__path__, "jaxlm."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    call_everything(jaxlm)
    for path, first, last in find_statements_with_jit(jaxlm.__path__[0]):
        if not any(path == file and first <= line <= last for file, line in calls):
            faults.append(f"{path}:{first}: call_everything does not call this program")
    sys.exit("\n".join(sorted(set(faults))) or 0)


if __name__ == "__main__":
    main()
