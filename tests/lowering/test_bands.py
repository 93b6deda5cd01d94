"""Loops cut into bands of rows, and values carried over in place: the results of plain loops, the same bits on any threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import plan_graph
from pierian.compiler.kernel.interpret import interpret_program
from pierian.compiler.kernel.program import Copy, Loop, Program, walk

STEPS, WIDTH = 5, 64


def cells(x: Any, w: Any, u: Any) -> Any:
    """A small gated recurrence; x: [steps, rows, WIDTH]."""

    def step(state: Any, given: Any) -> Any:
        h, c = state
        gates = tf.matmul(given, w) + tf.matmul(h, u)
        c = tf.sigmoid(gates[:, :WIDTH]) * c + tf.tanh(gates[:, WIDTH:])
        return [tf.tanh(c), c], tf.tanh(c) * 2.0

    zero = tf.zeros_like(x[0])
    return tf.scan(step, [zero, zero], x)[1]


def by_hand(x: Any, w: Any, u: Any) -> Any:
    h = c = np.zeros_like(x[0])
    found = []
    for given in x:
        gates = given @ w + h @ u
        c = c / (1 + np.exp(-gates[:, :WIDTH])) + np.tanh(gates[:, WIDTH:])
        h = np.tanh(c)
        found.append(2 * h)
    return np.stack(found)


def arrays(rows: int) -> list[Any]:
    rng = np.random.default_rng(rows)
    weights = [rng.standard_normal((WIDTH, 2 * WIDTH)) / 8 for _ in range(2)]
    return [a.astype(np.float32) for a in (rng.standard_normal((STEPS, rows, WIDTH)), *weights)]


def at_once(program: Program) -> list[Any]:
    return [step.count for step in walk(program.steps) if isinstance(step, Loop) and step.parallel]


@pytest.mark.parametrize("rows", [16, 20, 17, 7, None])
def test_rows_that_never_meet_are_walked_apart(rows: int | None) -> None:
    with tf.Graph().as_default() as graph:
        x = tf.placeholder("float32", (STEPS, rows or "n", WIDTH), name="x")
        w, u = (tf.placeholder("float32", (WIDTH, 2 * WIDTH), name=name) for name in "wu")
        y = cells(x, w, u)
        gradients = tf.gradients(tf.reduce_sum(y * y), [x, w, u])
    sessions = [tf.Session(graph, threads=threads) for threads in (1, 2, 3, 8)]
    counts = at_once(sessions[0].compiled([y, *gradients], [x, w, u]).program)
    assert len(counts) == (0 if rows in (17, 7) else 2)
    for given in (1, 15, 16, 40) if rows is None else (rows,):
        data = arrays(given)
        found = [session.run([y, *gradients], dict(zip((x, w, u), data, strict=True))) for session in sessions]
        exact = by_hand(*(array.astype(np.float64) for array in data))
        np.testing.assert_allclose(found[0][0], exact, rtol=1e-4, atol=1e-5)
        for result, array in zip(found[0][1:], data, strict=True):
            assert result.shape == array.shape
        for others in found[1:]:
            for one, other in zip(found[0], others, strict=True):
                np.testing.assert_array_equal(one, other)
        # A single row's gradient is what the rows give alone: no band looks at another's.
        alone = sessions[1].run(gradients[0], {x: data[0][:, -1:], w: data[1], u: data[2]}) if rows is None else None
        if alone is not None:
            np.testing.assert_allclose(found[0][1][:, -1:], alone, rtol=1e-4, atol=1e-5)


def test_gradients_of_weights_over_bands_agree_with_differences() -> None:
    with tf.Graph().as_default() as graph:
        x, w, u = (tf.placeholder("float64", array.shape) for array in arrays(24))
        y = tf.reduce_sum(tf.square(cells(x, w, u)))
        gradients = tf.gradients(y, [w, u])
    session = tf.Session(graph, threads=2)
    assert len(at_once(session.compiled(gradients, [x, w, u]).program)) == 2
    data = [array.astype(np.float64) for array in arrays(24)]
    found = session.run(gradients, dict(zip((x, w, u), data, strict=True)))
    for number, gradient in enumerate(found, 1):
        direction = np.random.default_rng(number).standard_normal(gradient.shape)
        ends = []
        for sign in (1, -1):
            moved = [a + sign * 1e-6 * direction if i == number else a for i, a in enumerate(data)]
            ends.append(np.square(by_hand(*moved)).sum())
        np.testing.assert_allclose((gradient * direction).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


def pointwise(step: Any, rows: int = 32, width: int = 128) -> tuple[Any, Program]:
    with tf.Graph().as_default() as graph:
        x = tf.placeholder("float32", (rows, width), name="x")
        final, stacked = tf.scan(step, x, tf.zeros((3, 1)))
        graph.set_outputs([final, stacked], ["final", "stacked"])
    return graph, plan_graph(graph).program


def heavy(s: Any) -> Any:
    for _ in range(3):
        s = tf.tanh(tf.exp(-s * s) + tf.sin(s))
    return s


CASES = {
    "pointwise": (lambda s, _: (heavy(s), s), 1),
    "rows": (lambda s, _: (heavy(s) / tf.reduce_sum(tf.exp(s), 1, keepdims=True), s), 1),
    "columns": (lambda s, _: (heavy(s) - tf.reduce_sum(s, 0, keepdims=True), s), 0),
    "rows in turn": (lambda s, _: (heavy(s)[::-1], s), 0),
    "by number": (lambda s, _: (heavy(s) + tf.cast(tf.reshape(tf.arange(32), (32, 1)), "float32"), s), 0),
    "nested": (lambda s, _: (tf.scan(lambda r, _: (heavy(r), r), s, tf.zeros((2, 1)))[0], s), 1),
    "chosen": (lambda s, _: (tf.cond(tf.reduce_sum(s) > 0, lambda: heavy(s), lambda: s), s), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_only_rows_by_themselves_are_cut(name: str) -> None:
    step, bands = CASES[name]
    graph, program = pointwise(step)
    assert len(at_once(program)) == bands
    x = np.random.default_rng(3).standard_normal((32, 128)).astype(np.float32)
    with np.errstate(all="ignore"):
        expected = interpret_program(program, [x])
    for threads in (1, 2, 3):
        found = tf.Session(graph, threads=threads).run(graph.outputs, {"x": x})
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


def test_values_are_carried_over_in_place_where_nobody_reads_the_old_one() -> None:
    loops = {
        "itself": (lambda i, a, b: (i + 1, a * 2.0, b + 1.0), 0),
        "after its reader": (lambda i, a, b: (i + 1, a * b, b + 1.0), 0),
        "exchanged": (lambda i, a, b: (i + 1, b, a), 3),
        "neighbours": (lambda i, a, b: (i + 1, a + a[::-1], b), 1),
    }
    start = np.arange(1.0, 6.0, dtype=np.float32)
    for name, (body, copies) in loops.items():
        with tf.Graph().as_default() as graph:
            first, second = tf.placeholder("float32", (5,), name="a"), tf.placeholder("float32", (5,), name="b")
            made = tf.while_loop(lambda i, a, b: i < 4, body, [tf.constant(0), first, second])
            graph.set_outputs(made, ["i", "x", "y"])
        program = plan_graph(graph).program
        (loop,) = [step for step in program.steps if isinstance(step, Loop)]
        assert sum(isinstance(step, Copy) for step in loop.steps) == copies, name
        i, a, b = 0, start, -start
        while i < 4:
            i, a, b = body(i, a, b)
        for found in (
            interpret_program(program, [start, -start]),
            tf.Session(graph).run(made, {"a": start, "b": -start}),
        ):
            np.testing.assert_array_equal(found[1], a, err_msg=name)
            np.testing.assert_array_equal(found[2], b, err_msg=name)
