"""A body's nodes as nodes of what is being built."""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.graph.builder import Builder
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Value


def inline(
    b: Builder,
    body: Graph,
    arguments: Sequence[Value],
    made_of: dict[Value, Value] | None = None,
    keep_lines: bool = False,
) -> list[Value]:
    """The body's outputs for arguments.

    Args:
        b: what the nodes are made with.
        body: a closed graph; it is not changed.
        arguments: a value for each of its inputs.
        made_of: is told what became of every value.
        keep_lines: whether nodes stand for the lines they stood for in the body, rather than for the builder's.
    """
    mapping: dict[Value, Value] = dict(zip(body.inputs, arguments, strict=True))
    for node in body.nodes:
        if node.op.name == "placeholder":
            continue
        if keep_lines:
            b.location = node.location
        inner = tuple(one.clone(None, one.value_type) for one in node.bodies)
        made = b.apply(node.op, [mapping[value] for value in node.inputs], dict(node.attributes), inner)
        mapping.update(zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=True))
    if made_of is not None:
        made_of.update(mapping)
    return [mapping[value] for value in body.outputs]
