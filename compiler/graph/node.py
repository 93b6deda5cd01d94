"""Values and the nodes that make them (SSA)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pierian.compiler.dtype import DType
from pierian.compiler.graph.operator import Operator
from pierian.compiler.location import Location
from pierian.compiler.shape import Shape, TensorType

if TYPE_CHECKING:
    from pierian.compiler.graph.graph import Graph


class Value:
    """One output of a node.

    Attributes:
        node: the node that makes it.
        index: which of the node's outputs it is.
        type: element type and shape.
        uses: the nodes that read it, and how many times each.
    """

    __slots__ = ("__weakref__", "index", "node", "type", "uses")

    def __init__(self, node: Node, index: int, type: TensorType) -> None:
        self.node = node
        self.index = index
        self.type = type
        self.uses: dict[Node, int] = {}

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def name(self) -> str:
        """`node` for a node's first output, `node:1` for its second, and so on."""
        return self.node.name if self.index == 0 else f"{self.node.name}:{self.index}"

    def __repr__(self) -> str:
        return f"<{self.name}: {self.type}>"


class Node:
    """An operator applied to inputs.

    Attributes:
        op: the operator.
        inputs: the values it reads.
        attributes: the operator's other arguments, all immutable.
        bodies: nested graphs (control flow); closed: what they need comes in through their inputs.
        outputs: the values it makes.
        name: unique in its graph.
        location: where in the user's program it was made.
        graph: the graph it belongs to; None while it is on its own (eager history).
    """

    __slots__ = ("__weakref__", "attributes", "bodies", "graph", "inputs", "location", "name", "op", "outputs")

    def __init__(
        self,
        op: Operator,
        inputs: Sequence[Value],
        attributes: dict[str, Any],
        bodies: Sequence[Graph] = (),
        name: str = "",
        location: Location | None = None,
        graph: Graph | None = None,
    ) -> None:
        self.op = op
        self.inputs: tuple[Value, ...] = tuple(inputs)
        self.attributes = attributes
        self.bodies: tuple[Graph, ...] = tuple(bodies)
        self.outputs: tuple[Value, ...] = ()
        self.name = name
        self.location = location
        self.graph = graph

    @property
    def output(self) -> Value:
        """The first output."""
        return self.outputs[0]

    def describe(self) -> str:
        """Name, operator and types on one line, for messages."""
        inputs = ", ".join(str(value.type) for value in self.inputs)
        return f"node {self.name!r}: {self.op.name}({inputs})"

    def __repr__(self) -> str:
        return f"<node {self.name}: {self.op.name}>"
