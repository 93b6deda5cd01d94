"""Running sums and products in every nest: rows, blocks of a long row, columns, stripes; backwards and exclusive; large results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.ops.definition import operator_named

SHAPES = [
    ((70,), 0), ((3, 37), 1), ((100_003,), 0), ((2, 70_001), 1), ((5, 64), 0), ((40, 2500), 0), ((3, 70, 300), 1),
    ((1, 1), 1), ((17, 3), 0), ((0, 3), 0), ((9, 2, 5), 0),
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


@pytest.mark.parametrize(("shape", "axis"), [((300_000,), 0), ((30, 5000), 1), ((5000, 30), 0)], ids=str)
def test_as_accurate_as_numpy_with_equal_bits_on_any_number_of_threads(shape: tuple[int, ...], axis: int) -> None:
    x = np.random.default_rng(1).random(shape, dtype=np.float32)
    found = [run("cumsum", x, False, threads, axis=axis) for threads in (1, 2, 3, 8)]
    assert all(other.tobytes() == found[0].tobytes() for other in found[1:])
    exact = np.cumsum(x, axis, dtype=np.float64)
    plain = np.max(np.abs(np.cumsum(x, axis) - exact) / exact)
    assert np.max(np.abs(found[0] - exact) / exact) <= max(plain, 1e-7)


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
