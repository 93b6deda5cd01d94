"""What the front end tells the runtime, so that the runtime need not know the front end."""

from __future__ import annotations

from collections.abc import Callable

from pierian.compiler.graph.graph import Graph

_DEFAULT_GRAPH: list[Callable[[], Graph]] = []


def set_default_graph(provider: Callable[[], Graph]) -> None:
    """Say which graph a Session without one is opened on."""
    _DEFAULT_GRAPH[:] = [provider]


def default_graph() -> Graph | None:
    """The graph a Session without one is opened on; None where nobody said."""
    return _DEFAULT_GRAPH[0]() if _DEFAULT_GRAPH else None
