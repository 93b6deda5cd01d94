"""Reductions in every nest: rows, columns, stripes and blocks, against NumPy, for elements that stress their order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import compile_graph
from pierian.runtime.executable import Executable

# Short rows, rows with a vector and a rest, one long row in blocks, long and narrow columns, stripes, an axis in the middle, columns
# in blocks whose sums wait in registers or in the cache.
SHAPES = [
    ((3, 5), 1), ((70,), 0), ((4, 4096), 1), ((200_003,), 0), ((130, 64), 0), ((2, 70_001), 1), ((40_000, 3), 0),
    ((100, 2051), 0), ((67, 300), 0), ((3, 70, 300), 1), ((600_000, 2), 1), ((9001, 70), 0), ((3, 3001, 200), 1),
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


@pytest.mark.parametrize("axis", [(0, 2), (0, 1), (0, 2, 3), (1, 3)], ids=str)
@pytest.mark.parametrize("shape", [(41, 8, 1100, 1), (9, 5, 33, 47), (33, 3, 40, 64)], ids=str)
def test_several_axes(shape: tuple[int, ...], axis: tuple[int, ...]) -> None:
    """Batch normalization's sums, in either layout: stretches of memory with those of other results between them."""
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    for open_sizes in (False, True):
        found = [run("sum", x, axis, open_sizes, threads) for threads in (1, 3)]
        assert found[0].tobytes() == found[1].tobytes()
        np.testing.assert_allclose(found[0], x.sum(axis, dtype=np.float64), rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(run("any", x > 4, axis, open_sizes), (x > 4).any(axis))
        np.testing.assert_array_equal(run("all", x > -4, axis, open_sizes, 2), (x > -4).all(axis))


@pytest.mark.parametrize("width", [3, 40, 770])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 37])
def test_rows_side_by_side_whose_results_lie_where_they_are_read(rows: int, width: int) -> None:
    """Temporaries are overwritten in place, the last row too where it is walked with itself."""
    x, y = np.random.default_rng(3).standard_normal((2, rows, width)).astype(np.float32)
    graph = tf.Graph()
    with graph.as_default():
        a, b = (tf.placeholder(tf.float32, ("rows", width), name=name) for name in "ab")
        for w in (tf.constant(np.eye(width, dtype=np.float32)),) * 2:
            b = tf.matmul(b, w) * 2.0
            b = b + (a - tf.reduce_mean(a, axis=1, keepdims=True)) * tf.reduce_max(a, axis=1, keepdims=True)
    with tf.Session(graph) as session:
        found = session.run(b, {"a": x, "b": y})
    row = (x - x.mean(1, keepdims=True)) * x.max(1, keepdims=True)
    np.testing.assert_allclose(found, 4 * y + 3 * row, rtol=2e-5, atol=2e-4)


@pytest.mark.parametrize("shape", [(5, 37), (4, 4000), (3, 12_000), (37,), (150, 6000)], ids=str)
def test_values_kept_between_passes(shape: tuple[int, ...]) -> None:
    """Softmax's gradient reads exponentials three times; whole rows of them do not always fit."""
    x = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
    graph = tf.Graph()
    with graph.as_default():
        a = tf.placeholder(tf.float32, shape, name="a")
        y = tf.softmax(a)
        (slope,) = tf.gradients(tf.reduce_sum(y * y), [a])
    with tf.Session(graph) as session:
        found = session.run(slope, {"a": x})
    e = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    np.testing.assert_allclose(found, 2 * p * (p - (p * p).sum(-1, keepdims=True)), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("isa", ["avx2", "sse2", "scalar", "neon"])
def test_other_instruction_sets(isa: str, target_of: Any, runs_here: Any) -> None:
    """Code for less capable processors of this machine's kind is run; that for others is only made."""
    x = np.random.default_rng(5).integers(-9, 10, (2003, 47)).astype(np.float32)
    graph = tf.Graph()
    with graph.as_default():
        a = tf.placeholder(tf.float32, x.shape, name="a")
        large = a > 8.0
        y = tf.softmax(a)
        (slope,) = tf.gradients(tf.reduce_sum(y * y), [a])
        wanted = [
            tf.sum(a, axis=0),
            tf.argmax(a, axis=0),
            tf.any(large, axis=0),
            tf.any(large, axis=1),
            tf.max(a, axis=1),
        ]
        fetches = [*wanted, y, slope]
    compiled = compile_graph(graph, feeds=[a], fetches=fetches, target=target_of(isa))
    if not runs_here(isa):
        return
    found = Executable(compiled.image, compiled.program, 1).run((x,))
    assert found is not None
    exact = [x.sum(0), x.argmax(0), (x > 8).any(0), (x > 8).any(1), x.max(1)]
    for one, other in zip(found, exact, strict=False):
        np.testing.assert_array_equal(one, other)
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    np.testing.assert_allclose(found[5], p, rtol=1e-6)
    np.testing.assert_allclose(found[6], 2 * p * (p - (p * p).sum(1, keepdims=True)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", [(1000, 700), (777, 130), (4099, 257), (65, 2048)], ids=str)
@pytest.mark.parametrize("isa", ["avx2", "sse2"])
def test_rows_that_no_cache_holds(shape: tuple[int, int], isa: str, target_of: Any, runs_here: Any) -> None:
    """Some are read side by side, and some are left over; the first of equals is found all the same."""
    x = np.random.default_rng(6).integers(-9, 10, shape).astype(np.float32)
    graph = tf.Graph()
    with graph.as_default():
        a = tf.placeholder(tf.float32, x.shape, name="a")
        fetches = [
            tf.sum(a * 2.0, axis=0),
            tf.max(a, axis=0) + 1.0,
            tf.argmax(a, axis=0),
            tf.sum(a, axis=0) / tf.min(a, axis=0),
        ]
    compiled = compile_graph(graph, feeds=[a], fetches=fetches, target=target_of(isa, l1=4 << 10, l2=8 << 10))
    if not runs_here(isa):
        return
    exact = [2 * x.sum(0), x.max(0) + 1, x.argmax(0), x.sum(0) / x.min(0)]
    for threads in (1, 2, 3, 8):
        found = Executable(compiled.image, compiled.program, threads).run((x,))
        assert found is not None
        for one, other in zip(found, exact, strict=True):
            np.testing.assert_array_equal(one, other)
