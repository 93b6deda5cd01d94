"""Variables updated in place: where it is allowed, and the same bits as with two arrays."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.options import CompileOptions

SHAPE = (7, 37)
TWO_ARRAYS = CompileOptions(in_place=False)

# Name: the new value of a variable of SHAPE, and whether it may be written over the old one.
UPDATES: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "pointwise": (lambda v: tf.tanh(v) * 1.5 + 0.1, True),
    "reshaped": (lambda v: tf.reshape(tf.reshape(v, (37, 7)) * 1.5, SHAPE), True),
    "rows": (lambda v: v - tf.reduce_mean(v, axis=1, keepdims=True), True),
    "columns": (lambda v: v - tf.reduce_mean(v, axis=0, keepdims=True), True),
    "softmax": (lambda v: tf.softmax(v, axis=-1), True),
    "whole": (lambda v: v / tf.sqrt(tf.reduce_sum(tf.square(v)) + 1.0), True),
    "epilogue": (lambda v: v + tf.matmul(tf.ones((7, 5)), tf.ones((5, 37))) * 0.1, True),
    "rows and itself": (lambda v: tf.softmax(v, axis=-1) * v, False),
    "product": (lambda v: tf.matmul(tf.ones((7, 7)) / 7.0, v), False),
    "turned": (lambda v: tf.reshape(tf.transpose(v), SHAPE), False),
    "flipped": (lambda v: tf.flip(v, axis=1) * 1.1, False),
    "neighbours": (lambda v: v + tf.concat([v[:, 1:], v[:, :1]], 1) * 0.25, False),
    "scattered": (lambda v: tf.scatter_add(v, [3, 1, 3], v[:3] * 0.5), True),
    "gathered": (lambda v: tf.gather(v, [6, 5, 4, 3, 2, 1, 0]) + v, False),
    "one way or the other": (lambda v: tf.cond(tf.reduce_sum(v) > 0.0, lambda: v * 0.5, lambda: v + 1.0), True),
    "loop": (lambda v: tf.while_loop(lambda i, a: i < 3, lambda i, a: [i + 1, a * 0.9], [tf.constant(0), v])[1], True),
}  # fmt: skip


def start(seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def after_runs(build: Callable[[], Any], options: CompileOptions | None, threads: int) -> tuple[Any, list[bytes]]:
    """The program of what `build` gives for fetching, and the bytes of all variables and fetches after some runs."""
    graph = tf.Graph()
    with graph.as_default():
        fetches = build()
    with tf.Session(graph, threads, options) as session:
        program = session.compiled(fetches).program
        found = [np.asarray(one) for _ in range(3) for one in session.run(fetches) if one is not None]
        found += [session.value(name) for name in graph.variables]
    return program, [one.tobytes() for one in found]


@pytest.mark.parametrize("name", UPDATES)
def test_what_is_allowed_and_the_same_bits(name: str) -> None:
    update, allowed = UPDATES[name]

    def build() -> Any:
        v = tf.Variable(start(1), name="v")
        return [tf.group(v.assign(update(v)))]

    program, found = after_runs(build, None, 1)
    assert ("v_next" in program.in_place) == allowed, program.two_arrays
    assert allowed or program.two_arrays["v_next"]
    assert after_runs(build, TWO_ARRAYS, 1)[1] == found == after_runs(build, None, 3)[1]


def test_an_update_waits_for_the_readers_of_the_old_value() -> None:
    """The gradient through a layer reads its matrix; the matrix's own update comes first in the graph."""
    rng = np.random.default_rng(0)

    def build() -> Any:
        x = tf.constant(rng.standard_normal((20, 30)).astype(np.float32))
        layers = [tf.Variable(rng.standard_normal((30, 30)).astype(np.float32) / 6, name=f"w{i}") for i in range(3)]
        h = x
        for w in layers:
            h = tf.tanh(tf.matmul(h, w))
        loss = tf.reduce_mean(tf.square(h))
        step = tf.keras.optimizers.Adam(0.01).minimize(loss, var_list=layers)
        return [loss, layers[0] * 1.0, step]

    rng = np.random.default_rng(0)
    program, found = after_runs(build, None, 2)
    assert not program.two_arrays and len(program.in_place) == 10
    rng = np.random.default_rng(0)
    assert after_runs(build, TWO_ARRAYS, 2)[1] == found


def test_a_kernel_stores_last_what_its_other_statements_still_read() -> None:
    """A regression of few numbers is one kernel that reads variables of one element at every point of its sums, and a counter in the
    updates of all others."""

    def build() -> Any:
        x, y = tf.constant(start(3)[0]), tf.constant(start(4)[0])
        slope, offset = tf.Variable([0.5], name="slope"), tf.Variable([0.1], name="offset")
        loss = tf.reduce_mean(tf.square(offset + slope * x - y))
        return [loss, tf.keras.optimizers.Adam(0.1).minimize(loss, var_list=[slope, offset])]

    program, found = after_runs(build, None, 1)
    assert not program.two_arrays and len(program.in_place) == 7
    assert after_runs(build, TWO_ARRAYS, 1)[1] == found == after_runs(build, None, 3)[1]


def test_variables_of_one_kernel_that_read_each_other() -> None:
    """At most one of them can wait for the other."""

    def build() -> Any:
        v, w = tf.Variable([0.5], name="v"), tf.Variable([2.0], name="w")
        return [tf.group(v.assign(v + tf.sin(w)), w.assign(w * 0.5 + v))]

    _, found = after_runs(build, None, 1)
    assert after_runs(build, TWO_ARRAYS, 1)[1] == found


def test_a_variable_that_is_replaced_without_being_read() -> None:
    def build() -> Any:
        v, w = tf.Variable(start(1), name="v"), tf.Variable(start(2), name="w")
        return [v.assign(w * 2.0), w.assign(w + 1.0)]

    program, found = after_runs(build, None, 1)
    assert program.in_place == {"v_next": "", "w_next": "w"}
    assert after_runs(build, TWO_ARRAYS, 1)[1] == found


def random_state(seed: int) -> Callable[[], Any]:
    """A graph that assigns several variables from each other in many ways."""

    def build() -> Any:
        choose = random.Random(seed)
        variables = [tf.Variable(start(i), name=f"v{i}") for i in range(4)]
        values: list[Any] = [v.value() for v in variables]
        steps: list[Callable[[Any, Any], Any]] = [
            lambda a, b: a * 0.5 + b * 0.25,
            lambda a, b: tf.softmax(a, axis=-1) - b,
            lambda a, b: a - tf.reduce_mean(b, axis=0),
            lambda a, b: tf.matmul(tf.matmul(a, b, transpose_b=True), b) * 0.01,
            lambda a, b: tf.flip(a, axis=0) * 0.5,
            lambda a, b: tf.reshape(tf.transpose(a), SHAPE) * 0.5,
            lambda a, b: tf.scatter_add(a, [1, 1, 5], b[2:5]) * 0.5,
            lambda a, b: tf.tanh(a),
            lambda a, b: a,
        ]
        for _ in range(choose.randrange(3, 12)):
            values.append(choose.choice(steps)(choose.choice(values), choose.choice(values)))
        assigned = [v.assign(choose.choice(values)) for v in variables if choose.random() < 0.9]
        fetched = [choose.choice([*values, *assigned]) for _ in range(2)]
        return [*fetched, tf.group(*assigned)] if assigned else fetched

    return build


def test_random_updates_have_the_same_bits() -> None:
    kinds = set()
    for seed in range(12):
        build = random_state(seed)
        program, found = after_runs(build, None, 1 + seed % 3)
        kinds.update([bool(program.in_place), bool(program.two_arrays)])
        assert after_runs(build, TWO_ARRAYS, 2)[1] == found, seed
    assert kinds == {True, False}
