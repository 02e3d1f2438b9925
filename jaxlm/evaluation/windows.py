"""Group the windows of a text by context, so that each context is scored only once."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxlm._types import Integers, NpIntT
from jaxlm.models.interface import LanguageModel, encode_contexts, num_contexts

# Windows per compiled call. A fixed number keeps memory independent of the text's length.
WINDOWS_PER_CALL = 65_536

# Sorting codes of 16 bits takes linear time.
_MAX_GROUPED_CONTEXTS = 2**16


class GroupedWindows(NamedTuple):
    """The windows of a text, sorted by context and padded to shapes that do not depend on the text."""

    ids: Integers  # the text
    contexts: Integers  # for each distinct context, where it begins in `ids`
    rows: Integers  # for each window, the index of its context in `contexts`
    targets: Integers  # for each window, the token that follows
    bounds: Integers  # batch b of the distinct contexts belongs to the windows in [bounds[b], bounds[b + 1])
    num_batches: int


def group_windows(
    segment: NpIntT, model: LanguageModel, batch_size: int
) -> tuple[GroupedWindows, NDArray[np.int32]]:
    """Return the windows of `segment`, and the position of each window in the segment.

    The windows are grouped by context if the model has few possible contexts.
    """
    context_length = model.context_length
    num_windows = len(segment) - context_length
    order = np.arange(num_windows, dtype=np.int32)
    is_first = np.ones(num_windows, bool)
    if num_contexts(model) <= _MAX_GROUPED_CONTEXTS:
        contexts = np.lib.stride_tricks.sliding_window_view(segment, context_length)[:num_windows]
        codes = encode_contexts(contexts, model.vocab_size).astype(np.uint16)
        order = np.argsort(codes, kind="stable").astype(np.int32)
        is_first[1:] = np.diff(codes[order]) != 0
    firsts = np.flatnonzero(is_first)
    bounds = np.append(firsts[::batch_size], num_windows)
    max_batches = -(-WINDOWS_PER_CALL // batch_size)
    windows = GroupedWindows(
        ids=_pad(segment, WINDOWS_PER_CALL + context_length),
        contexts=_pad(order[is_first], max_batches * batch_size),
        rows=_pad(np.cumsum(is_first) - 1, WINDOWS_PER_CALL + batch_size),
        targets=_pad(segment[order + context_length], WINDOWS_PER_CALL + batch_size),
        bounds=_pad(bounds, max_batches + 1),
        num_batches=len(bounds) - 1,
    )
    return windows, order


def _pad(values: NpIntT, length: int) -> NDArray[np.int32]:
    return np.pad(values.astype(np.int32), (0, length - len(values)))
