"""Gradients of graphs: closed forms, gradients of gradients, control flow, and paths that break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.errors import GradientError


def evaluate(build: Callable[[Any], Any], x: Any, dtype: Any = tf.float64) -> Any:
    graph = tf.Graph()
    with graph.as_default():
        p = tf.placeholder(dtype, np.shape(x), name="x")
        fetches = build(p)
    with tf.Session(graph) as session:
        return session.run(fetches, {p: x})


def test_gradients_of_gradients_have_closed_forms() -> None:
    x = np.linspace(-1.5, 1.5, 7)

    def build(p: Any) -> Any:
        orders = [tf.tanh(p)]
        for _ in range(3):
            orders.append(tf.gradients(orders[-1], [p])[0])
        return orders[1:]

    t = np.tanh(x)
    first, second, third = evaluate(build, x)
    np.testing.assert_allclose(first, 1 - t**2, rtol=1e-12)
    np.testing.assert_allclose(second, -2 * t * (1 - t**2), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(third, (6 * t**2 - 2) * (1 - t**2), rtol=1e-11)


def test_a_starting_gradient_weighs_the_outputs() -> None:
    found = evaluate(lambda p: tf.gradients(p * p, [p], [tf.constant([1.0, 10.0], tf.float64)]), [3.0, 4.0])
    assert found[0].tolist() == [6.0, 80.0]


def test_an_intermediate_value_may_be_a_target() -> None:
    def build(p: Any) -> Any:
        middle = p * 3.0
        return tf.gradients(tf.sum(middle * middle), [middle, p])

    middle, x = evaluate(build, [1.0, 2.0])
    assert middle.tolist() == [6.0, 12.0] and x.tolist() == [18.0, 36.0]


def test_an_unconnected_gradient_says_where_the_path_breaks() -> None:
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [2], name="x")
        y = tf.sum(tf.stop_gradient(x * 2.0))
        with pytest.raises(GradientError) as caught:
            tf.gradients(y, [x])
        assert "stop_gradient" in str(caught.value) and "test_gradients.py" in str(caught.value)
        other = tf.placeholder(tf.float32, [], name="other")
        with pytest.raises(GradientError, match="other"):
            tf.gradients(y, [other])


def test_zeros_on_request() -> None:
    found = evaluate(lambda p: tf.gradients(tf.sum(tf.stop_gradient(p)), [p], unconnected_gradients="zero"), [1.0, 2.0])
    assert found[0].tolist() == [0.0, 0.0]


def test_integers_have_no_gradient() -> None:
    with tf.Graph().as_default():
        x = tf.placeholder(tf.int32, [2], name="x")
        with pytest.raises(GradientError, match="only floats"):
            tf.gradients(tf.sum(tf.cast(x, tf.float32)), [x])


def branch(p: Any) -> Any:
    return tf.cond(tf.sum(p) > 0.0, lambda: tf.sum(p**3), lambda: tf.sum(tf.exp(p)))


def walk(p: Any) -> Any:
    return tf.while_loop(lambda i, a: i < 4, lambda i, a: [i + 1, a * tf.sin(a) + 1.0], [tf.constant(0), tf.sum(p)])[1]


def bounded(p: Any) -> Any:
    return tf.while_loop(lambda i, a: i < 4, lambda i, a: [i + 1, a * tf.sin(a) + 1.0], [tf.constant(0), tf.sum(p)], 6)[
        1
    ]


def fold(p: Any) -> Any:
    state, ys = tf.scan(lambda s, v: (s * v + tf.sin(s), s * s), tf.constant(0.7, tf.float64), p)
    return state + tf.sum(ys)


@pytest.mark.parametrize("function", [branch, walk, bounded, fold])
@pytest.mark.parametrize("x", [[0.3, 0.8, 0.5], [-0.4, -1.0, 0.2]])
def test_control_flow_against_finite_differences(function: Callable[[Any], Any], x: list[float]) -> None:
    point = np.array(x)
    (gradient,) = evaluate(lambda p: tf.gradients(function(p), [p]), point)
    for k in range(3):
        step = np.zeros(3)
        step[k] = 1e-6
        slope = (evaluate(function, point + step) - evaluate(function, point - step)) / 2e-6
        np.testing.assert_allclose(gradient[k], slope, rtol=1e-6, atol=1e-8)


def test_a_hessian_vector_product_through_a_scan() -> None:
    point, direction = np.array([0.3, 0.8, 0.5]), np.array([1.0, -2.0, 0.5])

    def product(p: Any) -> Any:
        (g,) = tf.gradients(fold(p), [p])
        return tf.gradients(tf.sum(g * direction), [p])[0]

    def slope(p: Any) -> Any:
        return tf.gradients(fold(p), [p])[0]

    step = 1e-6 * direction
    wanted = (evaluate(slope, point + step) - evaluate(slope, point - step)) / 2e-6
    np.testing.assert_allclose(evaluate(product, point), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    "inner",
    [
        tf.nn.silu, tf.nn.elu, lambda x: tf.flip(x, axis=1), lambda x: tf.tile(x, (1, 1)), lambda x: tf.stack([x, x])[0],
        lambda x: tf.layer_norm(x, tf.constant(2.0, tf.float64), tf.constant(1.0, tf.float64)),
        lambda x: tf.cond(tf.sum(x) > 100.0, lambda: x, lambda: x * x),
        lambda x: tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, v * v), [0, x])[1],
        lambda x: tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, v * v), [0, x], 4)[1],
        lambda x: tf.scan(lambda s, v: (s + v, s * v), x[0], x)[1],
    ],
)  # fmt: skip
def test_open_sizes_with_names_of_their_own(inner: Callable[[Any], Any]) -> None:
    """What comes back through a product of two tensors may have the other one's sizes; a run sees whether they are equal."""
    rng = np.random.default_rng(1)
    x, y, z = rng.uniform(-1, 1, (3, 4)), rng.uniform(-1, 1, (4, 2)), rng.uniform(-1, 1, (3, 4))

    def gradients(sizes: Any) -> Any:
        graph = tf.Graph()
        with graph.as_default():
            a, b, c = (tf.placeholder(tf.float64, sizes(value.shape)) for value in (x, y, z))
            product, weighed = tf.sum(tf.tanh(inner(a) @ b)), tf.sum(c * inner(a * 0.5))
            fetches = [*tf.gradients(product, [a, b]), *tf.gradients(weighed, [a, c])]
            fetches += tf.gradients(fetches[0], [a], [c])
        with tf.Session(graph) as session:
            return session.run(fetches, {a: x, b: y, c: z})

    for known, found in zip(gradients(lambda shape: shape), gradients(lambda shape: [None] * len(shape)), strict=True):
        np.testing.assert_allclose(found, known, rtol=1e-12, atol=1e-12)


def test_a_padding_of_open_sizes_may_cut_off() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x, d = tf.placeholder(tf.float64, ["n"], name="x"), tf.placeholder(tf.float64, ["m"], name="d")
        n, m = x.shape[0], d.shape[0]
        y = tf.pad(x, before=(1,), after=(m - n - 1,))
        (dx,) = tf.gradients(y, [x], [d])
        (again,) = tf.gradients(dx, [d], [x])
    with tf.Session(graph) as session:
        for size in (3, 6, 9):
            given = np.arange(1.0, size + 1)
            found = session.run([y, dx, again], {x: np.arange(1.0, 6), d: given})
            padded = np.array([0.0, 1, 2, 3, 4, 5, 0, 0, 0])[:size]
            back = np.concatenate([given[1:6], np.zeros(max(6 - size, 0))])
            for one, other in zip(found, (padded, back, padded), strict=True):
                np.testing.assert_array_equal(one, other)
