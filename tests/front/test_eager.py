"""Eager results and tapes; what importing costs."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.errors import PierianError, ShapeError


def test_eager_values_look_like_numbers() -> None:
    x = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    y = x @ x + 1.0
    assert y.numpy().tolist() == [[8.0, 11.0], [16.0, 23.0]]
    assert float(tf.sum(y)) == 58.0 and int(tf.argmax(tf.constant([1, 9, 3]))) == 1
    assert "shape=(2, 2)" in repr(y) and "float32" in repr(y)
    assert x[tf.newaxis, 0].shape == (1, 2)


def test_numbers_are_constants_of_their_own_kind_and_sign() -> None:
    x = tf.constant([1.0, -1.0])
    assert (x * 0.0).numpy().tobytes() != (x * -0.0).numpy().tobytes()
    assert (
        tf.constant(1).dtype == tf.int32 and tf.constant(1.0).dtype == tf.float32 and tf.constant(True).dtype == tf.bool
    )
    assert tf.constant(1, tf.float64).dtype == tf.float64 and tf.constant(2**40).dtype == tf.int64
    with pytest.raises(PierianError):
        tf.constant(2**2000)


def test_an_error_names_the_users_line_and_both_shapes() -> None:
    with pytest.raises(ShapeError) as caught:
        tf.constant([1.0, 2.0]) + tf.constant([1.0, 2.0, 3.0])
    text = str(caught.value)
    assert "test_eager.py" in text and "[2]" in text and "[3]" in text


def test_memory_stays_flat_over_many_turns() -> None:
    """100,000 turns of an eager loop with a gradient step: what is kept is bounded."""
    w = tf.Variable(1.0)
    x = tf.constant(0.5)

    def turns(count: int) -> None:
        for _ in range(count):
            y = x * w + 1.0
        w.assign(y * 0.5)

    turns(2000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(50):
        turns(2000)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 8 * 1024, f"{grown} KiB more after 100,000 turns"


def test_large_arrays_are_free_when_nobody_holds_them(peak_of: Callable[[Callable[[], object]], int]) -> None:
    """Of 60 results of 8 MB each, looked at or not, a few are in memory at once."""
    x = tf.constant(np.ones(2_000_000, np.float32))
    v = tf.Variable(x)

    def turn(i: int) -> None:
        (x * 2.0 + float(i)).numpy()
        _never_looked_at = tf.exp(x * 3.0)
        v.assign_add(x)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(v * v)
        v.assign_sub(0.001 * tape.gradient(loss, v))

    turn(0)
    assert peak_of(lambda: [turn(i) for i in range(20)]) < 64e6


def test_outputs_that_nobody_holds_are_made_anew_when_they_are_needed() -> None:
    x = tf.constant([3.0, 1.0, 2.0])
    total = tf.scan(lambda state, one: (state + one, state * one), tf.constant(0.0), x)[
        0
    ]  # the stacked products are gone
    assert float(total) == 6.0


def test_a_long_chain_without_reading_a_value() -> None:
    x = tf.constant(0.0)
    for _ in range(5000):
        x = x + 1.0
    assert float(x) == 5000.0


def test_tapes_nest_and_persist() -> None:
    x = tf.constant(3.0)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape(persistent=True) as inner:
            inner.watch(x)
            y = x * x * x
            z = y * y
        dy = inner.gradient(y, x)
        dz = inner.gradient(z, x)
    assert float(dy) == 27.0 and float(dz) == 6 * 3.0**5
    assert float(outer.gradient(dy, x)) == 18.0
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = x * 2.0
    tape.gradient(y, x)
    with pytest.raises((PierianError, RuntimeError)):
        tape.gradient(y, x)


def test_a_tape_in_a_graph() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, [3])
        w = tf.Variable([1.0, 2.0, 3.0])
        unrelated = w * 2.0
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(w * w * x)
        dw, nothing = tape.gradient(loss, [w, unrelated])
    assert nothing is None
    with tf.Session(graph) as session:
        session.run(tf.global_variables_initializer())
        assert session.run(dw, {x: np.ones(3, np.float32)}).tolist() == [2.0, 4.0, 6.0]


def test_importing_loads_little() -> None:
    script = (
        "import sys, json, time; import numpy; before = set(sys.modules); start = time.perf_counter(); import pierian;"
        "print(json.dumps([time.perf_counter() - start, sorted(set(sys.modules) - before)]))"
    )
    seconds, modules = json.loads(subprocess.check_output([sys.executable, "-c", script], text=True))
    assert not {"llvmlite", "click", "rich", "safetensors", "google.protobuf"} & set(modules)
    assert seconds < 5  # the budget of 0.25 s is measured by benchmarks/cold_start.py


def test_a_run_calls_python_as_often_for_any_number_of_nodes() -> None:
    """Nodes run in native code: a longer graph makes no more Python calls, and NumPy's functions are not among them."""
    calls = []
    for length in (1, 200):
        graph = tf.Graph()
        with graph.as_default():
            x = tf.placeholder(tf.float32, ["n", 4], name="x")
            y = x
            for k in range(length):
                y = tf.softmax(tf.tanh(y) * float(k) + 1.0, axis=-1) if k % 3 else tf.matmul(y, tf.ones([4, 4]))
        with tf.Session(graph) as session:
            run = session.make_callable(y, [x])
            array = np.ones((3, 4), np.float32)
            run(array)
            seen: list[str] = []

            def note(frame: object, event: str, arg: object, seen: list[str] = seen) -> None:
                if event in ("call", "c_call"):
                    seen.append(getattr(arg, "__name__", event))

            sys.setprofile(note)
            run(array)
            sys.setprofile(None)
            calls.append(len(seen))
    assert calls[0] == calls[1] < 60
