"""The process's native thread pools: one for each number of threads, made when first needed, shared by all sessions."""

from __future__ import annotations

import ctypes
import os
import threading

from pierian.compiler.errors import ArgumentError
from pierian.compiler.target.machine import default_threads

_LOCK = threading.Lock()
_POOLS: dict[int, int] = {}  # threads -> address


def thread_count(requested: int | None = None) -> int:
    """How many threads to use: the request, `PIERIAN_NUM_THREADS`, `OMP_NUM_THREADS`, or the CPUs this process may use.

    Raises:
        ArgumentError: not a positive number.
    """
    if requested is not None:
        if requested < 1:
            raise ArgumentError("the number of threads must be positive", got=requested)
        return requested
    return default_threads()


def pool_address(threads: int) -> int:
    """The pool with that many threads; 0 for a single thread, which needs none."""
    if threads <= 1:
        return 0
    found = _POOLS.get(threads)
    if found is None:
        with _LOCK:
            found = _POOLS.get(threads)
            if found is None:
                found = _POOLS[threads] = _create(threads)
    return found


def _create(threads: int) -> int:
    from pierian.runtime.executable import pool_functions

    create, _ = pool_functions()
    return ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int64)(create)(threads) or 0


def close_pools() -> None:
    """End all workers. Sessions that are used again make new pools."""
    from pierian.runtime.executable import pool_functions

    with _LOCK:
        if _POOLS:
            _, destroy = pool_functions()
            for address in _POOLS.values():
                ctypes.CFUNCTYPE(None, ctypes.c_void_p)(destroy)(address)
            _POOLS.clear()


def _after_fork() -> None:
    """Workers do not exist in a child process; their memory is left alone."""
    global _LOCK
    _LOCK = threading.Lock()
    _POOLS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
