"""Types of arrays: dtype and shape. `FloatBV` is an array of floats [B, V]; `Np` marks a NumPy array.

The letters: B batch, N context length, V vocabulary, T tokens, W windows. Within one call, a letter stands for one
size. Only tests check these types at run time. Arguments that a function validates itself are annotated `Array` or
`ArrayLike`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, Int32, Int64, Integer, Key, UInt32
from numpy.typing import NDArray

if TYPE_CHECKING:
    AnyArray: TypeAlias = Array
    NpArray: TypeAlias = NDArray[Any]
else:  # functions of JAX arrays also accept NumPy arrays
    NpArray = np.ndarray  # jaxtyping rejects `NDArray` with newer versions of NumPy
    AnyArray = Array | NpArray

Variables: TypeAlias = Any  # a pytree of arrays, as the model defines it
Device: TypeAlias = str | jax.Device  # a name for `resolve_device`, or a device
KeyLike: TypeAlias = Key[Array, ""] | UInt32[Array, "_"]  # the second is a legacy key, from `jax.random.PRNGKey`

FloatScalar: TypeAlias = Float[AnyArray, ""]
FloatB: TypeAlias = Float[AnyArray, "B"]
FloatBV: TypeAlias = Float[AnyArray, "B V"]
FloatW: TypeAlias = Float[AnyArray, "W"]
IntScalar: TypeAlias = Integer[AnyArray, ""]
IntB: TypeAlias = Integer[AnyArray, "B"]
IntBN: TypeAlias = Integer[AnyArray, "B N"]
IntBT: TypeAlias = Integer[AnyArray, "B T"]
IntT: TypeAlias = Integer[AnyArray, "T"]
IntVV: TypeAlias = Integer[AnyArray, "V V"]
IntW: TypeAlias = Integer[AnyArray, "W"]
Contexts: TypeAlias = IntBN | IntB  # [B] if N = 1
TargetLogProbs: TypeAlias = Callable[[IntW, IntW], FloatW]  # from rows of a batch and targets

NpFloatW: TypeAlias = Float32[NpArray, "W"]
NpIntT: TypeAlias = Integer[NpArray, "T"]
Ngrams: TypeAlias = Int32[NpArray, "_ n"]
Counts: TypeAlias = Int64[NpArray, "_"]
Ids: TypeAlias = Integer[Array | NpArray, "T"]
Integers: TypeAlias = Integer[Array | NpArray, "..."]
