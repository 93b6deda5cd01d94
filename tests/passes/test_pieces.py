"""Values that are put side by side are computed where they will lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler import reference
from pierian.compiler.kernel.program import launches
from pierian.compiler.lowering import lower
from pierian.compiler.options import CompileOptions
from pierian.compiler.pipeline import run_passes
from pierian.compiler.state import close_for_compilation


def gates(x: Any, w: Any) -> Any:
    """Several pieces of one domain: one kernel writes them all."""
    s = tf.sigmoid(x)
    return tf.concat([tf.exp(x) * s, s * 2.0, x - s], axis=1)


def rows(x: Any, w: Any) -> Any:
    return tf.concat([tf.sum(x, axis=1, keepdims=True), tf.tanh(x[:, :1])], axis=0)


def products(x: Any, w: Any) -> Any:
    """Pieces that are matrix products, the whole read by a third."""
    whole = tf.concat([tf.matmul(x, w), tf.matmul(x * 2.0, w) + 1.0], axis=1)
    return tf.matmul(whole, whole, transpose_b=True)


def nested(x: Any, w: Any) -> Any:
    """Pieces in pieces, along two axes."""
    top = tf.concat([tf.exp(x), tf.sin(x)], axis=1)
    return tf.concat([top * 2.0, tf.concat([x * 3.0, x + 1.0], axis=1) * 0.5], axis=0)


def read_elsewhere(x: Any, w: Any) -> Any:
    """A piece that somebody else reads too, one that is an input, one given twice: put together by a kernel."""
    a = tf.exp(x)
    return tf.concat([a, x, a], axis=1) + tf.sum(a)


@pytest.mark.parametrize(
    ("build", "kernels"), [(gates, 1), (rows, 2), (products, 4), (nested, None), (read_elsewhere, None)]
)
@pytest.mark.parametrize("count", [5, None])
def test_pieces(build: Callable[..., Any], kernels: int | None, count: int | None) -> None:
    graph = tf.Graph()
    with graph.as_default():
        x, w = tf.placeholder("float32", [count, 7], name="x"), tf.placeholder("float32", [7, 9], name="w")
        graph.set_outputs([build(x, w)])
    rng = np.random.default_rng(1)
    given = {x: rng.standard_normal((5, 7)).astype("float32"), w: rng.standard_normal((7, 9)).astype("float32")}
    closed, _ = close_for_compilation(graph)
    (wanted,) = reference.run(closed, dict(zip(closed.inputs, given.values(), strict=False)))
    found = []
    for threads, fuse in ((1, True), (3, True), (1, False)):
        with tf.Session(graph, threads=threads, options=CompileOptions(fuse=fuse)) as session:
            found.append(session.run(graph.outputs[0], given))
        np.testing.assert_allclose(found[-1], wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found[0], found[1])
    program = lower(run_passes(closed, CompileOptions()))
    assert kernels is None or len(launches(program.steps)) == kernels
