"""What this machine can do at best, measured once in a process by code of our own: multiply-adds, and bytes read from the last cache
and from memory. These are figures of a moment, on a machine that others may use: percentages of them are good to a few points."""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pierian.compiler.codegen.link import link_if_known
from pierian.compiler.codegen.module import to_object
from pierian.compiler.codegen.probe import READ, flops_per_turn, probe_text
from pierian.compiler.cost import Peak
from pierian.compiler.target.features import host
from pierian.runtime.loader import Code, load
from pierian.runtime.memory import aligned_empty

# Seconds of one measurement, and how many the best is taken of.
_SECONDS = 0.004
_TRIES = 4
# What is read from memory takes so many times the last cache, but no more than this.
_BEYOND = 3
_MOST = 256 << 20


@functools.lru_cache(maxsize=8)
def measured_peak(threads: int = 1) -> Peak:
    """The peak of so many threads together: arithmetic of one thread times their number, bytes that all read at once. Takes about a
    third of a second the first time."""
    target, code = host(), _code()
    flops = _function(code, "pierian_probe_flops", 2)
    read = _function(code, "pierian_probe_read", 4)
    turns = 20_000

    def multiply(out: int, _: int) -> None:
        flops(turns, out)

    while _once(1, multiply) < _SECONDS:
        turns *= 2
    rate = threads * turns * flops_per_turn(target) / _best(1, multiply)
    # Each thread reads a part of its own. What stays in the last cache must be too large for the nearer ones.
    near = max(min(target.l3 // 2, 4 * target.l2 * threads), 2 * target.l2)
    far = min(_BEYOND * max(target.l3, target.l2), _MOST)
    data = aligned_empty((far // 4,), np.dtype(np.float32))
    data[:] = 1.0
    speeds = [_reading(threads, read, data, size) for size in (near, far)]
    return Peak(rate, speeds[0], speeds[1], target.l3 // 2, f"measured, threads: {threads}")


def _reading(threads: int, read: Any, data: Any, size: int) -> float:
    part = size // threads // READ * READ
    begins = [data.ctypes.data + i * part for i in range(threads)]
    turns = max(1, int(_SECONDS * 10e9 / part))

    def work(out: int, number: int) -> None:
        read(begins[number], part, turns, out)

    _once(threads, work)
    return threads * part * turns / _best(threads, work)


@functools.lru_cache(maxsize=1)
def _code() -> Code:
    objects = [to_object(probe_text(host()), host())]
    return load(objects, link_if_known(objects))


def _function(code: Code, name: str, words: int) -> Any:
    return ctypes.CFUNCTYPE(None, *[ctypes.c_size_t] * words)(code.address(name))


def _best(threads: int, work: Callable[[int, int], None]) -> float:
    return min(_once(threads, work) for _ in range(_TRIES))


def _once(threads: int, work: Callable[[int, int], None]) -> float:
    """Seconds that all threads take together; the calls give up Python's lock."""
    outs = np.full((threads, 16), 0.5, np.float32)
    if threads == 1:
        begin = time.perf_counter()
        work(outs[0].ctypes.data, 0)
        return time.perf_counter() - begin
    ready = threading.Barrier(threads + 1)

    def run(number: int) -> None:
        ready.wait()
        work(outs[number].ctypes.data, number)

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    ready.wait()
    begin = time.perf_counter()
    for worker in workers:
        worker.join()
    return time.perf_counter() - begin
