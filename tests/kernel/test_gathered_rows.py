"""Rows of a large array that indices pick: which are asked for ahead, and that results do not depend on it."""

from __future__ import annotations

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.codegen.loops.gathered_rows import gathered_rows
from pierian.compiler.dim import symbol
from pierian.compiler.dtype import float32, int64
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Axis, Buffer, Kernel, Store
from pierian.compiler.target.features import host

ROW, ALONG = symbol("%i"), symbol("%j")


@pytest.mark.parametrize(
    ("rows", "width", "expected"),
    [(1 << 20, 64, 1), (100, 64, 0), (1 << 20, 1024, 0)],
    ids=["far", "near", "long rows"],
)
def test_which_rows_are_asked_for(rows: int, width: int, expected: int) -> None:
    buffers = (Buffer("x", float32, (rows, width)), Buffer("at", int64, (50,)), Buffer("y", float32, (50, width)))
    picked = ir.load("x", (ir.load("at", (ROW,), int64), ALONG), float32)
    axes = (Axis("%i", 50), Axis("%j", width))
    kernel = Kernel("loop", buffers, (), axes, (Store("y", (ROW, ALONG), picked),))
    assert gathered_rows(kernel, *axes, host(), Dependencies()) == [picked] * expected


def test_rows_that_an_axis_of_a_sum_picks_are_not_asked_for() -> None:
    """Where they begin is not known before the sum walks there."""
    rng = np.random.default_rng(2)
    table = rng.standard_normal((9000, 3, 64), dtype=np.float32)
    indices = rng.integers(0, len(table), 20)
    graph = tf.Graph()
    with graph.as_default():
        x, at = tf.placeholder(tf.float32, table.shape), tf.placeholder(tf.int64, indices.shape)
        y = tf.sum(tf.gather(x, at), axis=1)
    with tf.Session(graph) as session:
        found = session.run(y, {x: table, at: indices})
    np.testing.assert_allclose(found, table[indices].sum(axis=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 5, 12, 13, 700])
def test_values(count: int) -> None:
    rng = np.random.default_rng(count)
    table = rng.standard_normal((40_000, 65), dtype=np.float32)
    indices = rng.integers(-len(table), len(table), count)
    indices[[0, -1]] = len(table) - 1, -len(table)
    graph = tf.Graph()
    with graph.as_default():
        x, at = tf.placeholder(tf.float32, table.shape), tf.placeholder(tf.int64, indices.shape)
        y = tf.gather(x, at) * 2.0
    with tf.Session(graph) as session:
        np.testing.assert_array_equal(session.run(y, {x: table, at: indices}), table[indices] * 2)
