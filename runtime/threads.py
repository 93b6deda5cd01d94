"""The process's native thread pools: one for each number of threads, made when first needed, shared by all sessions."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from typing import Protocol

from pierian.compiler.errors import ArgumentError
from pierian.compiler.target.machine import default_threads

_LOCK = threading.Lock()
_POOLS: dict[int, int] = {}  # threads -> address
_USERS: weakref.WeakSet[UsesThreads] = weakref.WeakSet()


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
    """End all workers, while nothing runs. Sessions that are used again make new pools."""
    from pierian.runtime.executable import pool_functions

    with _LOCK:
        for user in list(_USERS):
            user.forget_threads()
        if _POOLS:
            _, destroy = pool_functions()
            for address in _POOLS.values():
                ctypes.CFUNCTYPE(None, ctypes.c_void_p)(destroy)(address)
            _POOLS.clear()


class UsesThreads(Protocol):
    """Something that knows the address of a pool."""

    def forget_threads(self) -> None:
        """Called where the pool's threads do not exist any more: in a child process, and when pools are closed."""
        ...


def tell_when_gone(user: UsesThreads) -> None:
    """Have `forget_threads` called in time while the object lives."""
    _USERS.add(user)


def _after_fork() -> None:
    """Workers do not exist in a child process; their memory is left alone."""
    global _LOCK
    _LOCK = threading.Lock()
    _POOLS.clear()
    for user in list(_USERS):
        user.forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
