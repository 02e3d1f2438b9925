"""Export models as StableHLO programs, which run without jaxlm."""

import os

import jax
import jax.numpy as jnp
from jax import export

from jaxlm._types import IntBN, Variables
from jaxlm.models.interface import LanguageModel, compute_logits
from jaxlm.utils.atomic_files import check_absent, expand, write_atomically

PLATFORMS = "cpu", "cuda", "tpu"


def write_stablehlo(
    path: str | os.PathLike[str], model: LanguageModel, variables: Variables, *, overwrite: bool = False
) -> None:
    """Write a model with its variables as one program, from contexts int32 [B, N] for any B to logits [B, V].

    The file holds StableHLO for CPU, CUDA and TPU, serialized by `jax.export`. `jax.export.deserialize` reads it,
    and its `mlir_module_serialized` is the program for other compilers.

    JAX promises that versions up to 6 months newer and 3 weeks older than the one that wrote the file can run it:
    https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees

    Needs the extra `stablehlo`. Host function; not for use inside `jit`.

    Args:
        model: one whose `apply` uses `contexts.shape[0]`, and not `len(contexts)`, for B.
        overwrite: replace an existing file.

    Raises:
        OSError: the file exists and `overwrite` is False, or it cannot be written.
        ValueError: the extra is not installed.

    >>> import jaxlm, pathlib, tempfile
    >>> model, path = jaxlm.UniformLM(3, context_length=2), pathlib.Path(tempfile.mkdtemp(), "lm.stablehlo")
    >>> write_stablehlo(path, model, {})
    >>> program = export.deserialize(bytearray(path.read_bytes()))
    >>> program.call(jnp.zeros((1, 2), jnp.int32)).tolist()
    [[0.0, 0.0, 0.0]]
    """
    check_absent(path := expand(path), overwrite=overwrite)

    def logits(contexts: IntBN) -> jax.Array:
        return compute_logits(model, variables, contexts)

    (batch_size,) = export.symbolic_shape("b")
    shape = batch_size, model.context_length
    contexts = jax.ShapeDtypeStruct(shape, jnp.int32)  # type: ignore[no-untyped-call]
    exported = export.export(jax.jit(logits), platforms=PLATFORMS)(contexts)
    try:
        content = exported.serialize()
    except ImportError:
        raise ValueError(
            "StableHLO files need flatbuffers; install it with: pip install 'jaxlm[stablehlo]'"
        ) from None
    write_atomically(path, bytes(content), parents=True)
