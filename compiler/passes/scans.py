"""Scans: those over the same steps become one, and sums of products over all steps become one product behind the scan."""

from __future__ import annotations

from pierian.compiler.dim import product
from pierian.compiler.frozen import frozen
from pierian.compiler.graph.builder import GraphBuilder
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.inline import inline
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.ops.definition import operator_named
from pierian.compiler.passes.base import bodies
from pierian.compiler.passes.cse import CommonSubexpressions


@frozen
class Scans:
    """Given: a graph of primitives. Result: two rewrites of scans, as far as they apply.

    merge    two scans that start from the same states, walk the same sequences, and whose steps make the same states
             become one that stacks the results of both. (The gradient of a scan walks the way forward a second time, for
             the states before each step; merged with the scan itself it costs their stores only.)
    hoist    a state `s` whose step is `s + a^T b`, read by nothing else, goes out of the loop: the steps stack `a` and `b`
             (unless they are slices of stacks already), and one product over all steps adds to the start.
    """

    name: str = "scans"

    def run(self, graph: Graph) -> bool:
        changed = False
        for body in bodies(graph):
            changed |= self.run(body)
        changed |= _merge_all(graph)
        for node in [node for node in graph.nodes if node.op.name == "scan"]:
            changed |= _hoist(graph, node)
        if changed:
            graph.sort()
        return changed


# --- merge -----------------------------------------------------------------------------------------------------------


def _merge_all(graph: Graph) -> bool:
    changed = False
    groups: dict[object, list[Node]] = {}
    for node in graph.nodes:
        if node.op.name == "scan":
            a = node.attributes
            walked = node.inputs[: a["state"] + a["sequences"]]
            groups.setdefault((walked, a["state"], a["length"], a["reverse"]), []).append(node)
    for nodes in groups.values():
        first = nodes[0]
        for other in nodes[1:]:
            merged = _merge(graph, first, other)
            if merged is not None:
                first, changed = merged, True
    return changed


def _merge(graph: Graph, first: Node, second: Node) -> Node | None:
    """One scan for both; None where their states take different ways."""
    count, sequences = first.attributes["state"], first.attributes["sequences"]
    walked = count + sequences
    body = first.bodies[0].clone()
    builder = GraphBuilder(body)
    captured = list(first.inputs[walked:])
    arguments = list(body.inputs[:walked])
    for outside, parameter in zip(second.inputs[walked:], second.bodies[0].inputs[walked:], strict=True):
        if outside in captured:
            arguments.append(body.inputs[walked + captured.index(outside)])
        else:
            captured.append(outside)
            arguments.append(builder.placeholder(parameter.type, parameter.node.name))
    mine = body.outputs
    theirs = inline(builder, second.bodies[0], arguments, keep_lines=True)
    body.set_outputs([*mine, *theirs])
    CommonSubexpressions().run(body)
    outputs = body.outputs
    if outputs[:count] != outputs[len(mine) : len(mine) + count]:
        return None
    results = [*outputs[: len(mine)], *outputs[len(mine) + count :]]
    body.set_outputs(results, [f"r{i}" for i in range(len(results))])
    types = [value.type for value in (*first.outputs, *second.outputs[count:])]
    node = graph.add_node(
        first.op,
        (*first.inputs[:walked], *captured),
        dict(first.attributes),
        types,
        (body,),
        first.name,
        first.location,
    )
    for old, new in zip(first.outputs, node.outputs[: len(mine)], strict=True):
        graph.replace_uses(old, new)
    for old, new in zip(second.outputs, (*node.outputs[:count], *node.outputs[len(mine) :]), strict=True):
        graph.replace_uses(old, new)
    graph.remove(first)
    graph.remove(second)
    return node


# --- hoist -----------------------------------------------------------------------------------------------------------


def _hoist(graph: Graph, node: Node) -> bool:
    """Take every state that only adds up products out of a scan."""
    count, sequences = node.attributes["state"], node.attributes["sequences"]
    (body,) = node.bodies
    sums = {i: found for i in range(count) if (found := _product_sum(body, i)) is not None}
    if not sums:
        return False
    fresh, mapping = body.clone_with_map()
    kept = [i for i in range(count) if i not in sums]
    stacked: list[Value] = []  # values of the body that the scan has to stack, beside its results
    for left, right in sums.values():
        for factor in (left, right):
            if _sequence_of(body, factor, count, sequences) is None and factor not in stacked:
                stacked.append(factor)
    old = body.outputs
    outputs = [*(old[i] for i in kept), *old[count:], *stacked]
    fresh.set_outputs([mapping[value] for value in outputs], [f"r{i}" for i in range(len(outputs))])
    for value in [fresh.inputs[i] for i in sums]:
        adder = next(iter(value.uses))
        fresh.remove(adder)
        fresh.inputs.remove(value)
        fresh.remove(value.node)
    builder = GraphBuilder(graph)
    builder.location = node.location
    operands = (*(node.inputs[i] for i in kept), *node.inputs[count:])
    attributes = {**node.attributes, "state": len(kept)}
    made = builder.apply(operator_named("scan"), operands, attributes, (fresh,))
    results = list(made) if isinstance(made, tuple) else [made]
    plain = results[: len(results) - len(stacked)]
    stacks = dict(zip(stacked, results[len(plain) :], strict=True))
    replacements = dict(zip([*kept, *range(count, len(old))], plain, strict=True))
    for i, factors in sums.items():
        whole = []
        for factor in factors:
            place = _sequence_of(body, factor, count, sequences)
            value = stacks[factor] if place is None else node.inputs[place]
            rows = product(value.shape[:2])
            whole.append(builder.reshape(value, shape=(rows, value.shape[2])))
        total = builder.dot_general(*whole, transpose_x=True, transpose_y=False)
        replacements[i] = builder.add(node.inputs[i], total)
    for position, value in replacements.items():
        graph.replace_uses(node.outputs[position], value)
    graph.remove(node)
    return True


def _product_sum(body: Graph, position: int) -> tuple[Value, Value] | None:
    """The factors where a state's step adds a product of transposed and plain matrix, and nothing else reads the state."""
    state, following = body.inputs[position], body.outputs[position]
    adder = following.node
    if adder.op.name != "add" or dict(state.uses) != {adder: 1} or sum(following.uses.values()) != 1:
        return None
    (term,) = [value for value in adder.inputs if value is not state]
    maker = term.node
    if maker.op.name != "dot_general" or term.type != state.type or term.type.rank != 2:
        return None
    if not maker.attributes["transpose_x"] or maker.attributes["transpose_y"]:
        return None
    left, right = maker.inputs
    return (left, right) if left.type.rank == 2 and right.type.rank == 2 else None


def _sequence_of(body: Graph, value: Value, count: int, sequences: int) -> int | None:
    """The operand of the scan whose slices a value of the body is."""
    for position in range(count, count + sequences):
        if body.inputs[position] is value:
            return position
    return None
