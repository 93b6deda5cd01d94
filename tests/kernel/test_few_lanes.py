"""Registers of one or two elements: what stands behind a mask, or is put together from several registers, as with wide ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler import reference
from pierian.compiler.compile import compile_graph, plan_graph
from pierian.compiler.state import close_for_compilation
from pierian.runtime.executable import Executable

Shape = tuple[Any, ...]
SAME = [(1, 1), (1, 1)]


def depthwise(x: Any, w: Any) -> Any:
    """Edges of windows are masked."""
    return tf.nn.depthwise_conv2d(x, w, 1, SAME, "NCHW")


def convolution(x: Any, w: Any) -> Any:
    """Winograd's tiles where sizes are open; the last panel of outputs is not full."""
    return tf.nn.conv2d(x, w, 1, SAME)


def inner_products(x: Any, w: Any) -> Any:
    """A row of eight sums is joined from the registers that hold them."""
    return tf.matmul(x, w, transpose_b=True)


def largest_of_columns(x: Any, w: Any) -> Any:
    """Its position goes through memory as what is compared."""
    return tf.argmax(x + w, axis=0)


def softmax_of_columns(x: Any, w: Any) -> Any:
    return tf.softmax(x * w, axis=0)


def sums_of_columns(x: Any, w: Any) -> Any:
    """Of parts of the rows first, which wait in memory."""
    return tf.sum(x * w, axis=0)


def few_rows(x: Any, w: Any) -> Any:
    """Sums of stripes of columns, in parts."""
    return tf.matmul(x, w, transpose_a=True)


CASES: list[tuple[Callable[..., Any], Shape, Shape]] = [
    (depthwise, (2, 3, 9, 7), (3, 3, 3, 1)),
    (convolution, ("n", "h", 8, 17), (3, 3, 17, 17)),
    (inner_products, (1, 16), (16, 16)),
    (inner_products, (1, 35), (7, 35)),
    (largest_of_columns, (33, 1), (1, 19)),
    (largest_of_columns, (33, 33), (33, 1)),
    (softmax_of_columns, (21, 13), (1, 13)),
    (sums_of_columns, ("m", 119), (1, 119)),
    (few_rows, ("m", 1), ("m", 131)),
]


@pytest.mark.parametrize("isa", ["scalar", "sse2"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("build", "shape", "other"), CASES)
def test_results(
    build: Callable[..., Any], shape: Shape, other: Shape, dtype: str, isa: str, target_of: Any, runs_here: Any
) -> None:
    rng = np.random.default_rng(0)
    arrays = [
        rng.standard_normal([{"n": 2, "h": 9, "m": 700}.get(dim, dim) for dim in one]).astype(dtype)
        for one in (shape, other)
    ]
    graph = tf.Graph()
    with graph.as_default():
        graph.set_outputs([build(*(tf.placeholder(dtype, list(one)) for one in (shape, other)))])
    compiled = compile_graph(graph, target=target_of(isa))
    if not runs_here(isa):
        pytest.skip("code for another processor")
    closed, _ = close_for_compilation(graph)
    (wanted,) = reference.run(closed, dict(zip(closed.inputs, arrays, strict=True)))
    found = Executable(compiled.image, compiled.program, 2).run(tuple(arrays))
    assert found is not None
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(found[0], wanted, rtol=tolerance, atol=tolerance * float(np.abs(wanted).max()))


def test_one_lane_takes_the_way_that_was_wrong(target_of: Any) -> None:
    graph = tf.Graph()
    with graph.as_default():
        x, w = tf.placeholder("float64", ["n", "h", 8, 17]), tf.placeholder("float64", [3, 3, 17, 17])
        graph.set_outputs([convolution(x, w)])
    plan = plan_graph(graph, target=target_of("scalar"))
    assert any("winograd 2 x 2" in line for _, kernel in plan.kernels.values() for line in kernel.schedule)
