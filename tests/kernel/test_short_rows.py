"""Rows shorter than a vector, such as the colours of a pixel: lanes along the rows, elements sorted in registers; and short axes
that are walked in narrow vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import compile_graph
from pierian.compiler.target.features import Target
from pierian.runtime.executable import Executable


def elements(shape: tuple[int, ...], dtype: str) -> Any:
    drawn = np.random.default_rng(len(shape)).integers(-3, 4, shape)
    return (drawn > -2).astype(dtype) if dtype == "bool" else drawn.astype(dtype)


def scaled(x: Any, y: Any, w: Any) -> Any:
    return x if x.dtype == np.bool_ or str(x.dtype) == "bool" else (x - w) * y + 2


# Of rows x[n, width], one element for each row y[n, 1], one for each place w[width]: with NumPy and with us.
CASES: dict[str, Any] = {
    "scaled": lambda m, x, y, w: scaled(x, y, w),
    "turned": lambda m, x, y, w: m.permute_dims(m.permute_dims(x, (1, 0))[::-1], (1, 0)),
    "from channels": lambda m, x, y, w: m.permute_dims(m.reshape(x, (x.shape[1], -1)), (1, 0)),
    "flipped": lambda m, x, y, w: m.flip(x, axis=1),
    "stacked": lambda m, x, y, w: m.stack([x[:, 0], y[:, 0], x[:, -1]], axis=-1),
    "joined": lambda m, x, y, w: m.concat([x, y], axis=1),
    "taken": lambda m, x, y, w: m.where(x == w, y, x),
    "extremes": lambda m, x, y, w: (m.max(x, axis=1), m.min(x, axis=-1, keepdims=True)),
    "parts": lambda m, x, y, w: (x[:, ::2], x[:, :-1], m.flip(x, axis=1)[:, 1:] == y),
    "largest of parts": lambda m, x, y, w: (m.max(x[:, 1:], axis=1), m.min(x[:, ::2], axis=1)),
    "places": lambda m, x, y, w: m.argmax(x, axis=1),
}


def expected(name: str, arrays: Any) -> list[Any]:
    found = CASES[name](np, *arrays)
    return list(found) if isinstance(found, tuple) else [found]


def compiled(name: str, arrays: Any, shapes: Any, target: Target | None = None) -> Any:
    graph = tf.Graph()
    with graph.as_default():
        given = [tf.placeholder(a.dtype, shape) for a, shape in zip(arrays, shapes, strict=True)]
        found = CASES[name](tf, *given)
    return compile_graph(graph, feeds=given, fetches=found if isinstance(found, tuple) else [found], target=target)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
@pytest.mark.parametrize("width", [2, 3, 8, 9])
def test_short_rows(width: int, dtype: str) -> None:
    for name in CASES:
        if dtype == "bool" and name in ("extremes", "largest of parts", "places"):
            continue
        for fixed in (0, 37):
            shapes: Any = [(fixed or "n", width), (fixed or "n", 1), (width,)]
            given = [elements((37, width), dtype), elements((37, 1), dtype), elements((width,), dtype)]
            made = compiled(name, given, shapes)
            call = Executable(made.image, made.program, 1).run
            for rows in (fixed,) if fixed else (1, 16, 131, 0):
                arrays = [elements((rows, width), dtype), elements((rows, 1), dtype), given[2]]
                if name == "from channels" and not rows:
                    continue
                run = call(tuple(arrays))
                assert run is not None
                for ours, wanted in zip(run, expected(name, arrays), strict=True):
                    np.testing.assert_array_equal(ours, wanted, err_msg=f"{name} {rows} x {width}")


@pytest.mark.parametrize("name", ["any", "all", "sum", "max"])
def test_reductions_over_short_rows_with_equal_bits_on_any_number_of_threads(name: str) -> None:
    dtype = "bool" if name in ("any", "all") else "float32"
    for shape in ((5, 77, 8), (3, 900, 6), (40_000, 3), (7, 2)):
        x = elements(shape, dtype) if dtype == "bool" else np.random.default_rng(0).normal(size=shape).astype(dtype)
        graph = tf.Graph()
        with graph.as_default():
            placed = tf.placeholder(x.dtype, shape)
            reduced = getattr(tf, name)(placed, axis=-1)
        found = []
        for threads in (1, 2, 3, 8):
            with tf.Session(graph, threads=threads) as session:
                found.append(session.run(reduced, {placed: x}))
        np.testing.assert_allclose(found[0], getattr(np, name)(x, axis=-1), rtol=1e-5, atol=1e-6)
        assert len({one.tobytes() for one in found}) == 1


@pytest.mark.parametrize("isa", ["avx2", "sse2", "scalar", "neon"])
def test_other_instruction_sets(isa: str, target_of: Any, runs_here: Any) -> None:
    """Code for less capable processors of this machine's kind is run; that for others is only made."""
    target = target_of(isa, l2=256 * 1024) if isa == "avx2" else target_of(isa)
    for width, dtype, name in (
        (3, "float32", "scaled"),
        (4, "float64", "stacked"),
        (2, "bool", "joined"),
        (3, "int32", "extremes"),
    ):
        arrays = [elements(shape, dtype) for shape in ((45, width), (45, 1), (width,))]
        made = compiled(name, arrays, [array.shape for array in arrays], target)
        if runs_here(isa):
            run = Executable(made.image, made.program, 1).run(tuple(arrays))
            assert run is not None
            for ours, wanted in zip(run, expected(name, arrays), strict=True):
                np.testing.assert_array_equal(ours, wanted)
