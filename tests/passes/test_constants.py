"""Constants in panels: the kernel means the same to the interpreter, and gives the bits that packing in the run gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.kernel.program import Launch
from pierian.compiler.schedule.contraction import classify


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
