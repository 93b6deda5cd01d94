"""Traced functions: signatures, tapes, random numbers, and variables that they update in place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.errors import FeedError


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    tf.random.set_seed(0)
    yield
    tf.random.set_seed(0)


def test_a_function_is_traced_once_for_a_signature() -> None:
    seen = []

    @tf.function
    def f(a: tf.Tensor, scale: float) -> tf.Tensor:
        seen.append(a.shape)
        return tf.sum(a * scale)

    for _ in range(3):
        assert float(f(tf.constant([1.0, 2.0]), 2.0)) == 6.0
    assert len(seen) == 1
    assert float(f(tf.constant([1.0, 2.0]), 3.0)) == 9.0 and len(seen) == 2


def test_an_open_size_is_one_trace() -> None:
    seen = []

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def f(a: tf.Tensor) -> tf.Tensor:
        seen.append(a.shape)
        return tf.mean(a)

    for n in (1, 5, 100):
        assert float(f(tf.constant(np.ones(n, np.float32)))) == 1.0
    assert len(seen) == 1


def test_tapes_record_inside_traced_functions() -> None:
    """A training step in one function; derivatives of higher order; loops; variables read before and after an assignment."""
    v = tf.Variable(np.arange(1.0, 5.0, dtype=np.float32))
    captured = tf.constant(2.0)

    @tf.function
    def step(x: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([x, captured])
            loss = tf.reduce_sum(v * v * x * captured)
        gradients = tape.gradient(loss, [v, x, captured])
        v.assign_sub(0.125 * gradients[0])
        return gradients

    for turn in range(2):
        value = np.arange(1.0, 5.0) * 0.5**turn
        dv, dx, dc = step(tf.constant(1.0))
        assert dv.numpy().tolist() == (4 * value).tolist()
        assert (float(dx), float(dc)) == (2 * (value**2).sum(), (value**2).sum())
        assert v.numpy().tolist() == (0.5 * value).tolist()

    @tf.function
    def second(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = x * x * x
            dy = inner.gradient(y, x)
        return outer.gradient(dy, x)

    assert float(second(tf.constant(3.0))) == 18.0
    x = tf.constant(3.0)
    with tf.GradientTape() as around:
        around.watch(x)
        d = second(x)
    assert float(around.gradient(d, x)) == 6.0

    @tf.function
    def loop(x: tf.Tensor) -> list[tf.Tensor]:
        w = tf.constant(5.0)
        with tf.GradientTape() as tape:
            tape.watch(x)
            _, y = tf.while_loop(
                lambda i, y: i < 3, lambda i, y: (i + 1, y * x * v[3]), [tf.constant(0), tf.constant(1.0)]
            )
        return tape.gradient(y, [x, v, w])

    dx, dv, dw = loop(tf.constant(2.0))  # v[3] is 1
    assert float(dx) == 12.0 and dv.numpy().tolist() == [0.0, 0.0, 0.0, 24.0] and dw is None


def test_a_tape_around_a_function_learns_nothing_of_its_tracing() -> None:
    v = tf.Variable(3.0)

    @tf.function
    def f() -> tf.Tensor:
        return v * v

    for _ in range(2):
        with tf.GradientTape(persistent=True) as tape:
            y = f()
        assert float(tape.gradient(y, v)) == 6.0
        assert tape._producers and all(value.node.graph is None for value in tape._producers)


def test_methods_are_traced_for_each_instance() -> None:
    class Layer:
        def __init__(self, scale: float) -> None:
            self.scale = tf.Variable(scale)

        @tf.function
        def apply(self, x: tf.Tensor, times: int = 1) -> tf.Tensor:
            return self.scale * x * float(times)

    first, second = Layer(2.0), Layer(3.0)
    x = tf.constant(5.0)
    assert [float(layer.apply(x)) for layer in (first, second, first)] == [10.0, 15.0, 10.0]
    assert float(second.apply(x, times=2)) == 30.0
    first.scale.assign(7.0)
    assert float(first.apply(x)) == 35.0


def test_arrays_of_any_layout_are_arguments() -> None:
    @tf.function
    def double(a: tf.Tensor) -> tf.Tensor:
        return a * 2.0

    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    for given in (x, x.T, x[:, ::2], x[1], np.float32(3), np.zeros((0, 3), np.float32)):
        assert np.array_equal(double(given).numpy(), given * 2)
    assert double(x.astype(np.float64)).dtype == tf.float64
    again = double(x)
    x[:] = 0.0
    assert again.numpy()[0, 1] == 2.0  # a result is nobody's input


def test_large_results_are_free_when_nobody_holds_them(peak_of: Callable[[Callable[[], object]], int]) -> None:
    @tf.function
    def double(a: tf.Tensor) -> tf.Tensor:
        return a * 2.0

    x = tf.constant(np.ones(2_000_000, np.float32))
    double(x)
    assert peak_of(lambda: [double(x).shape for _ in range(20)]) < 32e6


# --- random numbers ------------------------------------------------------------------------------------------------


def _noisy(x: tf.Tensor) -> tf.Tensor:
    return x + tf.random.normal([4]) * tf.random.uniform([4])


def test_a_function_draws_what_its_statements_would() -> None:
    x = tf.constant(np.zeros(4, np.float32))
    eagerly = [_noisy(x).numpy() for _ in range(3)]
    assert not np.array_equal(eagerly[0], eagerly[1])
    traced = tf.function(_noisy)
    for seed in (0, 1, 0):
        tf.random.set_seed(seed)
        found = [traced(x).numpy() for _ in range(3)]
        assert np.array_equal(found, eagerly) == (seed == 0)


def test_random_numbers_of_functions_in_functions_tapes_and_graphs() -> None:
    x = tf.constant(np.zeros(4, np.float32))
    eagerly = [_noisy(x).numpy() for _ in range(4)]
    traced = tf.function(_noisy)

    @tf.function
    def twice(x: tf.Tensor) -> list[tf.Tensor]:
        return [traced(x), traced(x)]

    tf.random.set_seed(0)
    found = [*twice(x), *twice(x)]
    assert np.array_equal([one.numpy() for one in found], eagerly)
    tf.random.set_seed(0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = traced(x)
    assert np.array_equal(y.numpy(), eagerly[0]) and tape.gradient(y, x).numpy().tolist() == [1.0] * 4
    graph = tf.Graph()
    with graph.as_default():
        results = [traced(tf.constant(np.zeros(4, np.float32))) for _ in range(2)]
    with tf.Session(graph) as session:
        numbers = [*session.run(results), *session.run(results)]
    assert len({one.tobytes() for one in numbers}) == 4


# --- variables -----------------------------------------------------------------------------------------------------


def _address(variable: tf.Variable) -> int:
    """Where a variable's value lies; it is not handed out by this."""
    return variable.eager_value().data.ctypes.data


def test_variables_are_updated_in_place() -> None:
    w, b = tf.Variable(np.zeros((300, 200), np.float32)), tf.Variable(1.0)

    @tf.function
    def step(x: tf.Tensor) -> tf.Tensor:
        w.assign_add(x)
        b.assign(b * 2.0)
        return tf.reduce_sum(w)

    x = tf.constant(np.ones((300, 200), np.float32))
    step(x)
    where = _address(w)
    for turn in range(2, 6):
        assert float(step(x)) == 60_000 * turn
        assert _address(w) == where
    assert float(b) == 2.0**5 and np.all(w.numpy() == 5)


def test_whoever_holds_a_value_keeps_it() -> None:
    """Arrays and views of them, tensors, histories not yet computed, tapes and other variables see the value they were given."""
    v = tf.Variable(np.arange(40_000, dtype=np.float32))
    other = tf.Variable(np.zeros(40_000, np.float32))

    @tf.function
    def step() -> None:
        v.assign(v + 1.0)

    initial = v.numpy()
    step()
    for turn in range(1, 5):
        expected = np.arange(40_000, dtype=np.float32) + turn
        held: list[object] = []
        if turn == 1:
            held = [v.numpy()[10:20]]  # its base is the memory, not the array
        elif turn == 2:
            held = [v.numpy()]
        elif turn == 3:
            other.assign(v)
            held = [other, v.value(), v.value() * 1.0]
        else:
            with tf.GradientTape() as tape:
                y = tf.reduce_sum(v * v)
        step()
        step()
        if turn == 1:
            assert np.array_equal(held[0], expected[10:20]) and initial[0] == 0
            v.assign(v - 1.0)
        elif turn < 4:
            assert all(np.array_equal(np.asarray(one), expected) for one in held)
            v.assign(v - 1.0)
        else:
            assert np.array_equal(tape.gradient(y, v).numpy(), 2 * expected)


def test_new_values_from_old_ones_of_each_other() -> None:
    a, b = tf.Variable(np.full(50_000, 1.0, np.float32)), tf.Variable(np.full(50_000, 2.0, np.float32))
    matrix = tf.Variable(np.diag(np.full(64, 2.0)).astype(np.float32))

    @tf.function
    def step() -> tf.Tensor:
        before = a * 1.0
        a.assign(b)
        b.assign(before)
        matrix.assign(matrix @ matrix)
        return a - b

    for turn in range(1, 5):
        difference = step().numpy()
        first, second = (2.0, 1.0) if turn % 2 else (1.0, 2.0)
        assert np.all(a.numpy() == first) and np.all(b.numpy() == second) and np.all(difference == first - second)
        assert np.array_equal(matrix.numpy(), np.diag(np.full(64, 2.0 ** (2**turn))))


def test_a_call_that_fails_changes_nothing() -> None:
    v = tf.Variable(np.zeros(3, np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32), tf.TensorSpec([None], tf.float32)])
    def step(x: tf.Tensor, y: tf.Tensor) -> None:
        v.assign_add(tf.reduce_sum(x * y) + v * 0.0)

    step(tf.constant([1.0, 2.0]), tf.constant([3.0, 4.0]))
    with pytest.raises(FeedError):
        step(tf.constant([1.0, 2.0]), tf.constant([3.0, 4.0, 5.0]))
    assert v.numpy().tolist() == [11.0] * 3
    step(tf.constant([1.0]), tf.constant([1.0]))
    assert v.numpy().tolist() == [12.0] * 3


def test_threads_see_whole_values_and_lose_no_update() -> None:
    """Two threads that assign and two that read: by a function, by eager operators, by looking."""
    v = tf.Variable(np.zeros(30_000, np.float32))

    @tf.function
    def step() -> None:
        v.assign_add(1.0)

    @tf.function
    def spread() -> tf.Tensor:
        return tf.reduce_max(v) - tf.reduce_min(v)

    step(), spread()
    failures: list[str] = []
    done = threading.Event()

    def assign() -> None:
        for _ in range(400):
            step()

    def read() -> None:
        while not done.is_set():
            array = v.numpy()
            if float(spread()) or array.min() != array.max() or float(tf.reduce_max(v * 1.0) - array[0]) < 0:
                failures.append("a value half written")

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=assign) for _ in range(2)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert not failures and np.all(v.numpy() == 801)


def test_loops_draw_anew_in_each_turn() -> None:
    """In graphs, eagerly and in functions; two draws in a body; a loop in a loop; gradients see the numbers that were drawn."""
    xs = np.ones((5, 3), np.float32)

    def scanned(xs: tf.Tensor) -> tf.Tensor:
        def step(total: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
            a, b = tf.random.uniform([3]), tf.random.uniform([3])
            _, c = tf.scan(lambda s, one: (s, one * tf.random.uniform([3])), total, tf.stack([x, x]))
            return total + x * a, [a, b, c[0], c[1]]

        total, parts = tf.scan(step, tf.zeros([3]), xs)
        return [total, *parts]

    def looped(x: tf.Tensor) -> tf.Tensor:
        return tf.while_loop(
            lambda i, y: i < 4, lambda i, y: (i + 1, tf.concat([y[3:], x * tf.random.uniform([3])], 0)),
            [tf.constant(0), tf.zeros([12])],
        )[1]  # fmt: skip

    graph = tf.Graph()
    with graph.as_default():
        in_graph = [*scanned(tf.constant(xs)), looped(tf.constant(xs[0]))]
    with tf.Session(graph) as session:
        runs = [session.run(in_graph) for _ in range(2)]
    x = tf.constant(xs)
    runs += [[one.numpy() for one in (*scanned(x), looped(x[0]))] for _ in range(2)]
    tf.random.set_seed(0)
    function = tf.function(lambda x: [*scanned(x), looped(x[0])])
    runs += [[one.numpy() for one in function(x)] for _ in range(2)]
    for total, *drawn in runs:
        numbers = np.concatenate([one.ravel() for one in drawn])
        assert len(np.unique(numbers)) == numbers.size == 72
        assert np.allclose(total, drawn[0].sum(0))
    everything = [np.concatenate([one.ravel() for one in run]) for run in runs]
    assert len({one.tobytes() for one in everything[:4]}) == 4
    assert np.array_equal(everything[2:4], everything[4:])  # a function draws what its statements would
    with tf.GradientTape() as tape:
        tape.watch(x)
        total, a, *_ = scanned(x)
        loss = tf.reduce_sum(total)
    assert np.array_equal(tape.gradient(loss, x).numpy(), a.numpy())
