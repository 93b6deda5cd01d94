"""Prepared calls: a compiled graph bound to its state, ready to be called with arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pierian.compiler.errors import FeedError
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Value
from pierian.compiler.options import CompileOptions
from pierian.runtime.bind import as_array, solve_sizes
from pierian.runtime.compilation import NO_VALUES, Runnable, compile_for_calls
from pierian.runtime.executable import Executable
from pierian.runtime.variables import Access, Store

if TYPE_CHECKING:
    from pierian.compiler.compile import Compiled

Array = np.ndarray[Any, Any]


class PreparedCall:
    """Calls native code with feeds, and with the variables of a store where the graph has state.

    Results are fresh arrays of the caller's. The call is safe from many threads; calls that assign variables run
    one after the other.

    Attributes:
        plain: for graphs without state, what gives the results for a tuple of arrays that fit as they are, else None.
    """

    def __init__(self, compiled: Runnable | Compiled, store: Store | None, threads: int | None = None) -> None:
        signature = compiled.signature
        self.compiled = compiled
        self.executable = Executable(compiled.image, compiled.program, threads, len(signature.assigns))
        self._run = self.executable.run
        self._types = [type_ for _, type_ in (*signature.feeds, *signature.reads)]
        self._names = [name for name, _ in (*signature.feeds, *signature.reads)]
        self._feeds = len(signature.feeds)
        self._fetches = len(signature.fetches)
        outputs = compiled.program.outputs[len(signature.fetches) :]
        self._access = Access(
            [name for name, _ in signature.reads],
            [name for name, _ in signature.assigns],
            [name in compiled.program.in_place for name in outputs],
        )
        stateful = store is not None and bool(signature.reads or signature.assigns)
        self.plain = None if stateful else self.executable.run
        self._store = store

    def __call__(self, feeds: Sequence[Any]) -> list[Array]:
        """The fetched arrays for these feeds.

        Raises:
            FeedError: feeds that do not fit; no variable is changed.
        """
        store = self._store
        if store is None or self.plain is not None:
            return self._call(tuple(feeds))
        access = self._access
        if not access.assigns:
            return self._call((*feeds, *store.values(access.reads)))
        with store.lock:
            try:
                values, targets, commit = store.begin(access)
                results = self._call((*feeds, *values), targets, commit)
            finally:
                store.end()
        return results[: self._fetches]

    def _call(
        self, inputs: tuple[Any, ...], targets: Sequence[Array] = (), commit: Callable[[], Any] | None = None
    ) -> list[Array]:
        results = self._run(inputs, targets, commit)
        return results if results is not None else self._call_slowly(inputs, targets, commit)

    def _call_slowly(
        self, inputs: tuple[Any, ...], targets: Sequence[Array], commit: Callable[[], Any] | None
    ) -> list[Array]:
        """Inputs the fast path refused: convert what converts, explain what does not fit."""
        if len(inputs) != len(self._types):
            raise FeedError(
                "wrong number of feeds",
                got=len(inputs) - len(self._access.reads),
                expected=", ".join(self._names[: self._feeds]),
            )
        arrays = tuple(
            as_array(given, type_, name) for given, type_, name in zip(inputs, self._types, self._names, strict=True)
        )
        solve_sizes(self._types, arrays, self._names, self.compiled.program.checks)
        results = self._run(arrays, targets, commit)
        if results is None:
            raise FeedError("the fed arrays do not fit the program", got=", ".join(str(a.shape) for a in arrays))
        return results


def prepare(
    graph: Graph,
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    threads: int | None = None,
    options: CompileOptions | None = None,
    reads: Mapping[str, Value] = NO_VALUES,
    assigns: Mapping[str, Value] = NO_VALUES,
    store: Store | None = None,
) -> PreparedCall:
    """Compile a graph without variables of its own; the result takes the inputs' arrays and gives the outputs'.

    `reads` are inputs whose values come from a store, and `assigns` outputs that go there, by the names of its variables.
    """
    compiled = compile_for_calls(graph, options, feeds=inputs, fetches=outputs, reads=reads, assigns=assigns)
    return PreparedCall(compiled, store, threads)
