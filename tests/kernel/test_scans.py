"""Running sums and products in every nest: rows, blocks of a long row, columns, stripes; backwards and exclusive; large results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import plan_graph
from pierian.compiler.ops.definition import operator_named

SHAPES = [
    ((70,), 0), ((3, 37), 1), ((100_003,), 0), ((2, 70_001), 1), ((5, 64), 0), ((40, 2500), 0), ((3, 70, 300), 1),
    ((1, 1), 1), ((17, 3), 0), ((0, 3), 0), ((9, 2, 5), 0), ((50, 3), 1), ((9000, 2), 1), ((33, 8), 1), ((7, 5, 4), 2),
    ((40_000, 3), 0), ((300, 8), 0), ((6, 4, 3), 1), ((40, 5, 2), 1), ((5, 31), 1), ((5, 0), 1), ((0, 3), 1),
]  # fmt: skip


def run(name: str, x: Any, open_sizes: bool, threads: int, **attributes: Any) -> Any:
    graph = tf.Graph()
    with graph.as_default():
        shape = tuple(f"n{i}" for i in range(x.ndim)) if open_sizes else x.shape
        y = getattr(tf, name)(tf.placeholder(x.dtype, shape, name="x"), **attributes)
    with tf.Session(graph, threads=threads) as session:
        return session.run(y, {"x": x})


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_every_way_to_walk(shape: tuple[int, ...], axis: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(-3, 4, shape).astype(dtype)  # sums of whole numbers are exact in any order
    signs = np.where(rng.random(shape) < 0.5, 1, -1).astype(dtype)
    for turn, (exclusive, reverse) in enumerate([(False, False), (True, False), (False, True), (True, True)]):
        for name, x in (("cumsum", small), ("cumprod", signs)):
            how: dict[str, Any] = {"axis": axis, "exclusive": exclusive, "reverse": reverse}
            wanted = operator_named(name).reference_rule(x, **how)  # type: ignore[misc]
            np.testing.assert_array_equal(run(name, x, turn % 2 == 1, turn + 1, **how), wanted)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((300_000,), 0), ((30, 5000), 1), ((5000, 30), 0), ((50_000, 3), 1), ((50_000, 3), 0), ((9000, 5), 0)],
    ids=str,
)
def test_as_accurate_as_numpy_with_equal_bits_on_any_number_of_threads(shape: tuple[int, ...], axis: int) -> None:
    x = np.random.default_rng(1).random(shape, dtype=np.float32)
    found = [run("cumsum", x, False, threads, axis=axis) for threads in (1, 2, 3, 8)]
    assert all(other.tobytes() == found[0].tobytes() for other in found[1:])
    exact = np.cumsum(x, axis, dtype=np.float64)
    plain = np.max(np.abs(np.cumsum(x, axis) - exact) / exact)
    assert np.max(np.abs(found[0] - exact) / exact) <= max(plain, 2 * 2.0**-24)


@pytest.mark.parametrize(
    ("shape", "axis", "way"),
    [
        ((5000, 3), 1, "segments of 3"),
        ((70, 6, 2), 1, "segments of 12"),
        ((5000, 3), 0, "rows over"),
        ((100_000, 2), 0, "rows cut into blocks"),
        ((5000, 1000), 1, "rows over"),
        ((50, 1000), 0, "columns over"),
    ],
    ids=str,
)
def test_what_lies_one_after_the_other_is_walked_in_whole_vectors(
    shape: tuple[int, ...], axis: int, way: str, target_of: Any
) -> None:
    graph = tf.Graph()
    with graph.as_default():
        tf.cumsum(tf.placeholder(tf.float32, shape, name="x"), axis=axis)
    for isa in ("avx2", "avx512", "neon"):
        kernels = plan_graph(graph, target=target_of(isa)).kernels.values()
        (note,) = [line for _, code in kernels for line in code.schedule]
        assert note.startswith(f"scan in {way}")


def test_short_walks_beside_each_other_do_not_mix() -> None:
    """A NaN and infinities stay in their own segment, forwards and backwards."""
    x = np.ones((41, 3), np.float32)
    x[5, 1], x[6, 0], x[20, 2] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        for axis in (0, 1):
            np.testing.assert_array_equal(run("cumsum", x, False, 1, axis=axis), np.cumsum(x, axis))
        backwards = run("cumsum", x, False, 1, axis=1, reverse=True)
        np.testing.assert_array_equal(backwards, np.cumsum(x[:, ::-1], 1)[:, ::-1])


def test_a_walk_meets_nan_and_infinity_as_numpy_does() -> None:
    x = np.ones((3, 50), np.float32)
    x[0, 20], x[1, 10], x[1, 30] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(run("cumsum", x, False, 1, axis=1), np.cumsum(x, 1))


def test_results_larger_than_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores past the caches, and the plain ones for arrays that begin elsewhere: the same results, also between threads."""
    from pierian.compiler import compile as compilation
    from pierian.compiler.frozen import replace
    from pierian.compiler.target import features

    small = replace(features.host(), l3=1 << 16)
    monkeypatch.setattr(compilation, "host", lambda: small, raising=False)
    monkeypatch.setattr(features, "host", lambda: small)
    x = np.random.default_rng(2).integers(-8, 8, (1024, 512)).astype(np.float32)
    for threads in (1, 2):
        np.testing.assert_array_equal(run("cumsum", x, False, threads, axis=1), np.cumsum(x, 1))
        np.testing.assert_array_equal(run("cumsum", x, False, threads, axis=0), np.cumsum(x, 0))
        np.testing.assert_array_equal(run("negative", x, False, threads), -x)
        np.testing.assert_array_equal(run("flip", x, False, threads, axis=1), x[:, ::-1])
