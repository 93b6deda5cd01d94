"""The values of a session's variables: read as they were before a run, replaced together after it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pierian.compiler.errors import FeedError
from pierian.compiler.graph.graph import Graph
from pierian.compiler.shape import TensorType

Array = np.ndarray[Any, Any]


class VariableStore:
    """Values by variable name. Arrays in the store are never written to: a run makes new ones and `commit` puts
    all of them in place at once, so a failed run changes nothing and a concurrent reader sees one moment."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._values: dict[str, Array] = {}
        self.lock = threading.RLock()  # held by runs that assign, so that updates do not overtake each other

    def values(self, names: Iterable[str]) -> list[Array]:
        """Current values, all of one moment; a variable first read here gets its initial value."""
        current = self._values
        try:
            return [current[name] for name in names]
        except KeyError:
            with self.lock:
                self._initialize()
            return [self._values[name] for name in names]

    def value(self, name: str) -> Array:
        """The current value of one variable.

        Raises:
            FeedError: the graph has no such variable.
        """
        if name not in self._graph.variables:
            raise FeedError(f"there is no variable named {name!r}", expected=", ".join(self._graph.variables) or "none")
        return self.values([name])[0]

    def commit(self, names: Sequence[str], arrays: Sequence[Array]) -> None:
        """Give several variables new values at once. The arrays belong to the store from then on."""
        if not names:
            return
        with self.lock:
            following = dict(self._values)
            following.update(zip(names, arrays, strict=True))
            self._values = following

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
            checked[name] = array.copy() if array is given or array.base is not None else array
        self.commit(list(checked), list(checked.values()))

    def reset(self) -> None:
        """Every variable back to its initial value."""
        with self.lock:
            self._values = {}
            self._initialize()

    def _initialize(self) -> None:
        following = dict(self._values)
        for name, declaration in self._graph.variables.items():
            if name not in following:
                following[name] = declaration.initial.array.copy()
        self._values = following
