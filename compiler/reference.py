"""Running a graph in NumPy, by the operators' reference rules: the oracle of tests. No Session ever does this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pierian.compiler.dim import Symbolic, evaluate
from pierian.compiler.errors import FeedError, LoweringError
from pierian.compiler.graph.builder import GraphBuilder
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value

Array = np.ndarray[Any, Any]


def run(graph: Graph, feeds: Mapping[Value, Any], outputs: Sequence[Value] | None = None) -> list[Array]:
    """The values of `outputs` (default the graph's) for arrays fed to its inputs.

    Raises:
        FeedError: an input without an array.
        LoweringError: an operator without a reference.
    """
    sizes: dict[str, int] = {}
    for value, array in feeds.items():
        for dim, size in zip(value.shape, np.shape(array), strict=True):
            if isinstance(dim, Symbolic) and str(dim).isidentifier():
                sizes.setdefault(str(dim), size)
    known = {value: np.asarray(array, dtype=value.dtype.numpy) for value, array in feeds.items()}
    wanted = list(graph.outputs if outputs is None else outputs)
    for node in list(graph.nodes):
        if node.outputs and node.outputs[0] not in known:
            if node.op.name == "placeholder":
                continue
            if any(value not in known for value in node.inputs):
                continue
            for value, array in zip(node.outputs, _evaluate(node, known, sizes), strict=True):
                known[value] = np.asarray(array, dtype=value.dtype.numpy)
    missing = [value.name for value in wanted if value not in known]
    if missing:
        raise FeedError("values cannot be computed from these feeds", got=", ".join(missing))
    return [known[value] for value in wanted]


def _evaluate(node: Node, known: dict[Value, Array], sizes: dict[str, int]) -> Sequence[Array]:
    op = node.op
    arrays = [known[value] for value in node.inputs]
    if op.has_bodies:
        from pierian.compiler.ops.control import run_bodies

        return run_bodies(node, arrays, run)
    attributes = {name: _concrete(value, sizes) for name, value in node.attributes.items()}
    if op.reference_rule is None:
        if op.expand_rule is None:
            raise LoweringError(f"operator {op.name!r} has no reference", where=node.describe())
        return _expanded(node, arrays)
    result = op.reference_rule(*arrays, **attributes)
    return result if isinstance(result, tuple) else (result,)


def _expanded(node: Node, arrays: list[Array]) -> list[Array]:
    """A composition, by expanding it in a graph of its own."""
    from pierian.compiler.shape import TensorType

    graph = Graph("expansion")
    builder = GraphBuilder(graph)
    inputs = [
        builder.placeholder(TensorType(value.dtype, array.shape), f"x{i}")
        for i, (value, array) in enumerate(zip(node.inputs, arrays, strict=True))
    ]
    rule = node.op.expand_rule
    assert rule is not None
    result = rule(builder, *inputs, **node.attributes)
    results = result if isinstance(result, tuple) else (result,)
    return run(graph, dict(zip(inputs, arrays, strict=True)), results)


def _concrete(value: Any, sizes: dict[str, int]) -> Any:
    if isinstance(value, Symbolic):
        return evaluate(value, sizes)
    if isinstance(value, tuple):
        return tuple(_concrete(one, sizes) for one in value)
    return value
