"""Group the windows of a text by context, so that each context is scored once."""

from typing import Any, NamedTuple

import numpy as np

from jaxlm.models.interface import LanguageModel, num_contexts

# Windows that one call of the compiled loop scores, so that memory does not depend on the text's length.
WINDOWS_PER_CALL = 65_536


class GroupedWindows(NamedTuple):
    """The windows of a text, sorted by context. Shapes do not depend on the text, so all texts share a program.

    Batch b of the distinct contexts belongs to the windows from `bounds[b]` up to `bounds[b + 1]`.
    """

    ids: Any  # the text
    contexts: Any  # for each distinct context, its start in `ids`
    rows: Any  # for each window, the index of its context in `contexts`
    targets: Any  # for each window, the token that follows
    bounds: Any
    num_batches: int


def group_windows(
    segment: np.ndarray[Any, Any], model: LanguageModel, batch_size: int
) -> tuple[GroupedWindows, np.ndarray[Any, np.dtype[np.int32]]]:
    """Return the windows of `segment` and the position of each, ungrouped if there can be too many contexts."""
    context_length = model.context_length
    num_windows = len(segment) - context_length
    order = np.arange(num_windows, dtype=np.int32)
    is_first = np.ones(num_windows, bool)
    if num_contexts(model) <= WINDOWS_PER_CALL:
        keys = np.zeros(num_windows, np.int32)  # the context as a number in base V
        for position in range(context_length):
            keys = keys * model.vocab_size + segment[position : position + num_windows]
        keys = keys.astype(np.uint16)  # NumPy sorts 16-bit keys in linear time
        order = np.argsort(keys, kind="stable").astype(np.int32)
        is_first[1:] = np.diff(keys[order]) != 0
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


def _pad(values: np.ndarray[Any, Any], length: int) -> np.ndarray[Any, Any]:
    return np.pad(values.astype(np.int32), (0, length - len(values)))
