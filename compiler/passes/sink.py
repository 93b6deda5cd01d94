"""Products of a whole sequence move into the scan that walks them, where the stack of results would leave the caches."""

from __future__ import annotations

from pierian.compiler.dim import Dim, product
from pierian.compiler.frozen import frozen
from pierian.compiler.graph.builder import GraphBuilder
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.passes.base import bodies, remove_dead

# Rows in a step from which a product is as fast step by step as over all steps at once: they fill a register tile.
TILE_ROWS = 8
# Bytes of a right operand that stay in the second-level cache from step to step.
NEAR = 512 * 1024
# Bytes of a stack from which its way to memory and back is worth saving.
FAR = 2 * 1024 * 1024


@frozen
class SinkProducts:
    """Given: any graph of primitives. Result: a scan that alone walks `x @ w + b` over all steps walks `x`, and computes its part
    of the product in every step.

    before:  %s = add(dot_general(%x, %w), %b);  scan(%h, %s) { %g = tanh(add(%s_t, ...)) }
    after:   scan(%h, %x, %w, %b) { %g = tanh(add(add(dot_general(%x_t, %w), %b), ...)) }
    """

    name: str = "sink-products"

    def run(self, graph: Graph) -> bool:
        changed = False
        for node in [node for node in graph.nodes if node.op.name == "scan"]:
            changed |= _sink_all(graph, node)
        if changed:
            graph.sort()
        return any([changed, *(self.run(body) for body in bodies(graph))])


def _sink_all(graph: Graph, node: Node) -> bool:
    count, sequences = node.attributes["state"], node.attributes["sequences"]
    walked = node.inputs[count : count + sequences]
    moving = {i: nodes for i, value in enumerate(walked) if (nodes := _computed_stepwise(value, node)) is not None}
    if not moving:
        return False
    step = _Step(graph, node)
    for i, nodes in moving.items():
        step.move(i, nodes)
    step.finish()
    return True


def _computed_stepwise(stack: Value, scan: Node) -> list[Node] | None:
    """The nodes that compute a stack, in order, where they are a product worth moving and what is done to it point by point."""
    length: Dim = scan.attributes["length"]
    found: dict[Node, None] = {}
    pending = [stack]
    products = 0
    while pending:
        value = pending.pop()
        node = value.node
        if not value.type.rank == stack.type.rank == 3 or value.shape[0] != length:
            continue  # the same in every step
        is_product = node.op.name == "dot_general"
        if node.op.scalar_rule is None and not is_product:
            continue  # a sequence to be walked
        if sum(value.uses.values()) != 1:
            if value is stack:
                return None
            continue
        if is_product:
            if not _is_worth_moving(node):
                return None
            products += 1
            pending.append(node.inputs[0])
        else:
            pending += node.inputs
        found[node] = None
    return list(reversed(found)) if products else None


def _is_worth_moving(node: Node) -> bool:
    left, right = node.inputs
    if left.type.rank != 3 or right.type.rank != 2:
        return False
    rows = node.output.shape[1]
    size, whole = _bytes(right), _bytes(node.output)
    far = not isinstance(whole, int) or whole >= FAR
    return isinstance(rows, int) and rows >= TILE_ROWS and isinstance(size, int) and size <= NEAR and far


def _bytes(value: Value) -> Dim:
    return product(list(value.shape)) * value.dtype.itemsize


class _Step:
    """A scan whose body takes over what computed its sequences."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph = graph
        self.node = node
        (self.body,) = node.bodies
        self.outside, self.inside = GraphBuilder(graph), GraphBuilder(self.body)
        count, sequences = node.attributes["state"], node.attributes["sequences"]
        pairs = list(zip(self.body.inputs, node.inputs, strict=True))
        self.states, self.walked, self.given = (
            pairs[:count], pairs[count : count + sequences], pairs[count + sequences :],
        )  # fmt: skip
        self.parameters = [parameter for parameter, _ in self.walked]
        self.known: dict[Value, Value] = {}

    def move(self, position: int, nodes: list[Node]) -> None:
        """Compute one sequence inside."""
        done: dict[Value, Value] = {}
        for node in nodes:
            self.inside.location = node.location
            operands = [done[value] if value in done else self._operand(value, node) for value in node.inputs]
            done[node.output] = self.inside.as_value(self.inside.apply(node.op, operands, dict(node.attributes)))
        parameter = self.parameters[position]
        self.body.replace_uses(parameter, done[nodes[-1].output])
        self.walked = [pair for pair in self.walked if pair[0] is not parameter]

    def _operand(self, value: Value, reader: Node) -> Value:
        """A value from outside as a step sees it: its slice, or itself where it is the same in every step."""
        if value.node.op.name == "constant" and value.type.rank == 0:
            return self.inside.constant(value.node.attributes["value"])
        if value in self.known:
            return self.known[value]
        is_sequence = value.type.rank == 3 and value.shape[0] == self.node.attributes["length"]
        if value.type.rank == 3 and not is_sequence:
            self.outside.location = reader.location
            value_given = self.outside.as_value(self.outside.squeeze(value, axis=(0,)))
        else:
            value_given = value
        type_ = type(value.type)(value.dtype, value.shape[1:]) if is_sequence else value_given.type
        parameter = self.inside.placeholder(type_, value.node.name.replace("/", "_"))
        (self.walked if is_sequence else self.given).append((parameter, value_given))
        self.known[value] = parameter
        return parameter

    def finish(self) -> None:
        """Put the scan with its new operands in the place of the old one."""
        kept = [*self.states, *self.walked, *self.given]
        for parameter in set(self.body.inputs) - {parameter for parameter, _ in kept}:
            self.body.remove(parameter.node)
        self.body.inputs = [parameter for parameter, _ in kept]
        self.body.sort()
        node = self.node
        attributes = {**node.attributes, "sequences": len(self.walked)}
        types = [value.type for value in node.outputs]
        operands = [operand for _, operand in kept]
        made = self.graph.add_node(node.op, operands, attributes, types, (self.body,), node.name, node.location)
        for old, new in zip(node.outputs, made.outputs, strict=True):
            self.graph.replace_uses(old, new)
        makers = [value.node for value in node.inputs]
        self.graph.remove(node)
        for maker in makers:
            remove_dead(self.graph, maker)
