"""Modules to object code on several threads, while the next ones are being written.

LLVM runs outside the interpreter's lock, so modules compile beside one another and beside the Python that writes them. Objects come
back in the order of the modules; a module's object depends on its text alone. All emissions of the process together keep at most as
many threads in LLVM as it has CPUs.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType

from pierian.compiler.target.features import Target
from pierian.compiler.target.llvm import LEVEL, Emitter
from pierian.compiler.target.machine import default_threads

_RUNNING: threading.Semaphore | None = None
_LOCK = threading.Lock()


class Emission:
    """Compiles modules in the background; use it in a `with` statement.

    Args:
        target: the machine to compile for.
        threads: how many threads compile, the caller's among them; default as many as kernels would use.
    """

    def __init__(self, target: Target, threads: int | None = None) -> None:
        self._target = target
        self._helpers = (threads or default_threads()) - 1
        self._running = _running()
        self._texts: list[str] = []
        self._levels: list[int] = []
        self._objects: dict[int, bytes] = {}
        self._errors: dict[int, BaseException] = {}
        self._workers: list[threading.Thread] = []
        self._waiting: list[int] = []  # modules nobody has taken yet
        self._closed = False
        self._changed = threading.Condition()

    def add(self, text: str, level: int = LEVEL) -> None:
        """Compile a module's text, at a level of optimization, as soon as a thread is free."""
        with self._changed:
            self._waiting.append(len(self._texts))
            self._texts.append(text)
            self._levels.append(level)
            self._changed.notify()
        if len(self._workers) < min(self._helpers, len(self._texts)):
            worker = threading.Thread(target=self._work, name="pierian-compile", daemon=True)
            self._workers.append(worker)
            worker.start()

    def objects(self) -> list[bytes]:
        """The object files of all modules, in order; the caller helps until all are done.

        Raises:
            LoweringError: LLVM refused a module.
        """
        self._close()
        self._work()
        for worker in self._workers:
            worker.join()
        for number in sorted(self._errors):
            raise self._errors[number]
        return [self._objects[number] for number in range(len(self._texts))]

    def __enter__(self) -> Emission:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._waiting.clear()  # after an error nobody wants the rest
        self._close()
        for worker in self._workers:
            worker.join()

    def _close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self) -> int | None:
        """The longest module that waits, so that no long one is left for the end; None when there will be no more."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            number = max(self._waiting, key=lambda waiting: (len(self._texts[waiting]), -waiting))
            self._waiting.remove(number)
            return number

    def _work(self) -> None:
        emitters: dict[int, Emitter] = {}
        while (number := self._take()) is not None:
            try:
                with self._running:
                    level = self._levels[number]
                    emitter = emitters.get(level) or emitters.setdefault(level, Emitter(self._target, level))
                    self._objects[number] = emitter.emit(self._texts[number])
            except BaseException as error:
                self._errors[number] = error


def _running() -> threading.Semaphore:
    """Counts the threads in LLVM."""
    global _RUNNING
    with _LOCK:
        if _RUNNING is None:
            _RUNNING = threading.Semaphore(default_threads())
        return _RUNNING


def _after_fork() -> None:
    """The threads that held these do not exist in a child process."""
    global _RUNNING, _LOCK
    _RUNNING, _LOCK = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
