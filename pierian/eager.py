"""Eager mode: operators record, looking at a value compiles and runs the recorded history.

A tensor that has not been looked at remembers how it was made. When its value is wanted the history down to values already
known becomes a graph; the same history (operators, wiring, element types, shapes) finds the code compiled before. The history is
forgotten once its value is known, and one that grows long is evaluated on the way, so memory stays flat in a loop.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pierian.compiler.graph.builder import Builder, GraphBuilder, set_default_builder
from pierian.compiler.graph.constants import Constant
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.graph.operator import Operator
from pierian.compiler.location import Location
from pierian.compiler.ops.definition import operator_named
from pierian.compiler.shape import TensorType
from pierian.tensor import Tensor

Array = np.ndarray[Any, Any]

# A history this deep is evaluated although nobody looked.
MAX_DEPTH = 400
# Compiled histories kept.
MAX_COMPILED = 512

_COMPILED: OrderedDict[Any, Callable[[Sequence[Any]], list[Array]]] = OrderedDict()
_LOCK = threading.Lock()


class EagerBuilder(Builder):
    """Makes nodes that belong to no graph."""

    value_type = Tensor

    def insert(
        self,
        op: Operator,
        inputs: Sequence[Value],
        attributes: dict[str, Any],
        types: Sequence[TensorType],
        bodies: Sequence[Graph],
        name: str | None,
        location: Location | None,
    ) -> Node:
        node = Node(op, inputs, attributes, bodies, name or op.name, location)
        outputs = tuple(Tensor(node, i, type_) for i, type_ in enumerate(types))
        node.outputs = outputs
        if op.name == "constant":
            outputs[0].data = attributes["value"].array
            return node
        depth = 1 + max((value.depth for value in inputs if isinstance(value, Tensor)), default=0)
        for output in outputs:
            output.depth = depth
        if depth > MAX_DEPTH:
            evaluate(outputs)
        return node

    def adopt(self, value: Value) -> Value:
        if value.node.graph is not None:
            from pierian.compiler.errors import GraphError

            raise GraphError(
                "a tensor of a graph is used outside its graph", where=value.name, location=value.node.location,
                advice="enter the graph with `with graph.as_default():`",
            )  # fmt: skip
        return value

    def _is_alive(self, value: Value) -> bool:
        return False  # every scalar is a value of its own, so that none outlives its use


def leaf(array: Any) -> Tensor:
    """A tensor that is an array."""
    payload = array if isinstance(array, Constant) else Constant(array)
    node = Node(operator_named("constant"), (), {"value": payload}, (), "constant")
    tensor = Tensor(node, 0, payload.type)
    tensor.data = payload.array
    node.outputs = (tensor,)
    return tensor


def evaluate(tensors: Sequence[Value]) -> None:
    """Compute the values of tensors, all in one native call."""
    wanted = [tensor for tensor in tensors if isinstance(tensor, Tensor) and tensor.data is None]
    wanted = list(dict.fromkeys(wanted))
    if not wanted:
        return
    nodes, leaves = _history(wanted)
    key = _key(nodes, leaves, wanted)
    call = _COMPILED.get(key)
    if call is None:
        call = _compile(nodes, leaves, wanted)
        with _LOCK:
            _COMPILED[key] = call
            while len(_COMPILED) > MAX_COMPILED:
                _COMPILED.popitem(last=False)
    arrays = call([tensor.data for tensor in leaves])
    for tensor, array in zip(wanted, arrays, strict=True):
        _settle(tensor, array)


def _settle(tensor: Tensor, array: Array) -> None:
    """The tensor is a value from now on; how it was made is forgotten."""
    array.flags.writeable = False
    tensor.data = array
    tensor.depth = 0
    node = Node(operator_named("constant"), (), {}, (), tensor.node.name, tensor.node.location)
    node.outputs = (tensor,)
    tensor.node = node
    tensor.index = 0


def _history(wanted: Sequence[Tensor]) -> tuple[list[Node], list[Tensor]]:
    """Nodes without a value yet, in order, and the tensors with one that they start from."""
    order: list[Node] = []
    leaves: dict[Tensor, None] = {}
    done: set[Node] = set()
    for tensor in wanted:
        stack = [(tensor.node, False)]
        while stack:
            node, expanded = stack.pop()
            if expanded:
                order.append(node)
                continue
            if node in done:
                continue
            done.add(node)
            stack.append((node, True))
            for value in reversed(node.inputs):
                assert isinstance(value, Tensor)
                if value.data is not None:
                    leaves[value] = None
                elif value.node not in done:
                    stack.append((value.node, False))
    return order, list(leaves)


def _key(nodes: Sequence[Node], leaves: Sequence[Tensor], wanted: Sequence[Tensor]) -> Any:
    numbers: dict[int, int] = {id(tensor): i for i, tensor in enumerate(leaves)}
    parts: list[Any] = [tensor.type for tensor in leaves]
    for node in nodes:
        inputs = tuple(numbers[id(value)] for value in node.inputs)
        bodies = tuple(structure(body) for body in node.bodies)
        parts.append((node.op.name, inputs, tuple(node.attributes.items()), bodies))
        for value in node.outputs:
            numbers[id(value)] = len(numbers)
    parts.append(tuple(numbers[id(tensor)] for tensor in wanted))
    return tuple(parts)


def structure(graph: Graph) -> Any:
    """A graph's meaning as a hashable value, names and locations left out."""
    numbers: dict[Value, int] = {}
    parts: list[Any] = []
    for node in graph.nodes:
        inputs = tuple(numbers[value] for value in node.inputs)
        bodies = tuple(structure(body) for body in node.bodies)
        parts.append((node.op.name, inputs, tuple(node.attributes.items()), bodies))
        for value in node.outputs:
            numbers[value] = len(numbers)
    parts.append(tuple(numbers[value] for value in graph.outputs))
    parts.append(tuple(numbers[value] for value in graph.inputs))
    return tuple(parts)


def _compile(
    nodes: Sequence[Node], leaves: Sequence[Tensor], wanted: Sequence[Tensor]
) -> Callable[[Sequence[Any]], list[Array]]:
    from pierian.runtime.callable import prepare  # the runtime is loaded when something first runs

    graph = Graph("eager")
    builder = GraphBuilder(graph)
    mapping: dict[Value, Value] = {tensor: builder.placeholder(tensor.type, f"x{i}") for i, tensor in enumerate(leaves)}
    inputs = list(mapping.values())
    for node in nodes:
        fresh = graph.add_node(
            node.op, [mapping[value] for value in node.inputs], node.attributes, [v.type for v in node.outputs],
            tuple(body.clone() for body in node.bodies), node.name, node.location,
        )  # fmt: skip
        mapping.update(zip(node.outputs, fresh.outputs, strict=True))
    return prepare(graph, inputs, [mapping[tensor] for tensor in wanted])


_BUILDER = EagerBuilder()
set_default_builder(lambda: _BUILDER)
