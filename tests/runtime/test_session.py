"""The Session: transactions, feeds, fetches, threads, open sizes, errors."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.errors import ExecutionError, FeedError, GraphError


def test_reads_see_the_value_from_before_the_run() -> None:
    graph = tf.Graph()
    with graph.as_default():
        a, b = tf.Variable(1.0, name="a"), tf.Variable(10.0, name="b")
        swap = [a.assign(b), b.assign(a)]
        total = a + b
    with tf.Session(graph) as session:
        assert session.run([a, b, total, swap]) == [1.0, 10.0, 11.0, [10.0, 1.0]]
        assert session.run([a, b]) == [10.0, 1.0]


def test_a_failed_run_changes_nothing() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, ["n"], name="x")
        y = tf.placeholder(tf.float32, ["m"], name="y")
        v = tf.Variable(1.0, name="v")
        step = v.assign_add(tf.sum(x + y))
    with tf.Session(graph) as session:
        session.run(step, {x: [1.0, 2.0], y: [1.0, 1.0]})
        before = session.run(v)
        with pytest.raises(FeedError) as caught:
            session.run(step, {x: [1.0, 2.0], y: [1.0]})
        assert "test_session.py" in str(caught.value)
        with pytest.raises(FeedError):
            session.run(step, {x: np.ones(2, complex), y: [1.0, 1.0]})
        assert session.run(v) == before == 6.0


def test_assigning_twice_is_an_error() -> None:
    graph = tf.Graph()
    with graph.as_default():
        v = tf.Variable(1.0, name="v")
        both = [v.assign(2.0), v.assign(3.0)]
    with tf.Session(graph) as session, pytest.raises(GraphError, match="assigned twice"):
        session.run(both)


def test_nested_fetches_names_and_feeding_any_tensor() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, [2], name="x")
        y = tf.multiply(x, 2.0, name="twice")
        z = y + 1.0
    with tf.Session(graph) as session:
        found = session.run({"a": [z, "twice"], "b": (x,)}, {"x": [1, 2]})
        assert (
            found["a"][0].tolist() == [3, 5] and found["a"][1].tolist() == [2, 4] and found["b"][0].tolist() == [1, 2]
        )
        assert session.run(z, {y: [10.0, 20.0]}).tolist() == [11, 21]


def test_asked_again_a_run_answers_in_the_form_asked_for() -> None:
    class Pair(NamedTuple):
        first: Any
        second: Any

    graph = tf.Graph()
    with graph.as_default():
        x, y = tf.placeholder(tf.float32, [2], name="x"), tf.placeholder(tf.float32, [], name="y")
        v = tf.Variable(0.0, name="v")
        z, count = x * y, v.assign_add(1.0)
    with tf.Session(graph) as session:
        for turn in (1.0, 2.0, 3.0):
            one = np.full(2, turn, np.float32)
            for order in ({x: one, y: turn}, {y: turn, x: one}, {"x": one, y: turn}):
                assert session.run(z, order).tolist() == [turn * turn] * 2
                listed = session.run([z, y], order)
                assert type(listed) is list and listed[1] == turn and isinstance(listed[1], np.float32)
                assert type(session.run((z, y), order)) is tuple
                assert list(session.run({"y": y, 1: z}, order)) == ["y", 1]
                assert session.run({"z": y, "y": z}, order)["z"] == turn == session.run({"z": z, "y": y}, order)["y"]
                assert session.run(Pair(z, y), order).second == turn
                assert type(session.run((Pair(z, y), z), order)[0]) is Pair
                assert type(session.run(((z, y), z), order)[0]) is tuple
            with pytest.raises(FeedError):
                session.run(z, {x: one})
            assert session.run(x, {x: one}).tolist() == one.tolist()
            session.run(tf.group(count))
            assert session.run([count, None, v]) == [2 * turn, None, 2 * turn - 1]
    with pytest.raises(ExecutionError, match="closed"):
        session.run(z, {x: one, y: 1.0})


def test_requests_made_of_new_objects_do_not_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pierian.runtime.session.MOST_KNOWN", 4)
    graph = tf.Graph()
    with graph.as_default():
        v = tf.Variable(0.0, name="v")
        step = v.assign_add(1.0)
    with tf.Session(graph) as session:
        for turn in range(10):
            session.run(tf.group(step))
            assert session.run(v) == turn + 1
            assert len(session._known) <= 4


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "needs a value"),
        ({"x": np.ones((2, 4), np.float32)}, "wrong shape"),
        ({"x": np.ones((2, 3), np.complex64)}, "element type"),
        ({"x": "text"}, "element type"),
        ({"nobody": 1.0}, "no node named"),
    ],
)
def test_bad_feeds_name_the_place(feeds: Any, message: str) -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, [None, 3], name="x")
        y = tf.exp(x)
    with tf.Session(graph) as session, pytest.raises(FeedError, match=message):
        session.run(y, feeds)


def test_foreign_tensors_and_closed_sessions() -> None:
    graph, other = tf.Graph(), tf.Graph()
    with other.as_default():
        y = tf.constant(1.0)
    session = tf.Session(graph)
    with pytest.raises(FeedError, match="another graph"):
        session.run(y)
    session.close()
    for use in (session.run, session.value, session.save, session.restore, session.load_values):
        with pytest.raises(ExecutionError, match="closed"):
            use("v")  # type: ignore[operator]


def model() -> tuple[tf.Graph, Any, Any, Any]:
    graph = tf.Graph()
    rng = np.random.default_rng(0)
    with graph.as_default():
        x = tf.placeholder(tf.float32, ["batch", 300], name="x")
        labels = tf.placeholder(tf.int64, ["batch"], name="labels")
        w1 = tf.Variable((rng.standard_normal((300, 200)) * 0.1).astype(np.float32), name="w1")
        w2 = tf.Variable((rng.standard_normal((200, 10)) * 0.1).astype(np.float32), name="w2")
        h = tf.nn.relu(x @ w1)
        loss = tf.mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=h @ w2))
        big = tf.sum(tf.exp(x * 0.1))
        train = tf.keras.optimizers.Adam(0.01).minimize(loss, var_list=[w1, w2])
    return graph, [loss, big, train], [x, labels], [w1, w2]


def test_the_same_bits_for_any_number_of_threads() -> None:
    graph, fetches, feeds, variables = model()
    rng = np.random.default_rng(1)
    data = [rng.standard_normal((600, 300)).astype(np.float32), rng.integers(0, 10, 600)]
    found = []
    for threads in (1, 2, 3, 8):
        with tf.Session(graph, threads=threads) as session:
            step = session.make_callable(fetches, feeds)
            losses = [step(*data)[:2] for _ in range(3)]
            found.append((np.array(losses).tobytes(), *(value.tobytes() for value in session.run(variables))))
    assert all(one == found[0] for one in found)


def test_one_compilation_serves_every_batch_size() -> None:
    graph, fetches, feeds, _ = model()
    with tf.Session(graph) as session:
        for batch in (1, 7, 64, 130, 0):
            data = {feeds[0]: np.ones((batch, 300), np.float32), feeds[1]: np.zeros(batch, np.int64)}
            session.run(fetches[:2], data)
        assert len(session._calls) == 1


def test_many_python_threads() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, ["n"], name="x")
        v = tf.Variable(0.0, name="v")
        count = v.assign_add(1.0)
        y = tf.sum(tf.tanh(x))
    with tf.Session(graph, threads=2) as session:
        expected = {n: session.run(y, {x: np.full(n, 0.5, np.float32)}) for n in (10, 1000, 100_000)}
        errors: list[Any] = []

        def work(n: int) -> None:
            try:
                for _ in range(50):
                    assert session.run(y, {x: np.full(n, 0.5, np.float32)}) == expected[n]
                    session.run(count)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in (10, 1000, 100_000, 1000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert session.run(v) == 200.0


def test_no_operator_runs_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every NumPy reference taken away a training step still runs."""
    from pierian.compiler.ops.definition import all_operators

    graph, fetches, feeds, _ = model()
    for op in all_operators():
        monkeypatch.setattr(op, "reference_rule", None)
    with tf.Session(graph) as session:
        data = {feeds[0]: np.ones((4, 300), np.float32), feeds[1]: np.zeros(4, np.int64)}
        first = session.run(fetches, data)[0]
        assert session.run(fetches, data)[0] < first


def test_checkpoint(tmp_path: Any) -> None:
    graph, fetches, feeds, variables = model()
    data = {feeds[0]: np.ones((4, 300), np.float32), feeds[1]: np.zeros(4, np.int64)}
    path = str(tmp_path / "c.safetensors")
    with tf.Session(graph) as session:
        session.run(fetches, data)
        session.save(path)
        saved = session.run(variables)
    with tf.Session(graph) as session:
        session.restore(path)
        for one, two in zip(saved, session.run(variables), strict=True):
            np.testing.assert_array_equal(one, two)
        with pytest.raises(FeedError):
            session.load_values({"w1": np.zeros(3, np.float32)})


def test_random_numbers_repeat_in_a_new_session_and_move_on_in_one() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.random.normal([1000])
    runs = []
    for _ in range(2):
        with tf.Session(graph, threads=2) as session:
            runs.append([session.run(x) for _ in range(2)])
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    assert not np.array_equal(runs[0][0], runs[0][1])
    assert abs(runs[0][0].mean()) < 0.15 and abs(runs[0][0].std() - 1) < 0.1


def test_without_knowledge_of_how_objects_lie_results_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another layout of Python's objects: everything is checked in Python then."""
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder("float32", ("n",), name="x")
        v = tf.Variable(np.arange(3, dtype=np.float32))
        fetches = [x * 2.0, tf.reduce_sum(x), v.assign(v[::-1] + 1.0)]
    sessions = [tf.Session(graph)]
    monkeypatch.setattr("pierian.runtime.executable.layout_holds", lambda: False)
    sessions.append(tf.Session(graph))
    for size in (4, 4, 5):
        given = np.linspace(0, 1, size, dtype=np.float32)
        first, second = (session.run(fetches, {x: given}) for session in sessions)
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, other)
        prepared = sessions[1].make_callable(fetches[0], [x])
        np.testing.assert_array_equal(prepared(list(given)), first[0])
        with pytest.raises(FeedError):
            prepared(given[None])


@pytest.mark.parametrize(
    ("build", "least"),
    [
        (lambda x: x[:5], 5), (lambda x: x[7], 8), (lambda x: x[-4], 4), (lambda x: x[-3:], 3), (lambda x: x[3:], 3),
        (lambda x: x[1:-1], 2), (lambda x: x[4::-2], 5), (lambda x: x[::-1], 0), (lambda x: x[1::3], 0),
        (lambda x: tf.sum(x[2:][:100_000]), 100_002), (lambda x: tf.gather(x, [0, 3]), 1),
        (lambda x: tf.pad(x, before=(0,), after=(x.shape[0] - 5,)), 3),
        (lambda x: tf.nn.conv1d(tf.reshape(x, (1, x.shape[0], 1)), np.ones((4, 1, 1), np.float32)), 3),
    ],
)  # fmt: skip
def test_open_sizes_that_are_too_small_are_refused(build: Any, least: int) -> None:
    """Nothing beyond an array is read, and no size is negative."""
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, [None], name="x")
        y = build(x)
    with tf.Session(graph) as session:
        call = session.make_callable(y, [x])
        for size in (least + 4, least, least + 1):
            call(np.ones(size, np.float32))
        for size in {0, least - 1} if least else ():
            for run in (call, lambda given: session.run(y, {x: given})):
                with pytest.raises(FeedError, match=r"(?s)a size is too small.*test_session.py.*x_0.*at least"):
                    run(np.ones(size, np.float32))


@pytest.mark.parametrize("given", [np.array([1, 2**40]), np.array([2**31], np.uint64), [-(2**31) - 1]], ids=str)
def test_integers_out_of_range_are_refused(given: Any) -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.int32, [None], name="x")
        y = x + 1
    with tf.Session(graph) as session:
        assert session.run(y, {x: np.array([2**31 - 2, -(2**31)])}).tolist() == [2**31 - 1, 1 - 2**31]
        with pytest.raises(FeedError, match="integers out of range"):
            session.run(y, {x: given})


def test_known_arrays_at_places_of_open_sizes() -> None:
    graph = tf.Graph()
    with graph.as_default():
        n = tf.placeholder(tf.float32, ["n"], name="x").shape[0]
        table = tf.constant(np.arange(4.0))
        two = tf.slice(table, begin=(n,), end=(n + 2,), step=(1,))
        fetches = [two, tf.slice(table, begin=(0,), end=(n,), step=(1,)), tf.pad(two, before=(n,), after=(2 - n,))]
    with tf.Session(graph) as session:
        for size in (0, 1, 2):
            found = session.run(fetches, {"x": np.ones(size, np.float32)})
            wanted = [size, size + 1], range(size), [0] * size + [size, size + 1] + [0] * (2 - size)
            assert [one.tolist() for one in found] == [list(one) for one in wanted]
        with pytest.raises(FeedError):
            session.run(fetches, {"x": np.ones(3, np.float32)})


def test_sequences_of_different_lengths_are_refused() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x, y = tf.placeholder(tf.float32, [None], name="x"), tf.placeholder(tf.float32, [None], name="y")
        total, _ = tf.scan(lambda s, v: (s + v[0] * v[1], s), tf.constant(0.0), [x, y])
        nine, _ = tf.scan(lambda s, v: (s + v, s), tf.constant(0.0), x, length=9)
    with tf.Session(graph) as session:
        assert session.run([total, nine], {x: np.ones(9, np.float32), y: np.ones(9, np.float32)}) == [9.0, 9.0]
        for one, other in ((5, 3), (3, 5)):
            with pytest.raises(FeedError, match="scan"):
                session.run(total, {x: np.ones(one, np.float32), y: np.ones(other, np.float32)})
        with pytest.raises(FeedError, match="scan"):
            session.run(nine, {x: np.ones(5, np.float32)})
