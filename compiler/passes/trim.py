"""Scans carry, walk and stack only what is needed, each thing once."""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.frozen import frozen
from pierian.compiler.graph.builder import GraphBuilder
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.passes.base import bodies
from pierian.compiler.passes.dce import DeadCode

# A parameter of a body and the operand it stands for.
_Pair = tuple[Value, Value]


@frozen
class TrimScans:
    """Given: any graph. Result: of every scan

    results   that nobody reads are gone, and so are states that only feed themselves; a result stacked twice, or a stack of slices
              of a sequence, is the first one, or the sequence;
    operands  that no step reads are gone, one given twice is given once, and a sequence whose slices are all the same is given to
              every step instead.
    """

    name: str = "trim-scans"

    def run(self, graph: Graph) -> bool:
        changed = False
        # Readers first: what they stop reading may be what a scan before them stops stacking.
        for node in reversed([node for node in graph.nodes if node.op.name == "scan"]):
            changed |= _share_results(graph, node)
            changed |= _trim(graph, node)
        if changed:
            graph.sort()
        return any([changed, *(self.run(body) for body in bodies(graph))])


def _share_results(graph: Graph, node: Node) -> bool:
    """Let readers of a stacked result read an equal one, or the sequence it repeats."""
    count, sequences = node.attributes["state"], node.attributes["sequences"]
    (body,) = node.bodies
    places = {body.inputs[i]: node.inputs[i] for i in range(count, count + sequences)}
    changed = False
    for value, result in list(zip(body.outputs, node.outputs, strict=True))[count:]:
        known = places.setdefault(value, result)
        if known is not result and known.type == result.type and result.uses:
            graph.replace_uses(result, known)
            changed = True
    return changed


def _trim(graph: Graph, node: Node) -> bool:
    count, sequences = node.attributes["state"], node.attributes["sequences"]
    (body,) = node.bodies
    if not any(value.uses for value in node.outputs):
        return False  # dead altogether
    live = _live_outputs(node)
    names = [f"r{i}" for i in range(len(live))]
    body.set_outputs([body.outputs[i] for i in live], names)
    DeadCode().run(body)
    pairs = list(zip(body.inputs, node.inputs, strict=True))
    states = [pairs[i] for i in live if i < count]
    walked = _distinct(body, pairs[count : count + sequences])
    given = _distinct(body, pairs[count + sequences :])
    walked, given = _without_repetition(graph, node, walked, given)
    kept = [*states, *walked, *given]
    if len(kept) == len(pairs) and len(live) == len(node.outputs) and len(walked) == sequences:
        return False
    for parameter in set(body.inputs) - {parameter for parameter, _ in kept}:
        body.remove(parameter.node)
    body.inputs = [parameter for parameter, _ in kept]
    attributes = {**node.attributes, "state": len(states), "sequences": len(walked)}
    types = [node.outputs[i].type for i in live]
    operands = [operand for _, operand in kept]
    made = graph.add_node(node.op, operands, attributes, types, (body,), node.name, node.location)
    for i, value in zip(live, made.outputs, strict=True):
        graph.replace_uses(node.outputs[i], value)
    graph.remove(node)
    return True


def _live_outputs(node: Node) -> list[int]:
    """Numbers of the outputs that something reads, and of the states that those come from."""
    count = node.attributes["state"]
    (body,) = node.bodies
    number = {parameter: i for i, parameter in enumerate(body.inputs[:count])}
    live = {i for i, value in enumerate(node.outputs) if value.uses}
    stack = [body.outputs[i] for i in live]
    seen = set(stack)
    while stack:
        value = stack.pop()
        needed = list(value.node.inputs)
        state = number.get(value)
        if state is not None and state not in live:
            live.add(state)
            needed.append(body.outputs[state])
        for one in needed:
            if one not in seen:
                seen.add(one)
                stack.append(one)
    return sorted(live)


def _distinct(body: Graph, pairs: Sequence[_Pair]) -> list[_Pair]:
    """Those that the body reads, each operand once."""
    found: dict[Value, Value] = {}
    for parameter, operand in pairs:
        if operand in found:
            body.replace_uses(parameter, found[operand])
        elif parameter.uses:
            found[operand] = parameter
    return [(parameter, operand) for operand, parameter in found.items()]


def _without_repetition(
    graph: Graph, node: Node, walked: list[_Pair], given: list[_Pair]
) -> tuple[list[_Pair], list[_Pair]]:
    """The operands after what repeats one slice for every step has been given to all steps."""
    (body,) = node.bodies
    outside, inside = GraphBuilder(graph), GraphBuilder(body)
    outside.location = inside.location = node.location
    left = []
    given = list(given)
    for parameter, operand in walked:
        slice_ = _repeated_slice(outside, operand)
        if slice_ is None:
            left.append((parameter, operand))
            continue
        fresh = inside.placeholder(slice_.type, parameter.node.name)
        body.replace_uses(parameter, inside.broadcast_to(fresh, shape=parameter.shape))
        given.append((fresh, slice_))
    if len(left) < len(walked):
        body.sort()
    return left, given


def _repeated_slice(b: GraphBuilder, sequence: Value) -> Value | None:
    """What every slice of a sequence is, up to broadcasting; None where they may differ."""
    maker = sequence.node
    if maker.op.name in ("zeros", "ones", "full"):
        return b.as_value(b.apply(maker.op, (), {**maker.attributes, "shape": ()}))
    if maker.op.name != "broadcast_to":
        return None
    (source,) = maker.inputs
    if source.type.rank < sequence.type.rank:
        return source
    return b.as_value(b.squeeze(source, axis=(0,))) if source.shape[0] == 1 and sequence.shape[0] != 1 else None
