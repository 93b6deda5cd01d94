"""The process's native thread pool, made when first needed and shared by all sessions, each with the share it asks for: however many
sessions run at once, and whatever they ask for, no more threads work than the largest share has, besides the callers."""

from __future__ import annotations

import ctypes
import operator
import os
import threading
import weakref
from typing import Protocol

from pierian.compiler.errors import ArgumentError
from pierian.compiler.target.machine import default_threads

_LOCK = threading.Lock()
_POOL: list[int] = []  # its address, once there is one
_POOLS: dict[int, int] = {}  # threads -> address of a share
_SHARES: dict[int, ctypes.Array[ctypes.c_size_t]] = {}  # their memory
_USERS: weakref.WeakSet[UsesThreads] = weakref.WeakSet()


def thread_count(requested: int | None = None) -> int:
    """How many threads to use: the request, `PIERIAN_NUM_THREADS`, `OMP_NUM_THREADS`, or the CPUs this process may use.

    Raises:
        ArgumentError: not a positive whole number.
    """
    if requested is not None:
        try:
            count = operator.index(requested)
        except TypeError:
            count = 0
        if count < 1:
            raise ArgumentError("the number of threads must be a positive whole number", got=repr(requested))
        return count
    return default_threads()


def pool_address(threads: int) -> int:
    """The share with that many threads; 0 for a single thread, which needs none."""
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
    """A share of the pool, which gets more threads if it has fewer."""
    from pierian.compiler.codegen.threads import CORE, PARALLEL, SHARE, THREADS
    from pierian.runtime.executable import pool_function

    if not _POOL:
        create = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int64)(pool_function("pool_create"))
        pool = create(threads)
        if not pool:
            return 0
        _POOL.append(pool)
    grow = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(pool_function("pool_grow"))
    fields = {PARALLEL: pool_function("parallel"), THREADS: grow(_POOL[0], threads), CORE: _POOL[0]}
    share = (ctypes.c_size_t * (SHARE // 8))(*(fields[at] for at in range(0, SHARE, 8)))
    _SHARES[threads] = share
    return ctypes.addressof(share)


def close_pools() -> None:
    """End all workers, while nothing runs. Sessions that are used again make a new pool."""
    from pierian.runtime.executable import pool_function

    with _LOCK:
        for user in list(_USERS):
            user.forget_threads()
        if _POOL:
            ctypes.CFUNCTYPE(None, ctypes.c_void_p)(pool_function("pool_destroy"))(_POOL[0])
        _forget()


def _forget() -> None:
    _POOL.clear()
    _POOLS.clear()
    _SHARES.clear()


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
    _forget()
    for user in list(_USERS):
        user.forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
