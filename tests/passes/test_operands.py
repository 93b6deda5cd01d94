"""Operands packed ahead, constants and what loops do not change: the same results as packing in the run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.kernel.program import Launch
from pierian.compiler.schedule.roles import classify


def results(build: Any, x: Any, w: Any, constant: bool) -> tuple[Any, list[Any]]:
    graph = tf.Graph()
    with graph.as_default():
        a = tf.placeholder(x.dtype, x.shape)
        b = tf.constant(w) if constant else tf.placeholder(w.dtype, w.shape)
        y = build(a, b)
    with tf.Session(graph, threads=2) as session:
        feeds = [a] if constant else [a, b]
        program = session.compiled(y, feeds).program
        found = session.run(y, {a: x} if constant else {a: x, b: w})
    steps = [s for s in program.steps if isinstance(s, Launch) and s.kernel.kind == "contraction"]
    return found, [classify(step.kernel).packed for step in steps]


CASES = {
    "matmul": (lambda x, w: tf.matmul(x, w), (60, 70), (70, 41)),
    "transposed": (lambda x, w: tf.matmul(x, w, transpose_b=True), (60, 70), (41, 70)),
    "batched": (lambda x, w: tf.matmul(x, w), (3, 60, 20), (3, 20, 50)),
    "convolution": (lambda x, w: tf.nn.conv2d(x, w, 2, "SAME"), (2, 9, 9, 5), (3, 3, 5, 40)),
    "turned filters": (
        lambda x, w: tf.nn.conv2d(x, tf.permute_dims(w, (2, 3, 1, 0)), 1, "SAME"), (1, 20, 20, 9), (37, 9, 3, 3)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_packed_constants_give_the_same_bits(name: str) -> None:
    build, left, right = CASES[name]
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal(left).astype(np.float32), rng.standard_normal(right).astype(np.float32)
    packed, columns = results(build, x, w, True)
    plain, none = results(build, x, w, False)
    assert columns and all(columns) and not any(none)
    np.testing.assert_allclose(packed, plain, rtol=2e-5, atol=2e-5)
    if name in ("matmul", "batched"):
        np.testing.assert_array_equal(packed, plain)


def test_a_constant_read_twice_stays_once_in_each_form() -> None:
    w = np.random.default_rng(5).standard_normal((40, 40)).astype(np.float32)
    graph = tf.Graph()
    with graph.as_default():
        a = tf.placeholder("float32", (50, 40))
        c = tf.constant(w)
        y = tf.matmul(tf.tanh(tf.matmul(a, c)), c) + tf.reduce_sum(c)
    with tf.Session(graph, threads=1) as session:
        program = session.compiled(y, [a]).program
        x = np.ones((50, 40), np.float32)
        found = session.run(y, {a: x})
    assert len(program.constants) == 2
    wanted = np.tanh(x.astype(np.float64) @ w) @ w + w.sum(dtype=np.float64)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def recurrent(transposed: bool, width: int) -> tuple[Any, Any]:
    """The steps of a program that multiplies by the same matrix in every turn, and its result against NumPy's."""
    rng = np.random.default_rng(6)
    w, x = rng.standard_normal((width, width)) / width, rng.standard_normal((9, 20, width))
    graph = tf.Graph()
    with graph.as_default():
        a, b = tf.placeholder("float64", x.shape), tf.placeholder("float64", w.shape)
        last, _ = tf.scan(lambda h, at: (tf.matmul(h + at, b, transpose_b=transposed), at[0, 0]), a[0], a)
    with tf.Session(graph, threads=2) as session:
        program = session.compiled(last, [a, b]).program
        found = session.run(last, {a: x, b: w})
    h = x[0]
    for at in x:
        h = (h + at) @ (w.T if transposed else w)
    np.testing.assert_allclose(found, h, rtol=1e-10, atol=1e-14)
    return program, [step.label for step in program.steps if isinstance(step, Launch)]


@pytest.mark.parametrize("transposed", [False, True])
def test_what_a_loop_does_not_change_is_packed_before_it(transposed: bool) -> None:
    _, labels = recurrent(transposed, 32)
    assert labels.count("packing") == 1
    _, labels = recurrent(transposed, 30)  # panels that are not full stay as they are
    assert "packing" not in labels


def test_what_a_loop_changes_is_not() -> None:
    graph = tf.Graph()
    with graph.as_default():
        a = tf.placeholder("float64", (32, 32))
        last = tf.while_loop(lambda i, m: i < 3, lambda i, m: (i + 1, tf.matmul(m, m)), [tf.constant(0), a])[1]
    data = np.random.default_rng(7).standard_normal((32, 32)) / 6
    with tf.Session(graph, threads=1) as session:
        np.testing.assert_allclose(session.run(last, {a: data}), np.linalg.matrix_power(data, 8), rtol=1e-9, atol=1e-12)
