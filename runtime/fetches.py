"""What a user may ask a Session for: values, names, variables, and nested lists, tuples and dicts of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pierian.compiler.errors import FeedError, GraphError
from pierian.compiler.graph.builder import GraphBuilder, using
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value

Rebuild = Callable[[Sequence[Any]], Any]


def resolve(graph: Graph, item: Any) -> Value:
    """The value of `graph` that a user names: a tensor, a variable, a node, or the name of one of these.

    Raises:
        FeedError: it names nothing in the graph.
    """
    if isinstance(item, Value):
        if item.node.graph is not graph:
            raise FeedError(
                "a tensor of another graph cannot be fed or fetched here", got=repr(item), location=item.node.location,
                advice="open the Session on the graph that the tensor belongs to",
            )  # fmt: skip
        return item
    if isinstance(item, Node):
        return resolve(graph, item.output)
    if isinstance(item, str):
        try:
            return graph.value_named(item)
        except GraphError as error:
            raise FeedError(error.what, advice="list the nodes with print(graph)") from None
    convert = getattr(item, "__pierian_value__", None)
    if convert is not None:
        builder = GraphBuilder(graph)
        with using(builder):
            return resolve(graph, convert(builder))
    raise FeedError("this cannot be fetched", got=repr(item)[:80], expected="a tensor, a variable, or a name")


def flatten(
    graph: Graph, structure: Any, leaf: Callable[[Any], Any] | None = None
) -> tuple[list[Value], list[Value], Rebuild]:
    """The values in a nested structure, the values wanted only for their effect (groups of operations), and a function that
    puts results back into the structure's form.

    A `None` stays None; something with a method `run_in_session` is the session's business (see `leaf`).
    """
    values: list[Value] = []
    effects: list[Value] = []
    positions: dict[Value, int] = {}

    def walk(item: Any) -> Rebuild:
        if item is None:
            return lambda results: None
        if isinstance(item, dict):
            parts = {key: walk(part) for key, part in item.items()}
            return lambda results: {key: rebuild(results) for key, rebuild in parts.items()}
        if isinstance(item, (list, tuple)):
            return _sequence(item, [walk(part) for part in item])
        if hasattr(item, "effects"):
            effects.extend(resolve(graph, value) for value in item.effects)
            return lambda results: None
        if leaf is not None and (special := leaf(item)) is not None:
            return special
        value = resolve(graph, item)
        position = positions.setdefault(value, len(values))
        if position == len(values):
            values.append(value)
        if value.type.rank == 0:
            return lambda results: results[position][()]  # a NumPy scalar
        return lambda results: results[position]

    rebuild = walk(structure)
    return values, effects, rebuild


def _sequence(item: Sequence[Any], parts: list[Rebuild]) -> Rebuild:
    kind = type(item)
    if kind is list:
        return lambda results: [rebuild(results) for rebuild in parts]
    if hasattr(item, "_fields"):  # a named tuple
        return lambda results: kind(*(rebuild(results) for rebuild in parts))
    return lambda results: kind(rebuild(results) for rebuild in parts)  # type: ignore[call-arg]
