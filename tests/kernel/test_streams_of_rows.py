"""Long rows are read in several parts side by side: every length of what is left over, and reproducible sums."""

from __future__ import annotations

import numpy as np
import pytest

import pierian as tf


@pytest.mark.parametrize("shape", [(3, 300_001), (900_003,), (70, 5000), (2, 4096 * 64 + 8), (40, 8191)])
def test_sums_and_extremes_of_long_rows(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    graph = tf.Graph()
    with graph.as_default():
        given = tf.placeholder(tf.float32, x.shape)
        fetches = [tf.reduce_sum(given, axis=-1), tf.reduce_max(given, axis=-1), tf.reduce_min(given)]
    found = []
    for threads in (1, 2):
        with tf.Session(graph, threads=threads) as session:
            found.append(session.run(fetches, {given: x}))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    sums, tops, low = found[0]
    np.testing.assert_allclose(sums, x.sum(-1, dtype=np.float64), rtol=0, atol=1e-6 * np.sqrt(shape[-1]) * 10)
    np.testing.assert_array_equal(tops, x.max(-1))
    np.testing.assert_array_equal(low, x.min())


def test_a_nan_anywhere_in_a_long_row_is_found() -> None:
    x = np.zeros((300_000,), np.float32)
    graph = tf.Graph()
    with graph.as_default():
        given = tf.placeholder(tf.float32, x.shape)
        top = tf.reduce_max(given)
    with tf.Session(graph) as session:
        for place in (0, 1, 8_191, 8_192, 32_767, 99_999, 299_999):
            x[:] = 0
            x[place] = np.nan
            assert np.isnan(session.run(top, {given: x}))
