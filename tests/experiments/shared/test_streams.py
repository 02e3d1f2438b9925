"""Made-up tokens are distributed as they say, and are always the same."""

import numpy as np

from experiments.shared.streams import zipf_ids


def test_the_stream_is_zipf_like_and_fixed():
    ids = zipf_ids(50, 200_000)
    assert ids.dtype == np.int32
    shares = np.bincount(ids, minlength=50) / len(ids)
    harmonic = sum(1 / rank for rank in range(1, 51))
    np.testing.assert_allclose(shares, 1 / np.arange(1, 51) / harmonic, rtol=0.2)
    np.testing.assert_array_equal(ids, zipf_ids(50, 200_000))
