"""Locks and forks.

A child process has one thread, the one that forked. What another thread held would be locked there for ever, and what it was
writing half done. So a fork waits for the locks made here, and holds them on its way: the child finds them free, and what they
guard whole.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

_LOCKS: weakref.WeakSet[Any] = weakref.WeakSet()
_FORKING = threading.RLock()  # held by the thread that forks
_HELD: list[Any] = []  # by the fork under way


def lock_across_forks() -> Any:
    """A reentrant lock that forks wait for."""
    lock = threading.RLock()
    _LOCKS.add(lock)
    return lock


def _hold_all() -> None:
    """Take all locks or none, again and again: to wait for one while holding others could wait for ever."""
    _FORKING.acquire()
    while True:
        for lock in list(_LOCKS):
            if not lock.acquire(blocking=False):
                break
            _HELD.append(lock)
        else:
            return
        _let_go()
        with lock:
            pass


def _let_go() -> None:
    while _HELD:
        _HELD.pop().release()


def _go_on() -> None:
    _let_go()
    _FORKING.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_all, after_in_parent=_go_on, after_in_child=_go_on)
