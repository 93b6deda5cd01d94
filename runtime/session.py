"""The Session: runs parts of a graph with feeds, and keeps the graph's variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pierian.compiler.errors import ExecutionError, FeedError
from pierian.compiler.forks import lock_across_forks
from pierian.compiler.frozen import replace
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Value
from pierian.compiler.options import CompileOptions
from pierian.runtime import checkpoint
from pierian.runtime.callable import PreparedCall
from pierian.runtime.compilation import Runnable, compile_for_calls
from pierian.runtime.fetches import Rebuild, flatten, resolve
from pierian.runtime.hooks import default_graph
from pierian.runtime.variables import VariableStore

if TYPE_CHECKING:
    from pierian.compiler.compile import Compiled
    from pierian.runtime.profile import Profile

Array = np.ndarray[Any, Any]
# Requests that a session remembers: some are made of objects that live for one run, such as a group.
MOST_KNOWN = 1024


class Session:
    """Runs a graph.

    Args:
        graph: what to run; default the current default graph.
        threads: how many threads kernels may use; default `PIERIAN_NUM_THREADS`, else the CPUs this process may use.
            Results do not depend on it.
        options: what the compiler does.

    A run is a transaction: it reads every variable as it was before the run, and its assignments take effect
    together when it has succeeded. Sessions may be used from many threads. The graph may grow between runs.

    >>> with Session(graph) as session:
    ...     session.run([loss, accuracy], feed_dict={x: batch})
    """

    def __init__(
        self, graph: Graph | None = None, threads: int | None = None, options: CompileOptions | None = None
    ) -> None:
        if graph is None:
            graph = default_graph()
            if graph is None:
                raise FeedError("a Session needs a graph")
        self.graph = graph
        self.threads = threads
        self._options = options
        self._store = VariableStore(graph)
        self._compiled: dict[tuple[Any, ...], Runnable | Compiled] = {}
        self._calls: dict[tuple[Any, ...], PreparedCall] = {}  # for each number of threads
        self._known: dict[tuple[Any, ...], tuple[PreparedCall, Rebuild]] = {}  # by what `run` was asked for before
        self._compiling = lock_across_forks()
        self._closed = False

    def run(
        self,
        fetches: Any,
        feed_dict: Mapping[Any, Any] | None = None,
        profile: Profile | None = None,
        threads: int | None = None,
    ) -> Any:
        """Compute `fetches`, a tensor, name or variable, or nested lists, tuples and dicts of them.

        Args:
            fetches: what to compute; the result has the same structure.
            feed_dict: arrays by tensor or name; any tensor of the graph may be fed, not only placeholders.
            profile: takes the time of every kernel of this run (see `pierian.runtime.profile`).
            threads: how many threads this run may use; default the session's.

        Arrays are read where they lie if they are NumPy arrays, or of any library that speaks DLPack, of the wanted element type, in
        C order, aligned, in the CPU's memory; everything else is copied first. Results are NumPy arrays of the caller's own.

        Raises:
            FeedError: a fetch or feed that is not in the graph, does not fit, or is missing. Nothing has changed.
        """
        feed_dict = feed_dict or {}
        asked = _request(fetches, feed_dict, self.threads if threads is None else threads)
        try:
            known = self._known.get(asked) if profile is None else None
        except TypeError:  # what is nested does not hash
            known = None
        if known is not None:
            call, rebuild = known
            return rebuild(call(tuple(feed_dict.values())))
        self._check_open()
        specials: list[Any] = []
        values, effects, rebuild = flatten(self.graph, fetches, lambda item: _special(item, specials))
        feeds = {resolve(self.graph, key): given for key, given in feed_dict.items()}
        for special in specials:
            special.run_in_session(self)
        if not values and not effects:
            return rebuild([])
        call = self._call(tuple(feeds), tuple(values), tuple(effects), profile is not None, threads)
        if profile is not None:
            return rebuild(profile.measure(call, tuple(feeds.values())))
        if not specials and len(feeds) == len(feed_dict) and _is_flat(asked):
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[asked] = call, rebuild
        return rebuild(call(tuple(feeds.values())))

    def make_callable(
        self, fetches: Any, feed_list: Sequence[Any] = (), threads: int | None = None
    ) -> Callable[..., Any]:
        """A function of the feeds, in the order of `feed_list`, that gives what `run` would; the fastest way to run the same thing
        many times. The graph is compiled here. Its calls may use `threads` threads, by default the session's."""
        self._check_open()
        values, effects, rebuild = flatten(self.graph, fetches)
        feeds = tuple(resolve(self.graph, item) for item in feed_list)
        call = self._call(feeds, tuple(values), tuple(effects), threads=threads)
        return _prepared_function(self, call, rebuild, isinstance(fetches, Value) and fetches.type.rank > 0)

    def compiled(self, fetches: Any, feeds: Sequence[Any] = ()) -> Any:
        """The stages of compilation for these fetches and feeds: graph, kernels, plan, native code."""
        from pierian.compiler.compile import compile_graph

        self._check_open()
        values, effects, _ = flatten(self.graph, fetches)
        inputs = tuple(resolve(self.graph, item) for item in feeds)
        return compile_graph(self.graph, self._options, feeds=inputs, fetches=values, effects=effects)

    # --- variables ------------------------------------------------------------------------------------------

    def value(self, variable: Any) -> Array:
        """A copy of the current value of a variable, given itself or its name."""
        self._check_open()
        return self._store.value(variable if isinstance(variable, str) else variable.name).copy()

    def initialize(self) -> None:
        """Every variable back to its initial value."""
        self._check_open()
        self._store.reset()

    def load_values(self, values: Mapping[str, Any]) -> None:
        """Give variables values by name; all or none.

        Raises:
            FeedError: an unknown name, or a value that does not fit.
        """
        self._check_open()
        self._store.load(values)

    def save(self, path: str) -> None:
        """Write all variables to a safetensors file, atomically."""
        self._check_open()
        names = list(self.graph.variables)
        checkpoint.save(path, dict(zip(names, self._store.values(names), strict=True)))

    def restore(self, path: str, partial: bool = False) -> list[str]:
        """Read variables from a safetensors file; returns the names that were set.

        Args:
            path: the file.
            partial: whether variables may be missing from the file, or the file have others.

        Raises:
            FeedError: names or shapes do not fit; nothing has changed.
            FormatError: the file is malformed.
        """
        self._check_open()
        found = checkpoint.load(path)
        if partial:
            found = {name: array for name, array in found.items() if name in self.graph.variables}
        else:
            missing = sorted(set(self.graph.variables) - set(found))
            if missing:
                raise FeedError("the checkpoint lacks variables", where=path, got=", ".join(missing[:10]))
        self._store.load(found)
        return list(found)

    # --- life -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Free compiled code and variables; the session cannot run any more."""
        self._closed = True
        for call in self._calls.values():
            call.executable.close()
        self._calls.clear()
        self._known.clear()
        self._compiled.clear()
        self._store.close()

    def __enter__(self) -> Session:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ExecutionError("this Session is closed")

    def _call(
        self,
        feeds: tuple[Value, ...],
        fetches: tuple[Value, ...],
        effects: tuple[Value, ...],
        measured: bool = False,
        threads: int | None = None,
    ) -> PreparedCall:
        key = (feeds, fetches, effects, measured)
        threads = self.threads if threads is None else threads
        found = self._calls.get((key, threads))
        if found is None:
            with self._compiling:
                found = self._calls.get((key, threads))
                if found is None:
                    if key not in self._compiled:
                        self._compiled[key] = self._compile(*key)
                    found = self._calls[key, threads] = PreparedCall(self._compiled[key], self._store, threads)
        return found

    def _compile(
        self, feeds: tuple[Value, ...], fetches: tuple[Value, ...], effects: tuple[Value, ...], measured: bool
    ) -> Runnable | Compiled:
        if not measured:
            return compile_for_calls(self.graph, self._options, feeds=feeds, fetches=fetches, effects=effects)
        from pierian.compiler.compile import compile_graph

        options = replace(self._options or CompileOptions(), profile=True)
        return compile_graph(self.graph, options, feeds=feeds, fetches=fetches, effects=effects)


def _request(fetches: Any, feed_dict: Mapping[Any, Any], threads: int | None) -> tuple[Any, ...]:
    """What a run is asked for, without the arrays: equal requests are answered by the same call where they are flat."""
    kind = type(fetches)
    if kind is dict:
        return tuple(fetches), threads, len(fetches), *fetches.values(), *feed_dict
    listed = fetches if kind is list or kind is tuple else (fetches,)
    return kind, threads, len(listed), *listed, *feed_dict


def _is_flat(request: tuple[Any, ...]) -> bool:
    """Whether it names graph objects only: structures may be equal and yet of other kinds, names may come to mean something else."""
    return not any(isinstance(item, (str, tuple, list, dict)) for item in request[3:])


def _special(item: Any, found: list[Any]) -> Rebuild | None:
    """Things that act on the session itself, such as variable initializers."""
    if not hasattr(item, "run_in_session"):
        return None
    found.append(item)
    return lambda results: None


def _prepared_function(session: Session, call: PreparedCall, rebuild: Rebuild, single: bool) -> Callable[..., Any]:
    """What `make_callable` gives, by whether the graph has state and whether one array is wanted."""
    plain = call.plain

    def run(*feeds: Any) -> Any:
        if session._closed:
            session._check_open()
        return rebuild(call(feeds))

    if plain is None:
        return run

    def run_plain(*feeds: Any) -> Any:
        if session._closed:
            session._check_open()
        results = plain(feeds)
        return rebuild(call(feeds) if results is None else results)

    def run_plain_one(*feeds: Any) -> Any:
        if session._closed:
            session._check_open()
        results = plain(feeds)
        return (call(feeds) if results is None else results)[0]

    return run_plain_one if single else run_plain
