"""Updates of some rows under TensorFlow's names, against NumPy; in a variable they touch no other rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.errors import ShapeError

RNG = np.random.default_rng(3)
TABLE = RNG.standard_normal((9, 4, 3)).astype(np.float32)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("lead", [(5,), (2, 3), ()])
def test_tensor_scatter_nd(depth: int, lead: tuple[int, ...]) -> None:
    indices = np.stack([RNG.integers(0, dim, lead) for dim in TABLE.shape[:depth]], axis=-1)
    updates = RNG.standard_normal((*lead, *TABLE.shape[depth:])).astype(np.float32)
    expected = TABLE.copy()
    np.add.at(expected, tuple(np.moveaxis(indices, -1, 0)), updates)
    np.testing.assert_allclose(tf.tensor_scatter_nd_add(TABLE, indices, updates).numpy(), expected, rtol=1e-6)
    back = tf.tensor_scatter_nd_sub(expected, indices, updates).numpy()
    np.testing.assert_allclose(back, TABLE, rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeError):
        tf.tensor_scatter_nd_add(TABLE, np.zeros((2, 4), np.int64), np.zeros(2, np.float32))


def test_variables_in_graphs_and_eagerly() -> None:
    rows, places = RNG.standard_normal((4, 4, 3)).astype(np.float32), np.array([8, 0, 8, 2])
    expected = TABLE.copy()
    np.add.at(expected, places, rows)
    eager = tf.Variable(TABLE)
    eager.scatter_add(tf.IndexedSlices(rows, places))
    np.testing.assert_allclose(eager.numpy(), expected, rtol=1e-6)
    eager.scatter_sub(tf.IndexedSlices(rows, places))
    np.testing.assert_allclose(eager.numpy(), TABLE, rtol=1e-4, atol=1e-5)
    graph = tf.Graph()
    with graph.as_default():
        v = tf.Variable(TABLE, name="v")
        at = tf.placeholder(tf.int64, ["k"], name="at")
        given = tf.placeholder(tf.float32, ["k", 4, 3], name="given")
        steps: list[Any] = [
            tf.group(v.scatter_add(tf.IndexedSlices(given, at))),
            tf.group(v.scatter_sub(tf.IndexedSlices(given, at))),
            tf.group(v.scatter_nd_add(tf.reshape(at, (-1, 1)), given)),
        ]
    with tf.Session(graph) as session:
        place = None
        for step in steps:
            session.run(step, {at: places, given: rows})
            assert session.compiled(step, [at, given]).program.in_place == {"v_next": "v"}
            address = session._store._current["v"].ctypes.data
            assert place in (None, address)
            place = address
        np.testing.assert_allclose(session.value(v), expected, rtol=1e-4, atol=1e-5)
