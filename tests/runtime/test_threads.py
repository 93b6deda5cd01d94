"""Threads: how many, for whom, and what they do when there is nothing to do."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.errors import ArgumentError
from pierian.compiler.target.machine import available_cpus, cgroup_quota, default_threads
from pierian.runtime import threads as pools
from pierian.runtime.results import ResultMemory
from pierian.runtime.threads import pool_address, thread_count

DATA = np.random.default_rng(0).standard_normal((64, 4096)).astype(np.float32)


def native_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def wide_call(threads: int | None, session_threads: int | None = 1) -> Any:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder("float32", [64, 4096], name="x")
        y = tf.reduce_sum(tf.exp(tf.tanh(x)), axis=1) + 1.0
    return tf.Session(graph, threads=session_threads).make_callable(y, [x], threads=threads)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return root


# --- how many ------------------------------------------------------------------------------------------------------


def test_the_environment_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIERIAN_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert default_threads() == available_cpus() == thread_count(None)
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    assert thread_count(None) == 5 and thread_count(3) == 3
    monkeypatch.setenv("PIERIAN_NUM_THREADS", "7")
    assert thread_count(None) == 7
    for wrong in ("0", "-1", "many"):
        monkeypatch.setenv("PIERIAN_NUM_THREADS", wrong)
        with pytest.raises(ArgumentError, match="PIERIAN_NUM_THREADS"):
            thread_count(None)
    for wrong_count in (0, 1.5, "2"):
        with pytest.raises(ArgumentError, match="positive whole number"):
            thread_count(wrong_count)  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity masks")
def test_affinity_counts() -> None:
    mask = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mask)})
        assert available_cpus() == 1
    finally:
        os.sched_setaffinity(0, mask)


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "350000 100000\n"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2),
        ("0::/a/b\n", {"cpu.max": "50000 100000\n", "a/b/cpu.max": "400000 100000\n"}, 1),
        ("0::/not/here\n", {"cpu.max": "200000 100000\n"}, 2),
        (
            "3:cpu,cpuacct:/d\n",
            {"cpu,cpuacct/d/cpu.cfs_quota_us": "-1", "cpu,cpuacct/d/cpu.cfs_period_us": "100000"},
            None,
        ),
        (
            "3:cpu,cpuacct:/d/e\n5:memory:/f\n",
            {"cpu/d/cpu.cfs_quota_us": "200000", "cpu/d/cpu.cfs_period_us": "100000", "cpu/d/e/cpu.cfs_quota_us": "-1"},
            2,
        ),
        ("1:cpu:/host/path\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ],
)
def test_quotas_of_control_groups(tmp_path: Path, groups: str, files: dict[str, str], quota: int | None) -> None:
    root = write(
        tmp_path, {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}
    )
    assert cgroup_quota(root) == quota


def test_threads_of_a_session_and_of_a_call() -> None:
    wanted = wide_call(1)(DATA)
    before = native_threads()
    call = wide_call(None, session_threads=4)
    assert call(DATA).tobytes() == wanted.tobytes()
    assert 4 in pools._POOLS and native_threads() <= before + 3
    assert wide_call(5)(DATA).tobytes() == wanted.tobytes() and 5 in pools._POOLS
    assert wide_call(2)(DATA).tobytes() == wanted.tobytes() and len(pools._POOL) == 1
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder("float32", [64, 4096], name="x")
        y = tf.reduce_sum(tf.exp(tf.tanh(x)), axis=1) + 1.0
    with tf.Session(graph, threads=1) as session:
        for threads in (1, 2, 3, 8, None):
            assert session.run(y, {x: DATA}, threads=threads).tobytes() == wanted.tobytes()
        with pytest.raises(ArgumentError):
            session.run(y, {x: DATA}, threads=0)


def test_small_work_starts_no_threads() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder("float32", [None, 64], name="x")
        y = tf.reduce_sum(tf.tanh(x), axis=1)
    with tf.Session(graph, threads=11) as session:
        session.run(y, {x: np.ones((3, 64), np.float32)})
        assert 11 not in pools._POOLS
        session.run(y, {x: np.ones((30000, 64), np.float32)})
        assert 11 in pools._POOLS


# --- many at once --------------------------------------------------------------------------------------------------


def test_many_sessions_share_one_pool_and_never_the_same_memory() -> None:
    calls = [wide_call(threads) for threads in (2, 3)]
    large = tf.Graph()
    with large.as_default():
        x = tf.placeholder("float32", [64, 4096], name="x")
        y = x + 1.0
    grow = tf.Session(large, threads=2).make_callable(y, [x])
    wanted = calls[0](DATA).tobytes()
    before = native_threads()
    wrong: list[Any] = []
    most = [0]

    def work(number: int) -> None:
        fed = np.full((64, 4096), number, np.float32)
        for _ in range(30):
            if calls[number % 2](DATA).tobytes() != wanted:
                wrong.append(number)
            first, second = grow(fed), grow(fed)
            if first.min() != number + 1 or second.max() != number + 1 or first.ctypes.data % 64:
                wrong.append(number)
            most[0] = max(most[0], native_threads())

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert most[0] <= before + len(workers) + 2  # the pool's threads may have been started meanwhile, no others


def test_memory_of_a_dropped_result_serves_again_and_that_of_a_kept_one_does_not() -> None:
    memory, dtype = ResultMemory(), np.dtype(np.float32)
    first = memory.maker((512, 256), dtype)()
    place = first.ctypes.data
    part = first[3:]
    del first
    assert memory.maker((512, 256), dtype)().ctypes.data != place
    del part
    assert place in [array.ctypes.data for array in [memory.maker((512, 256), dtype)() for _ in range(3)]]
    for size in range(1000):
        memory.maker((40_000 + size,), dtype)()
    assert len(memory._blocks) <= 256


def test_of_several_free_blocks_the_one_used_last_serves_again() -> None:
    make = ResultMemory().maker((512, 256), np.dtype(np.float32))
    held = [make() for _ in range(4)]
    places = [array.ctypes.data for array in held]
    del held[1]
    assert make().ctypes.data == places[1]
    held.clear()
    # What is in the caches stays there, run after run.
    assert [make().ctypes.data for _ in range(6)] == [places[1]] * 6
    kept = make()
    others = [make().ctypes.data for _ in range(6)]
    assert kept.ctypes.data == places[1] and len(set(others)) == 1 and others[0] in places


# --- rest ----------------------------------------------------------------------------------------------------------


def test_the_pool_sleeps_when_idle() -> None:
    call = wide_call(3)
    for _ in range(20):
        call(DATA)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


def test_a_pool_whose_time_is_over_leaves_no_thread() -> None:
    call = wide_call(6)
    wanted = call(DATA).tobytes()
    before = native_threads()
    pools.close_pools()
    assert native_threads() < before and not pools._POOLS
    assert call(DATA).tobytes() == wanted and pool_address(1) == 0
    assert list(pools._POOLS) == [6]


# --- child processes -----------------------------------------------------------------------------------------------


def child_result(queue: Any) -> None:
    queue.put(wide_call(2)(DATA).tobytes())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_makes_its_own_pool() -> None:
    call = wide_call(2)
    wanted = call(DATA).tobytes()
    child = os.fork()
    if child == 0:
        alone = native_threads()
        good = call(DATA).tobytes() == wanted and wide_call(3)(DATA).tobytes() == wanted
        deadline = time.monotonic() + 10
        while native_threads() != 3 and time.monotonic() < deadline:
            time.sleep(0.01)  # threads that have compiled are listed for a moment after their end
        os._exit(0 if good and alone == 1 and native_threads() == 3 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert call(DATA).tobytes() == wanted
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child_result, args=(queue,))
    process.start()
    assert queue.get(timeout=60) == wanted
    process.join(60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_waits_for_runs_that_assign() -> None:
    """What another thread was writing is whole in the child, and free."""
    graph = tf.Graph()
    with graph.as_default():
        v = tf.Variable(np.zeros(100_000, np.float32), name="v")
        step = v.assign_add(tf.ones_like(v))
    session = tf.Session(graph, threads=1)
    done: list[bool] = []

    def train() -> None:
        while not done:
            session.run(step)

    trainer = threading.Thread(target=train)
    trainer.start()
    results = []
    try:
        for _ in range(10):
            time.sleep(0.01)
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # ends a child that waits for ever
                before = session.value(v)
                session.run(step)
                after = session.value(v)
                os._exit(0 if len(np.unique(before)) == 1 and np.array_equal(after, before + 1) else 1)
            results.append(os.waitpid(child, 0)[1])
    finally:
        done.append(True)
        trainer.join()
    assert results == [0] * 10


def test_a_spawned_child_gives_the_same_bits() -> None:
    program = "import sys; sys.path.insert(0, sys.argv[1]); import test_threads as t; print(t.wide_call(2)(t.DATA).tobytes().hex())"
    command = [sys.executable, "-c", program, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert bytes.fromhex(done.stdout.strip()) == wide_call(2)(DATA).tobytes()
