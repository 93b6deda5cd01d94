"""A graph's fingerprint: equal for graphs that compile to the same code, whatever the names of their values."""

from __future__ import annotations

import hashlib
from typing import Any

from pierian.compiler.graph.constants import Constant
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Value


def graph_digest(graph: Graph) -> bytes:
    """A hash of operators, attributes (constants by their bits), types and how they are joined, bodies included.

    Where sizes are open, the user's lines count too: they are part of what a program says when sizes do not fit.
    """
    hasher = hashlib.blake2b(digest_size=32)
    _add_graph(graph, hasher)
    return hasher.digest()


def _add_graph(graph: Graph, hasher: Any) -> None:
    numbers: dict[Value, int] = {}
    hasher.update(f"graph {graph.seed} {[str(value.type) for value in graph.inputs]}".encode())
    for node in graph.nodes:
        attributes = sorted((key, _text(value)) for key, value in node.attributes.items())
        types = [str(value.type) for value in node.outputs]
        line = f"{node.op.name} {[numbers[value] for value in node.inputs]} {attributes} {types}\n"
        hasher.update(line.encode())
        if not all(value.type.is_static for value in (*node.inputs, *node.outputs)):
            hasher.update(f"{node.name} {node.location}\n".encode())
        for value in node.outputs:
            numbers[value] = len(numbers)
        for body in node.bodies:
            _add_graph(body, hasher)
    outputs = [numbers[value] for value in graph.outputs]
    hasher.update(f"end {[numbers[value] for value in graph.inputs]} {outputs} {graph.output_names}\n".encode())


def _text(value: Any) -> str:
    if isinstance(value, Constant):
        return f"{value.type} {value.digest.hex()}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_text, value))})"
    if isinstance(value, float):
        return value.hex()
    return f"{type(value).__name__} {value}"
