"""Reads whose lanes lie a few elements apart: picked from whole vectors, up to the last element of an array and not beyond it."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

import pierian as tf


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
@pytest.mark.parametrize("step", [2, 3, 4, 5])
def test_slices_with_a_step(step: int, dtype: str) -> None:
    size = 4 * mmap.PAGESIZE // np.dtype(dtype).itemsize
    whole = np.frombuffer(mmap.mmap(-1, 4 * mmap.PAGESIZE), dtype)  # ends where a page does
    whole[:] = np.random.default_rng(step).integers(0, 2 if dtype == "bool" else 100, size)
    for width in (size, 37 * step + 1, 16 * step - 1):
        rows = size // width
        x = whole[size - rows * width :].reshape(rows, width)
        for start in (0, step - 1):
            graph = tf.Graph()
            with graph.as_default():
                part = tf.placeholder(dtype, x.shape, name="x")[:, start::step]
                fetches = [tf.cast(part, tf.float64) * 2.0, tf.max(part, axis=1)]
            with tf.Session(graph) as session:
                doubled, largest = session.run(fetches, {"x": x})
            np.testing.assert_array_equal(doubled, x[:, start::step] * 2.0)
            np.testing.assert_array_equal(largest, x[:, start::step].max(1))


@pytest.mark.parametrize("dtype", ["float32", "bool"])
@pytest.mark.parametrize("places", [slice(2), slice(1, None), slice(0, None, 3), slice(1, 4, 2)], ids=str)
@pytest.mark.parametrize("width", [4, 8])
def test_parts_of_short_rows(width: int, places: slice, dtype: str) -> None:
    """Rows are read as a whole, those of the array and none beside them."""
    whole = np.frombuffer(mmap.mmap(-1, 2 * mmap.PAGESIZE), dtype)
    whole[:] = np.random.default_rng(width).integers(0, 2, whole.size)
    for rows in (1, 7, 16, 37, 133):
        x = whole[whole.size - rows * width :].reshape(rows, width)
        graph = tf.Graph()
        with graph.as_default():
            part = tf.placeholder(dtype, x.shape, name="x")[:, places]
            fetches = [tf.logical_not(part) if dtype == "bool" else part * 2.0, part]
        with tf.Session(graph) as session:
            changed, same = session.run(fetches, {"x": x})
        np.testing.assert_array_equal(changed, ~x[:, places] if dtype == "bool" else x[:, places] * 2.0)
        np.testing.assert_array_equal(same, x[:, places])
