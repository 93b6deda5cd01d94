"""Gradients of recurrences, and gradients of those: against finite differences, with the same bits for any number of threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import compile_graph

STEPS, BATCH, WIDTH = 5, 3, 4
Cell = Callable[..., Any]


def rnn(x: Any, w: Any, u: Any, b: Any, **options: Any) -> Any:
    def step(h: Any, at: Any) -> Any:
        h = tf.tanh(tf.matmul(at, u[:, :WIDTH]) + tf.matmul(h, w[:, :WIDTH]) + b[:WIDTH])
        return h, h * 2.0

    last, ys = tf.scan(step, tf.zeros((x.shape[1], WIDTH), x.dtype), x, **options)
    return tf.sum(ys * ys) + tf.sum(last)


def backwards(x: Any, w: Any, u: Any, b: Any) -> Any:
    return rnn(x, w, u, b, reverse=True)


def gru(x: Any, w: Any, u: Any, b: Any) -> Any:
    def step(h: Any, at: Any) -> Any:
        gates = tf.matmul(at, u[:, : 2 * WIDTH]) + tf.matmul(h, w[:, : 2 * WIDTH]) + b[: 2 * WIDTH]
        reset, update = tf.sigmoid(gates[:, :WIDTH]), tf.sigmoid(gates[:, WIDTH:])
        new = tf.tanh(tf.matmul(at, u[:, 2 * WIDTH : 3 * WIDTH]) + tf.matmul(reset * h, w[:, 2 * WIDTH : 3 * WIDTH]))
        h = (1.0 - update) * h + update * new
        return h, h

    return tf.sum(tf.scan(step, tf.zeros((x.shape[1], WIDTH), x.dtype), x)[1] ** 2)


def lstm_step(c: Any, gates: Any) -> Any:
    i, f, g, o = (gates[:, k * WIDTH : (k + 1) * WIDTH] for k in range(4))
    c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
    return tf.sigmoid(o) * tf.tanh(c), c


def lstm(x: Any, w: Any, u: Any, b: Any) -> Any:
    """The inputs' part of the gates in one product before the scan."""
    zero = tf.zeros((x.shape[1], WIDTH), x.dtype)

    def step(state: Any, given: Any) -> Any:
        h, c = lstm_step(state[1], given + tf.matmul(state[0], w))
        return [h, c], h

    return tf.sum(tf.scan(step, [zero, zero], tf.matmul(x, u) + b)[1] * x)


def two_layers(x: Any, w: Any, u: Any, b: Any) -> Any:
    zero = tf.zeros((x.shape[1], WIDTH), x.dtype)

    def step(state: Any, at: Any) -> Any:
        h, c, h2, c2 = state
        h, c = lstm_step(c, tf.matmul(at, u) + tf.matmul(h, w) + b)
        h2, c2 = lstm_step(c2, tf.matmul(h, u) + tf.matmul(h2, w) - b)
        return [h, c, h2, c2], h2

    states, hs = tf.scan(step, [zero] * 4, x)
    return tf.sum(hs * x) + tf.sum(states[1] * states[3])


def attention(x: Any, w: Any, u: Any, b: Any) -> Any:
    """A composition, a reduction and a broadcast inside; a state that is not a float beside one that is."""

    def step(state: Any, at: Any) -> Any:
        h, count = state
        weights = tf.softmax(tf.matmul(h, w[:, :WIDTH]) * at, axis=-1)
        mean = tf.mean(h, axis=-1, keepdims=True)
        h = h + weights * tf.exp(mean) + tf.cast(count, x.dtype) * b[:WIDTH]
        return [h, count + 1], [weights, tf.reduce_max(h, axis=-1)]

    (h, _), (weights, most) = tf.scan(step, [x[0] * u[0, 0], tf.constant(0)], x)
    return tf.sum(h) + tf.sum(weights * x) + tf.sum(most)


def nested(x: Any, w: Any, u: Any, b: Any) -> Any:
    """A scan, a branch and a loop inside a scan."""

    def step(h: Any, at: Any) -> Any:
        inner, seen = tf.scan(lambda s, row: (tf.tanh(s + tf.matmul(row[None, :], u[:, :WIDTH])[0]), s * row), h[0], at)
        h = tf.cond(tf.sum(inner) > 0.0, lambda: h * tf.sigmoid(inner), lambda: h + tf.matmul(h, w[:, :WIDTH]))
        h = tf.while_loop(lambda i, a: i < 2, lambda i, a: [i + 1, tf.sin(a) + b[:WIDTH]], [tf.constant(0), h], 3)[1]
        return h, tf.sum(seen)

    last, ys = tf.scan(step, tf.ones((BATCH, WIDTH), x.dtype), x)
    return tf.sum(last) + tf.sum(ys)


CELLS = [rnn, backwards, gru, lstm, two_layers, attention, nested]


def build(cell: Cell, dtype: str, batch: Any = BATCH) -> tuple[tf.Graph, list[Any], list[Any]]:
    """A graph of the loss, its gradients, and the gradients of the sum of their squares."""
    graph = tf.Graph()
    with graph.as_default():
        shapes = {"x": [STEPS, batch, WIDTH], "w": [WIDTH, 4 * WIDTH], "u": [WIDTH, 4 * WIDTH], "b": [4 * WIDTH]}
        inputs = [tf.placeholder(dtype, shape, name=name) for name, shape in shapes.items()]
        loss = cell(*inputs)
        first = tf.gradients(loss, inputs, unconnected_gradients="zero")
        squares = sum((tf.sum(one * one) for one in first[1:]), tf.sum(first[0] * first[0]))
        second = tf.gradients(squares, inputs, unconnected_gradients="zero")
        graph.set_outputs([loss, squares, *first, *second])
    return graph, inputs, [loss, squares, first, second]


def arrays(inputs: list[Any], dtype: str) -> list[Any]:
    rng = np.random.default_rng(1)
    shapes = [[dim if isinstance(dim, int) else BATCH for dim in x.shape] for x in inputs]
    return [(rng.standard_normal(shape) * 0.5).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("cell", CELLS)
def test_first_and_second_gradients(cell: Cell) -> None:
    graph, inputs, (loss, squares, first, second) = build(cell, "float64", None if cell is lstm else BATCH)
    given = dict(zip(inputs, arrays(inputs, "float64"), strict=True))
    rng = np.random.default_rng(2)
    way = {x: rng.standard_normal(array.shape) for x, array in given.items()}
    with tf.Session(graph, threads=1) as session:
        found = session.run([*first, *second], given)
        ahead, behind = (
            session.run([loss, squares], {x: array + sign * 1e-6 * way[x] for x, array in given.items()})
            for sign in (1, -1)
        )
    for gradients, high, low in zip((found[:4], found[4:]), ahead, behind, strict=True):
        along = sum(np.sum(one * way[x]) for one, x in zip(gradients, given, strict=True))
        np.testing.assert_allclose(along, (high - low) / 2e-6, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("cell", [lstm, nested])
def test_bits_do_not_depend_on_threads(cell: Cell) -> None:
    graph, inputs, _ = build(cell, "float32")
    given = dict(zip(inputs, arrays(inputs, "float32"), strict=True))
    runs = []
    for threads in (1, 2, 3, 8):
        with tf.Session(graph, threads=threads) as session:
            runs.append([array.tobytes() for array in session.run(graph.outputs, given)])
    assert all(one == runs[0] for one in runs)


def test_the_way_back_computes_no_gate_again() -> None:
    """What a step keeps: the gates after their functions; tanh of the cell follows from them in few operations."""
    graph = tf.Graph()
    with graph.as_default():
        inputs = [tf.placeholder("float32", shape) for shape in ([STEPS, BATCH, WIDTH], *[[WIDTH, 4 * WIDTH]] * 2)]
        found = tf.gradients(lstm(*inputs, tf.zeros((4 * WIDTH,))), inputs)
        graph.set_outputs(found)
    forward, backward = [node for node in compile_graph(graph).graph.nodes if node.op.name == "scan"]
    names = [node.op.name for node in backward.bodies[0].nodes]
    assert names.count("dot_general") == 1 and "sigmoid" not in names and names.count("tanh") == 1
    # The gradients of the slices of the gates are one behind the other, not sums of pieces among zeros.
    assert names.count("concat") == 1 and "pad" not in names
    assert len(forward.outputs) - forward.attributes["state"] == 7  # h after; c before; i, f, g, o; h before


def test_random_numbers_are_not_drawn_again() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder("float64", [STEPS, 2], name="x")

        def step(state: Any, at: Any) -> Any:
            state = state + tf.random.uniform((2,), dtype="float64") * at
            return state, state

        _, ys = tf.scan(step, tf.zeros((2,), "float64"), x)
        (slope,) = tf.gradients(tf.sum(ys), [x])
        drawn = ys[1:] - ys[:-1]
    with tf.Session(graph, threads=1) as session:
        slopes, noise = session.run([slope, drawn], {x: np.ones((STEPS, 2))})
    np.testing.assert_allclose(slopes[1:], noise * np.arange(STEPS - 1, 0, -1)[:, None], rtol=1e-9)


def test_pieces_of_one_value() -> None:
    """Gradients of slices that leave gaps, touch, or overlap."""
    data = np.random.default_rng(3).standard_normal((4, 9))
    for cuts, joined in (([(2, 4), (5, 9)], True), ([(4, 9), (0, 4)], True), ([(0, 5), (3, 9)], False)):
        graph = tf.Graph()
        with graph.as_default():
            x = tf.placeholder("float64", [4, 9], name="x")
            y = x * 2.0
            loss = sum((tf.sum(y[:, a:b] ** 3) for a, b in cuts[1:]), tf.sum(y[:, cuts[0][0] : cuts[0][1]] ** 3))
            (slope,) = tf.gradients(loss, [x])
        wanted = np.zeros_like(data)
        for a, b in cuts:
            wanted[:, a:b] += 6 * (2 * data[:, a:b]) ** 2
        with tf.Session(graph, threads=1) as session:
            np.testing.assert_allclose(session.run(slope, {x: data}), wanted, rtol=1e-12)
        assert any(node.op.name == "concat" for node in graph.nodes) is joined
