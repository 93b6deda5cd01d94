"""The law of transactions while variables are updated in place: failing runs, readers, interrupts, arrays handed out."""

from __future__ import annotations

import signal
import sys
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.errors import FeedError


def counting(size: int) -> tuple[tf.Graph, Any, Any, Any, Any]:
    """Two variables that are equal after every run; the one is updated in place, the other cannot be."""
    graph = tf.Graph()
    with graph.as_default():
        n = tf.placeholder(tf.float32, ["n"], name="n")
        m = tf.placeholder(tf.float32, ["m"], name="m")
        a = tf.Variable(np.zeros(size, np.float32), name="a")
        b = tf.Variable(np.zeros(size, np.float32), name="b")
        step = tf.group(a.assign_add(tf.reduce_mean(n + m)), b.assign(tf.flip(b, axis=0) + tf.reduce_mean(n + m)))
    return graph, step, a, b, (n, m)


HALVES = (np.full(2, 0.5, np.float32), np.full(2, 0.5, np.float32))


def test_in_place_means_the_same_array() -> None:
    graph, step, _, _, feeds = counting(1000)
    with tf.Session(graph) as session:
        run = session.make_callable(step, feeds)
        places = []
        for _ in range(5):
            run(*HALVES)
            places.append({name: array.ctypes.data for name, array in session._store._current.items()})
        assert len({one["a"] for one in places}) == 1
        # The other one has two arrays that change roles.
        first, second = places[0]["b"], places[1]["b"]
        assert [one["b"] for one in places] == [first, second, first, second, first] and first != second


def test_a_refused_run_changes_nothing() -> None:
    graph, step, a, b, feeds = counting(1000)
    bad = [(HALVES[0], np.ones(3, np.float32)), (np.ones(2, complex), HALVES[1]), (HALVES[0],), ("text", HALVES[1])]
    with tf.Session(graph) as session:
        run = session.make_callable(step, feeds)
        for count in range(1, 4):
            run(*HALVES)
            for arguments in bad:
                with pytest.raises((FeedError, TypeError, IndexError)):
                    run(*arguments)
            np.testing.assert_array_equal(session.run(a), np.full(1000, count))
            np.testing.assert_array_equal(session.value(b), np.full(1000, count))


def test_what_was_fetched_does_not_change_later() -> None:
    graph = tf.Graph()
    with graph.as_default():
        v = tf.Variable(np.zeros(50_000, np.float32), name="v")
        step = v.assign_add(1.0)
        double = v * 2.0
    with tf.Session(graph) as session:
        held = [session.run([v, step, double]), session.value(v), session.run(v), session._store.values(["v"])[0]]
        copies = [np.copy(one) for one in held[0]] + [np.copy(one) for one in held[1:]]
        for _ in range(3):
            session.run(step)
        for one, copy in zip([*held[0], *held[1:]], copies, strict=True):
            np.testing.assert_array_equal(one, copy)
        assert session.run(v)[0] == 4.0
        session.load_values({"v": np.ones(50_000, np.float32)})
        assert session.run(step)[7] == 2.0 and session.run(v)[7] == 2.0
        session.initialize()
        assert session.run(v)[0] == 0.0


def test_readers_see_one_moment() -> None:
    """Every reader finds all elements of both variables equal, and values never go back."""
    graph, step, a, b, feeds = counting(40_000)
    with graph.as_default():
        seen = [tf.reduce_min(a), tf.reduce_max(a), tf.reduce_min(b), tf.reduce_max(b)]
    errors: list[Any] = []
    with tf.Session(graph, threads=2) as session:
        run, look = session.make_callable(step, feeds), session.make_callable(seen)
        look()

        def write() -> None:
            for _ in range(150):
                run(*HALVES)

        def read() -> None:
            last = 0.0
            while last < 300.0 and not errors:
                found = {float(one) for one in look()}
                if len(found) != 1 or not last <= min(found):
                    errors.append((last, found))
                last = max(found)

        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        threads = [threading.Thread(target=work) for work in (write, read, write, read)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        sys.setswitchinterval(before)
        assert not errors
        assert session.run([a, b])[0][0] == 300.0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_an_interrupt_finds_all_of_a_run_or_nothing() -> None:
    graph, step, a, b, feeds = counting(300)

    class Interrupt(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupt

    with tf.Session(graph, threads=1) as session:
        run = session.make_callable(step, feeds)
        run(*HALVES)
        handler = signal.signal(signal.SIGALRM, interrupt)
        try:
            for turn in range(300):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 1e-5 + 1e-6 * (turn % 60))
                    while True:
                        run(*HALVES)
                except Interrupt:
                    pass
                one, other = session.value(a), session.value(b)
                assert one[0] == one[-1] == other[0] == other[-1] and np.ptp(one) == np.ptp(other) == 0
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)


def test_memory_begins_at_cache_lines_and_goes_with_the_session() -> None:
    graph, step, a, _, feeds = counting(50_000)
    session = tf.Session(graph, threads=1)
    run = session.make_callable([step, a], feeds)
    fetched = run(*HALVES)[1]
    held = [*session._store._current.values(), *session._store._spare.values()]
    assert all(array.ctypes.data % 64 == 0 for array in [*held, fetched])
    (call,) = session._calls.values()
    blocks = [weakref.ref(array.base) for array in held]
    blocks += [weakref.ref(slot.workspace) for slot in call.executable._slots]
    del held
    session.close()
    assert all(block() is None for block in blocks)
    np.testing.assert_array_equal(fetched, np.zeros(50_000))
