"""Gradients of cond and scan, as control flow again (of loops with a condition: see `pierian.compiler.autodiff.whiles`).

cond: the same predicate chooses between the branches' gradients. scan: what the way back reads and
cannot cheaply compute again is stacked on the way forward (see `residuals`), then a scan in the other direction carries the
gradient of the state and adds up those of what every step used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pierian.compiler.autodiff.residuals import choose_kept
from pierian.compiler.autodiff.reverse import gradients
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.inline import inline
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.ops.control import BodyBuilder, build_cond, build_scan, close_bodies, trace_body
from pierian.compiler.passes.dce import DeadCode


def current_builder() -> Any:
    from pierian.compiler.graph.builder import current

    return current()


def listed(made: Any) -> list[Value]:
    """One value or several as a list."""
    return list(made) if isinstance(made, tuple) else [made]


def body_gradients(
    body: Graph,
    arguments: Sequence[Value],
    wanted: Sequence[int],
    starts: Sequence[tuple[int, Value]],
    made: dict[Value, Value] | None = None,
) -> list[Value]:
    """Inside a body being traced: the gradients for the arguments numbered `wanted`, zeros where there is no path.

    `starts` are the numbers of outputs with the gradients they start from; `made` is told what became of the values of `body`.
    """
    b = current_builder()
    results = inline(b, body, arguments, made)
    # An output that is a parameter itself, or given twice, is still a value to start from.
    xs = [arguments[i] for i in wanted]
    inputs = set(map(id, arguments))
    found = gradients(
        b, [results[i] for i, _ in starts], xs, [dy for _, dy in starts], unconnected="zero",
        producer=lambda value: None if id(value) in inputs else value.node,
    )  # fmt: skip
    return [value for value in found if value is not None]


def cond_gradient(b: Any, node: Node, dys: Sequence[Value | None]) -> Sequence[Value | None]:
    """See the module."""
    predicate, *operands = node.inputs
    wanted = [i for i, value in enumerate(operands) if value.dtype.is_float]
    starts = [(i, dy) for i, dy in enumerate(dys) if dy is not None]
    if not wanted or not starts:
        return [None] * len(node.inputs)

    def branch(body: Graph) -> Any:
        def function() -> list[Value]:
            inner = current_builder()
            arguments = [inner.as_value(value) for value in operands]
            return body_gradients(body, arguments, wanted, [(i, inner.as_value(dy)) for i, dy in starts])

        return function

    found = listed(build_cond(b, predicate, branch(node.bodies[0]), branch(node.bodies[1])))
    by_operand = dict(zip(wanted, found, strict=True))
    return [None, *(by_operand.get(i) for i in range(len(operands)))]


def scan_gradient(b: Any, node: Node, dys: Sequence[Value | None]) -> Sequence[Value | None]:
    """See the module."""
    (body,) = node.bodies
    count, sequences = node.attributes["state"], node.attributes["sequences"]
    states, xs, rest = (
        node.inputs[:count], node.inputs[count : count + sequences], node.inputs[count + sequences :],
    )  # fmt: skip
    length, reverse = node.attributes["length"], node.attributes["reverse"]
    float_states = [i for i in range(count) if states[i].dtype.is_float]
    float_xs = [i for i in range(sequences) if xs[i].dtype.is_float]
    float_rest = [i for i in range(len(rest)) if rest[i].dtype.is_float]
    given = [i for i in range(count, len(node.outputs)) if dys[i] is not None]
    made: dict[Value, Value] = {}

    def backward(*arguments: Value) -> list[Value]:
        inner = current_builder()
        at = iter(arguments)
        d_state, sums, old, slices, step_dys = (
            [next(at) for _ in range(n)] for n in (len(float_states), len(float_rest), count, sequences, len(given))
        )
        captured = [inner.as_value(value) for value in rest]
        wanted = [*float_states, *(count + i for i in float_xs), *(count + sequences + i for i in float_rest)]
        starts = [*zip(float_states, d_state, strict=True), *zip(given, step_dys, strict=True)]
        found = body_gradients(body, [*old, *slices, *captured], wanted, starts, made)
        split = len(float_states)
        d_slices, d_rest = found[split : split + len(float_xs)], found[split + len(float_xs) :]
        return [*found[:split], *(inner.add(s, d) for s, d in zip(sums, d_rest, strict=True)), *d_slices]

    start = [_or_zeros(b, dys[i], states[i]) for i in float_states]
    start += [b.zeros_like(rest[i]) for i in float_rest]
    types = [value.type for value in (*start, *body.inputs[: count + sequences])]
    types += [body.outputs[i].type for i in given]
    step = trace_body(b, backward, types, "step")
    kept = choose_kept(body, _read_by_gradient(made))
    for value in kept:
        step.graph.replace_uses(made[value], step.placeholder(value.type, "kept"))
    step.graph.sort()
    DeadCode().run(step.graph)
    captures = set(map(id, step.captures.values()))
    slices = [value for value in step.graph.inputs if id(value) not in captures][len(start) :]
    old_states = [i for i in range(count) if slices[i].uses]

    def forward(*arguments: Value) -> list[Value]:
        inner = current_builder()
        captured = [inner.as_value(value) for value in rest]
        values: dict[Value, Value] = {}
        following = inline(inner, body, [*arguments, *captured], values)[:count]
        return [*following, *(arguments[i] for i in old_states), *(values[value] for value in kept)]

    stacks = listed(build_scan(b, forward, states, xs, length, reverse))[count:] if old_states or kept else []
    old_stacks = dict(zip(old_states, stacks[: len(old_states)], strict=True))
    operands = [
        *(old_stacks.get(i) for i in range(count)), *xs, *(dys[i] for i in given), *stacks[len(old_states) :],
    ]  # fmt: skip
    walked = _drop_unread(step, slices, operands)
    captured = close_bodies([step])
    attributes = {"state": len(start), "sequences": len(walked), "length": length, "reverse": not reverse}
    found = listed(b.apply(node.op, (*start, *walked, *captured), attributes, (step.graph,)))
    result: list[Value | None] = [None] * len(node.inputs)
    places = [*float_states, *(count + sequences + i for i in float_rest), *(count + i for i in float_xs)]
    for place, value in zip(places, found, strict=True):
        result[place] = value
    return result


def _or_zeros(b: Any, dy: Value | None, like: Value) -> Value:
    return dy if dy is not None else b.zeros_like(like)


def _read_by_gradient(made: dict[Value, Value]) -> set[Value]:
    """The values of a body that something beside its own copy, given by `made`, reads."""
    copies = {value.node for value in made.values()}
    return {value for value, copy in made.items() if any(user not in copies for user in copy.uses)}


def _drop_unread(step: BodyBuilder, slices: Sequence[Value], operands: Sequence[Value | None]) -> list[Value]:
    """Take parameters that nothing reads out of a step; the operands of the slices that are left."""
    left = []
    for parameter, operand in zip(slices, operands, strict=True):
        if parameter.uses:
            assert operand is not None
            left.append(operand)
    unread = [value for value in slices if not value.uses]
    unread += [value for value in step.captures.values() if not value.uses]
    for outside in [outside for outside, value in step.captures.items() if not value.uses]:
        del step.captures[outside]
    for value in unread:
        step.graph.inputs = [one for one in step.graph.inputs if one is not value]
        step.graph.remove(value.node)
    return left
