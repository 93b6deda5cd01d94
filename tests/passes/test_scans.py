"""Scans are merged with the way forward that their gradients repeat, and sums of products leave the loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler import reference
from pierian.compiler.graph.verify import verify
from pierian.compiler.options import CompileOptions
from pierian.compiler.pipeline import run_passes
from pierian.compiler.state import close_for_compilation

STEPS, BATCH, WIDTH = 7, 3, 5


def recurrent(reverse: bool = False, dtype: str = "float64") -> tuple[tf.Graph, list[Any], list[Any]]:
    """A tanh network with the gradient of everything, its loss and its outputs."""
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(dtype, [STEPS, BATCH, WIDTH], name="x")
        w, u = tf.placeholder(dtype, [WIDTH, WIDTH], name="w"), tf.placeholder(dtype, [WIDTH, WIDTH], name="u")
        b = tf.placeholder(dtype, [WIDTH], name="b")

        def step(h: Any, at: Any) -> Any:
            h = tf.tanh(tf.matmul(at, u) + tf.matmul(h, w) + b)
            return h, h * 2.0

        last, ys = tf.scan(step, tf.zeros((BATCH, WIDTH), dtype), x, reverse=reverse)
        loss = tf.reduce_sum(ys * ys) + tf.reduce_sum(last)
        found = tf.gradients(loss, [x, w, u, b])
        graph.set_outputs([loss, ys, *found])
    return graph, [x, w, u, b], found


def feeds(inputs: list[Any]) -> dict[Any, Any]:
    rng = np.random.default_rng(1)
    return {x: rng.standard_normal([int(str(d)) for d in x.shape]) * 0.5 for x in inputs}


def scans(graph: tf.Graph) -> list[Any]:
    return [node for node in graph.nodes if node.op.name == "scan"]


@pytest.mark.parametrize("reverse", [False, True])
def test_same_results_with_fewer_steps(reverse: bool) -> None:
    graph, inputs, _ = recurrent(reverse)
    given = feeds(inputs)
    closed, _ = close_for_compilation(graph)
    plain = run_passes(closed, CompileOptions(disable=("scans",)))
    better = run_passes(closed, CompileOptions())
    verify(better, "after scans")
    assert len(scans(plain)) == 3 and len(scans(better)) == 2
    forward, backward = scans(better)
    assert forward.attributes["reverse"] is reverse and backward.attributes["reverse"] is not reverse
    # What is left of the way back carries the state's gradient and that of the bias; both products left the loop.
    assert backward.attributes["state"] == 2
    products = [one for one in backward.bodies[0].nodes if one.op.name == "dot_general"]
    assert len(products) == 2  # for the state and for x; none is computed a second time
    wanted = reference.run(plain, dict(zip(plain.inputs, given.values(), strict=True)))
    found = reference.run(better, dict(zip(better.inputs, given.values(), strict=True)))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    for threads in (1, 3):
        with tf.Session(graph, threads=threads) as session:
            native = session.run(graph.outputs, given)
        for one, other in zip(native, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_gradients_against_finite_differences() -> None:
    graph, inputs, found = recurrent()
    given = feeds(inputs)
    with tf.Session(graph, threads=1) as session:
        loss = graph.outputs[0]
        for x, gradient in zip(inputs, session.run(found, given), strict=True):
            direction = np.random.default_rng(2).standard_normal(given[x].shape)
            ahead = session.run(loss, {**given, x: given[x] + 1e-5 * direction})
            behind = session.run(loss, {**given, x: given[x] - 1e-5 * direction})
            np.testing.assert_allclose(np.sum(gradient * direction), (ahead - behind) / 2e-5, rtol=1e-6)


def test_scans_whose_states_differ_stay_apart() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder("float64", [STEPS, 2], name="x")
        zero = tf.zeros((2,), "float64")
        first, _ = tf.scan(lambda s, at: (s + at, s), zero, x)
        second, ys = tf.scan(lambda s, at: (s * 0.5 + at, s), zero, x)
        graph.set_outputs([first, second, ys])
    closed, _ = close_for_compilation(graph)
    assert len(scans(run_passes(closed, CompileOptions()))) == 2


def test_random_steps_stay_apart() -> None:
    graph = tf.Graph()
    with graph.as_default():
        zero = tf.zeros((2,), "float32")
        runs = [tf.scan(lambda s, _: (s + tf.random.uniform((2,)), s), zero, None, length=4)[0] for _ in range(2)]
        graph.set_outputs(runs)
    with tf.Session(graph, threads=1) as session:
        one, other = session.run(runs)
    assert not np.array_equal(one, other)


def test_a_sum_that_the_steps_read_stays_inside() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder("float64", [STEPS, 3, 4], name="x")

        def step(total: Any, at: Any) -> Any:
            return total + tf.matmul(at, at, transpose_a=True), total * 1.0

        last, seen = tf.scan(step, tf.zeros((4, 4), "float64"), x)
        graph.set_outputs([last, seen])
    data = np.random.default_rng(3).standard_normal((STEPS, 3, 4))
    closed, _ = close_for_compilation(graph)
    assert scans(run_passes(closed, CompileOptions()))[0].attributes["state"] == 1
    with tf.Session(graph, threads=1) as session:
        found, before = session.run([last, seen], {x: data})
    np.testing.assert_allclose(found, np.einsum("tki,tkj->ij", data, data))
    np.testing.assert_allclose(before[-1], np.einsum("tki,tkj->ij", data[:-1], data[:-1]))


def test_a_plain_sum_of_products_is_one_product() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder("float64", [STEPS, 3, 4], name="x")
        start = tf.placeholder("float64", [4, 4], name="start")
        last, ys = tf.scan(lambda s, at: (s + tf.matmul(at, at, transpose_a=True), at[0]), start, x)
        graph.set_outputs([last, ys])
    data, first = np.random.default_rng(4).standard_normal((STEPS, 3, 4)), np.ones((4, 4))
    closed, _ = close_for_compilation(graph)
    (left,) = scans(run_passes(closed, CompileOptions()))
    assert left.attributes["state"] == 0
    with tf.Session(graph, threads=2) as session:
        found, rows = session.run([last, ys], {x: data, start: first})
    np.testing.assert_allclose(found, 1 + np.einsum("tki,tkj->ij", data, data))
    np.testing.assert_array_equal(rows, data[:, 0])


def test_scans_carry_and_walk_only_what_is_needed() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder("float64", [STEPS, 3], name="x")
        flat = tf.placeholder("float64", [3], name="flat")

        def step(state: Any, at: Any) -> Any:
            a, b, idle = state
            x, again, same, one, unread = at
            a = a * 0.5 + x * same + again * one
            return [a, b + unread, idle * 2.0], [a, a, x, unread * 3.0]

        zero = tf.zeros((3,), "float64")
        same = tf.broadcast_to(flat, (STEPS, 3))
        walked = [x, x, same, tf.ones((STEPS, 3), "float64"), tf.broadcast_to(flat[None, :], (STEPS, 3)) * 1.0]
        (a, _, idle), (stack, equal, copy, _) = tf.scan(step, [zero, zero, tf.ones((3,), "float64")], walked)
        graph.set_outputs([a, idle, stack + equal, copy * 1.0])
    closed, _ = close_for_compilation(graph)
    better = run_passes(closed, CompileOptions())
    verify(better, "after trim-scans")
    (scan,) = scans(better)
    # States a and idle; of the sequences only x, once; what repeats goes to every step; one stack.
    assert (scan.attributes["state"], scan.attributes["sequences"], len(scan.outputs)) == (2, 1, 3)
    data, row = np.random.default_rng(5).standard_normal((STEPS, 3)), np.array([1.0, -2.0, 0.5])
    with tf.Session(graph, threads=1) as session:
        last, idle_, doubled, copied = session.run(graph.outputs, {x: data, flat: row})
    state, wanted = np.zeros(3), []
    for at in data:
        state = state * 0.5 + at * row + at
        wanted.append(state)
    np.testing.assert_allclose(last, state)
    np.testing.assert_allclose(doubled, 2 * np.array(wanted))
    np.testing.assert_array_equal(copied, data)
    assert idle_.tolist() == [2.0**STEPS] * 3


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_a_symbolic_number_of_steps(steps: int) -> None:
    """States, shifted stacks and a second scan inside, for any number of steps, none included."""
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder("float64", [None, 3], name="x")

        def step(state: Any, at: Any) -> Any:
            a, b = state
            inner, seen = tf.scan(lambda s, y: (s + y * at[0], s * a[0]), tf.constant(0.0, "float64"), at)
            return [b + at, a], [a, b, b + at, inner * seen]

        start = [tf.zeros((3,), "float64"), tf.ones((3,), "float64")]
        (a, b), stacks = tf.scan(step, start, x, reverse=True)
        graph.set_outputs([a, b, *stacks, tf.sum(stacks[1] * stacks[2])])
    data = np.random.default_rng(6).standard_normal((steps, 3))
    closed, _ = close_for_compilation(graph)
    wanted = reference.run(closed, {closed.inputs[0]: data})
    for threads in (1, 2):
        with tf.Session(graph, threads=threads) as session:
            for one, other in zip(session.run(graph.outputs, {x: data}), wanted, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("batch", "steps", "inside"), [(8, None, True), (8, 4, False), (2, None, False), (None, None, False)]
)
def test_a_product_of_a_long_sequence_moves_into_its_scan(batch: Any, steps: Any, inside: bool) -> None:
    """Only where a step has rows for a tile, and the stack of all steps would not stay in the caches."""
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder("float32", [steps, batch, 5], name="x")
        w, b = tf.placeholder("float32", [5, 6], name="w"), tf.placeholder("float32", [6], name="b")
        shift = tf.placeholder("float32", [1, 1, 6], name="shift")
        given = tf.matmul(x, w) * 2.0 + b + shift

        def step(h: Any, at: Any) -> Any:
            h = h * 0.5 + at
            return h, h

        last, ys = tf.scan(step, tf.zeros((x.shape[1], 6)), given)
        graph.set_outputs([last, ys, *tf.gradients(tf.sum(ys * ys), [x, w, b, shift])])
    rng = np.random.default_rng(7)
    arrays = [rng.standard_normal(shape).astype("float32") for shape in ((4, batch or 3, 5), (5, 6), (6,), (1, 1, 6))]
    closed, _ = close_for_compilation(graph)
    better = run_passes(closed, CompileOptions())
    verify(better, "after sink-products")
    bodies = [one.op.name for scan in scans(better) for one in scan.bodies[0].nodes]
    assert ("dot_general" in bodies) is inside
    exact = reference.run(closed, dict(zip(closed.inputs, arrays, strict=True)))
    runs = []
    for threads in (1, 3):
        with tf.Session(graph, threads=threads) as session:
            runs.append(session.run(graph.outputs, dict(zip((x, w, b, shift), arrays, strict=True))))
    for one, other, wanted in zip(*runs, exact, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, wanted, rtol=2e-5, atol=2e-5)
