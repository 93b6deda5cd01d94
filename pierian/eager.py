"""Eager mode: operators record, looking at a value compiles and runs the recorded history.

A tensor that has not been looked at remembers how it was made. When its value is wanted the history down to values already
known becomes a graph; the same history (operators, wiring, element types, shapes) finds the code compiled before. The history is
forgotten once its value is known, and one that grows long is evaluated on the way, so memory stays flat in a loop. Tensors hold how
they were made, and nothing holds tensors in turn: what nobody looks at any more is free at once, without a search for cycles.
"""

from __future__ import annotations

import functools
import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pierian.compiler.dtype import DType
from pierian.compiler.graph.builder import Builder, GraphBuilder, as_constant, set_default_builder
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


class EagerNode(Node):
    """How tensors without a value are made. It does not hold them: one that nobody holds is made anew when it is asked for."""

    __slots__ = ("_made", "_types")

    def __init__(
        self,
        op: Operator,
        inputs: Sequence[Value],
        attributes: dict[str, Any],
        bodies: Sequence[Graph],
        name: str,
        location: Location | None,
        types: Sequence[TensorType],
    ) -> None:
        self.op, self.inputs, self.attributes, self.bodies = op, tuple(inputs), attributes, tuple(bodies)
        self.name, self.location, self.graph = name, location, None
        self._types = types
        self._made: list[Callable[[], Tensor | None]] = [_gone] * len(types)

    @property
    def outputs(self) -> tuple[Tensor, ...]:  # type: ignore[override]
        return tuple([self._output(index) for index in range(len(self._types))])

    def _output(self, index: int) -> Tensor:
        tensor = self._made[index]()
        if tensor is not None:
            return tensor
        tensor = Tensor(self, index, self._types[index])
        for value in self.inputs:
            assert isinstance(value, Tensor)
            if value.depth >= tensor.depth:
                tensor.depth = value.depth + 1
        tensor.depth = tensor.depth or 1
        self._made[index] = weakref.ref(tensor)
        return tensor


def _gone() -> None:
    """A reference to nothing."""


class EagerBuilder(Builder):
    """Makes nodes that belong to no graph."""

    value_type = Tensor

    def apply(
        self,
        op: Operator,
        inputs: Sequence[Value],
        attributes: dict[str, Any],
        bodies: Sequence[Graph] = (),
        name: str | None = None,
    ) -> Any:
        made = super().apply(op, inputs, attributes, bodies, name)
        outputs = made if isinstance(made, tuple) else (made,)
        if outputs[0].depth > MAX_DEPTH:
            evaluate(outputs)
        return made

    def insert(
        self,
        op: Operator,
        inputs: Sequence[Value],
        attributes: dict[str, Any],
        types: Sequence[TensorType],
        bodies: Sequence[Graph],
        name: str | None,
        location: Location | None,
    ) -> tuple[Value, ...]:
        if op.name == "constant":
            return (leaf(attributes["value"]),)
        return EagerNode(op, inputs, attributes, bodies, name or op.name, location, types).outputs

    def adopt(self, value: Value) -> Value:
        if value.node.graph is not None:
            from pierian.compiler.errors import GraphError

            raise GraphError(
                "a tensor of a graph is used outside its graph", where=value.name, location=value.node.location,
                advice="enter the graph with `with graph.as_default():`",
            )  # fmt: skip
        return value

    def constant(self, value: Any, dtype: DType | str | None = None, name: str | None = None) -> Value:
        """A constant, always a tensor of its own: which of them are equal is nothing that compiled histories depend on."""
        kind = type(value)
        if kind is float or kind is int or kind is bool:
            payload = _scalar(kind.__name__, value, math.copysign(1.0, value) if kind is float else 1.0, dtype)
        else:
            payload = value if isinstance(value, Constant) else as_constant(value, dtype)
        return leaf(payload)


@functools.lru_cache(maxsize=1024)
def _scalar(kind: str, value: float, sign: float, dtype: DType | str | None) -> Constant:
    """A Python number as an array. Equal numbers of other kinds and zeros of another sign are others."""
    return as_constant(value, dtype)


def leaf(array: Any) -> Tensor:
    """A tensor that is an array of the user's: what it holds now."""
    payload = array if isinstance(array, Constant) else Constant(array)
    return computed(payload.array, payload.type)


def computed(array: Array, type_: TensorType) -> Tensor:
    """A tensor that is an array which nobody writes to from now on; but for one who knows that nobody else holds tensor and array.

    What leaves the package is read-only: see `Tensor.numpy`.
    """
    tensor = Tensor(_known(), 0, type_)
    tensor.data = array
    return tensor


@functools.lru_cache(maxsize=1)
def _known() -> Node:
    """How every tensor is made that is known: it is there."""
    return Node(operator_named("constant"), (), {}, (), "constant")


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
    tensor.data = array
    tensor.depth = 0
    tensor.node = _known()
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
    known = {id(tensor): number for number, tensor in enumerate(leaves)}
    first: dict[int, int] = {}  # the number of a node's first output
    count = len(leaves)

    def number(value: Value) -> int:
        found = known.get(id(value))
        return first[id(value.node)] + value.index if found is None else found

    parts: list[Any] = [tensor.type for tensor in leaves]
    for node in nodes:
        bodies = tuple(structure(body) for body in node.bodies)
        parts.append((node.op.name, tuple(map(number, node.inputs)), tuple(node.attributes.items()), bodies))
        first[id(node)] = count
        count += len(node.outputs)
    parts.append(tuple(map(number, wanted)))
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
