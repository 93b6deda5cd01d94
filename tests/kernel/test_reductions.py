"""Reductions in every nest: rows, columns, stripes and blocks, against NumPy, for elements that stress their order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf

# Short rows, rows with a vector and a rest, one long row in blocks, long and narrow columns, stripes, an axis in the middle.
SHAPES = [
    ((3, 5), 1), ((70,), 0), ((4, 4096), 1), ((200_003,), 0), ((130, 64), 0), ((2, 70_001), 1), ((40_000, 3), 0),
    ((100, 2051), 0), ((67, 300), 0), ((3, 70, 300), 1), ((600_000, 2), 1),
]  # fmt: skip


def run(name: str, x: Any, axis: int, open_sizes: bool, threads: int = 1) -> Any:
    graph = tf.Graph()
    with graph.as_default():
        shape = tuple(f"n{i}" for i in range(x.ndim)) if open_sizes else x.shape
        y = getattr(tf, name)(tf.placeholder(x.dtype, shape, name="x"), axis=axis)
    with tf.Session(graph, threads=threads) as session:
        return session.run(y, {"x": x})


def elements(shape: tuple[int, ...], dtype: str) -> list[Any]:
    """Few values, so that many are equally extreme; for floats also NaNs, and nothing but the worst value there is."""
    rng = np.random.default_rng(0)
    few = rng.integers(-3, 4, shape).astype(dtype)
    if dtype == "bool":
        return [few]
    if not dtype.startswith("float"):
        return [few, np.full(shape, np.iinfo(dtype).min, dtype)]
    holes = few.copy()
    holes[rng.random(shape) < 2 / shape[0]] = np.nan
    return [few, holes, np.full(shape, -np.inf, dtype)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_the_first_of_equally_extreme_elements_wins(shape: tuple[int, ...], axis: int, dtype: str) -> None:
    for i, x in enumerate(elements(shape, dtype)):
        for name in ("argmax", "argmin"):
            np.testing.assert_array_equal(run(name, x, axis, open_sizes=i == 1), getattr(np, name)(x, axis))


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_sums_and_extremes_and_equal_bits_on_any_number_of_threads(shape: tuple[int, ...], axis: int) -> None:
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    exact = x.sum(axis, dtype=np.float64)
    found = [run("sum", x, axis, False, threads) for threads in (1, 2, 3, 8)]
    assert all(other.tobytes() == found[0].tobytes() for other in found[1:])
    scale = np.abs(x).sum(axis, dtype=np.float64)
    plain = np.max(np.abs(x.sum(axis) - exact) / scale)
    assert np.max(np.abs(found[0] - exact) / scale) <= max(plain, 2e-7)
    np.testing.assert_array_equal(run("max", x, axis, False), x.max(axis))
    holes = np.where(x > 2.5, np.float32(np.nan), x)
    np.testing.assert_array_equal(run("min", holes, axis, True), holes.min(axis))
    whole = (x * 4).astype(np.int32)
    np.testing.assert_array_equal(run("sum", whole, axis, False, 2), whole.sum(axis, dtype=np.int32))
