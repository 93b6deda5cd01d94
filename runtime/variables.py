"""The values of a session's variables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Protocol

import numpy as np

from pierian.compiler.errors import FeedError
from pierian.compiler.forks import lock_across_forks
from pierian.compiler.graph.graph import Graph
from pierian.compiler.shape import TensorType
from pierian.runtime.memory import COUNTS_REFERENCES, aligned_copy, aligned_empty

Array = np.ndarray[Any, Any]

# What readers see while a run is writing: nothing, so that they wait for the lock.
_NOTHING: dict[str, Array] = {}


def _count_of_one() -> int:
    """What `_references` says of an array that only the dictionary holds."""
    holder = {"": np.empty(1)}
    return max(_references(holder, ("",)))


def _count_of_two() -> int:
    """What is counted of an array that the dictionary and a tuple hold."""
    holder = {"": np.empty(1)}
    picked = _picker([""])(holder)
    return sum(map(sys.getrefcount, picked))


def _like(array: Array) -> Array:
    return aligned_empty(array.shape, array.dtype)


def _references(values: dict[str, Array], names: Iterable[str]) -> Iterable[int]:
    return map(sys.getrefcount, map(values.__getitem__, names))


def _picker(names: Sequence[str]) -> Callable[[Mapping[str, Array]], tuple[Array, ...]]:
    """What takes the values of some keys out of a dictionary."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple([values[name] for name in names])


_HELD_ONCE = _count_of_one()
_HELD_TWICE = _count_of_two()


class Access:
    """What the runs of one program need of a store.

    Args:
        reads, assigns: names of variables.
        in_place: for each assigned one whether its new value may go over the old one.
    """

    def __init__(self, reads: Sequence[str], assigns: Sequence[str], in_place: Sequence[bool]) -> None:
        self.reads, self.assigns, self.in_place = tuple(reads), tuple(assigns), tuple(in_place)
        self.all_in_place = COUNTS_REFERENCES and all(in_place)
        self.read = _picker(self.reads)
        self.targets = _picker(self.assigns)
        self.held_by_none = _HELD_TWICE * len(
            self.assigns
        )  # references to all targets, while the store alone holds them


class Store(Protocol):
    """Where a prepared call finds the values of its variables. Runs that assign hold `lock` from `begin` to `end`."""

    @property
    def lock(self) -> Any: ...

    def values(self, names: Iterable[str]) -> Sequence[Array]:
        """Current values, all of one moment."""
        ...

    def begin(self, access: Access) -> tuple[Sequence[Array], Sequence[Array], Callable[[], Any] | None]:
        """The values read, the arrays for new values, and what makes these the variables' own; None where they are already."""
        ...

    def end(self) -> None:
        """The run that began is over, whatever happened."""
        ...


class VariableStore:
    """Values by variable name: read as they were before a run, replaced together after it.

    The store owns its arrays and hands none out but to runs that read. A run that assigns takes the values (`begin`): readers that
    come then wait for its end. It may write over an array that nobody else holds; where a reader that began before is still at
    work, or where the program forbids it, it gets a second one. So a run that fails changes nothing, and every reader sees one
    moment. See docs/notes/001-in-place-variables.md.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._current: dict[str, Array] = {}
        self._values = self._current  # what readers find; nothing while a run writes
        self._spare: dict[str, Array] = {}  # second arrays of variables that cannot be updated in place
        self._replaced: dict[str, Array] = {}  # those and what a run gave to them, while it writes
        self.lock = lock_across_forks()  # held by runs that assign, so that updates do not overtake each other

    def values(self, names: Iterable[str]) -> list[Array]:
        """Current values, all of one moment; a variable first read here gets its initial value."""
        current = self._values
        try:
            return [current[name] for name in names]
        except KeyError:
            with self.lock:
                self._initialize()
                return [self._current[name] for name in names]

    def value(self, name: str) -> Array:
        """The current value of one variable.

        Raises:
            FeedError: the graph has no such variable.
        """
        if name not in self._graph.variables:
            raise FeedError(f"there is no variable named {name!r}", expected=", ".join(self._graph.variables) or "none")
        return self.values([name])[0]

    # --- runs that assign ------------------------------------------------------------------------------------

    def begin(self, access: Access) -> tuple[Sequence[Array], Sequence[Array], Callable[[], Any] | None]:
        """What a run works on. The lock is held, readers wait from here on, and `end` follows whatever happens.

        Returns:
            The values read, the arrays for new values, and what makes these the variables' own once they are written; None where
            they are already.
        """
        if len(self._current) != len(self._graph.variables):
            self._initialize()
        self._values = _NOTHING
        # A reader that has found the values but has not picked its own out of them yet holds the dictionary.
        alone = COUNTS_REFERENCES and sys.getrefcount(self._current) == _HELD_ONCE
        current = self._current
        if alone and access.all_in_place:
            targets = access.targets(current)
            if sum(map(sys.getrefcount, targets)) == access.held_by_none:
                return access.read(current), targets, None
            del targets
        following = dict(current)
        counts = list(_references(current, access.assigns))
        for name, allowed, count in zip(access.assigns, access.in_place, counts, strict=True):
            # `following` holds the array too.
            if not (allowed and alone and count == _HELD_ONCE + 1):
                following[name] = self._other_array(name, current, keep=not allowed)
        return access.read(current), access.targets(following), partial(setattr, self, "_current", following)

    def _other_array(self, name: str, current: dict[str, Array], keep: bool) -> Array:
        """An array that nobody holds, like a variable's; with `keep` the variable's own is the next."""
        spare = self._spare
        free = name in spare and max(_references(spare, (name,))) == _HELD_ONCE
        found = spare.pop(name) if free and COUNTS_REFERENCES else _like(current[name])
        if keep:
            self._spare[name] = current[name]
            self._replaced[name] = found
        return found

    def end(self) -> None:
        """Let readers in again."""
        if self._replaced:
            for name, given in self._replaced.items():
                if self._current[name] is not given:  # the run has failed
                    self._spare[name] = given
            self._replaced.clear()
        self._values = self._current

    def commit(self, names: Sequence[str], arrays: Sequence[Array]) -> None:
        """Give several variables new values at once. The arrays belong to the store from then on."""
        if not names:
            return
        with self.lock:
            following = dict(self._current)
            following.update(zip(names, arrays, strict=True))
            self._values = self._current = following

    def load(self, values: Mapping[str, Any]) -> None:
        """Give variables values from outside (a checkpoint); all or none.

        Raises:
            FeedError: an unknown name, or a value of another type or shape.
        """
        checked: dict[str, Array] = {}
        for name, given in values.items():
            declaration = self._graph.variables.get(name)
            if declaration is None:
                raise FeedError(f"there is no variable named {name!r}", expected=", ".join(self._graph.variables))
            array = np.asarray(given, dtype=declaration.type.dtype.numpy, order="C")
            if array.shape != declaration.type.shape:
                raise FeedError(
                    f"variable {name!r} cannot take this value", got=TensorType(declaration.type.dtype, array.shape),
                    expected=declaration.type, location=declaration.location,
                )  # fmt: skip
            checked[name] = aligned_copy(array)
        self.commit(list(checked), list(checked.values()))

    def close(self) -> None:
        """Free all arrays."""
        with self.lock:
            self._current = self._values = {}
            self._spare.clear()

    def reset(self) -> None:
        """Every variable back to its initial value."""
        with self.lock:
            self._current = {}
            self._initialize()
            self._values = self._current

    def _initialize(self) -> None:
        """Give the variables that have none their initial value."""
        if len(self._current) == len(self._graph.variables):
            return
        following = dict(self._current)
        for name, declaration in self._graph.variables.items():
            if name not in following:
                following[name] = aligned_copy(declaration.initial.array)
        self._current = following
        if self._values is not _NOTHING:
            self._values = following
