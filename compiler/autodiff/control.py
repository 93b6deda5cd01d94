"""Gradients of control flow, as control flow again.

cond: the same predicate chooses between the branches' gradients. scan: the states before each step and the matrix products of the
step are stacked on the way forward (other intermediate values are cheap to compute again), then a scan in the other direction
carries the gradient of the state and adds up those of what every step used. while_loop: with
`maximum_iterations` it is differentiated as a scan of that many steps that idles once the condition fails; without, each step of the
way back computes its state again from the start, which takes the square of the number of steps in time and no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pierian.compiler.autodiff.reverse import gradients
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.inline import inline
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.ops.control import build_cond, build_scan, build_while

# Operators whose results are kept for the way back rather than computed a second time.
_WORTH_SAVING = ("matmul", "dot_general", "conv_general")


def _current() -> Any:
    from pierian.compiler.graph.builder import current

    return current()


def _listed(made: Any) -> list[Value]:
    return list(made) if isinstance(made, tuple) else [made]


def body_gradients(
    body: Graph,
    arguments: Sequence[Value],
    wanted: Sequence[int],
    starts: Sequence[tuple[int, Value]],
    known: dict[Value, Value] | None = None,
) -> list[Value]:
    """Inside a body being traced: the gradients for the arguments numbered `wanted`, zeros where there is no path.

    `starts` are the numbers of outputs with the gradients they start from; `known` gives values of the body that need not be
    computed again.
    """
    b = _current()
    made: dict[Value, Value] = {}
    results = inline(b, body, arguments, made)
    # An output that is a parameter itself, or given twice, is still a value to start from.
    xs = [arguments[i] for i in wanted]
    inputs = set(map(id, arguments))
    found = gradients(
        b, [results[i] for i, _ in starts], xs, [dy for _, dy in starts], unconnected="zero",
        producer=lambda value: None if id(value) in inputs else value.node,
    )  # fmt: skip
    for value, saved in (known or {}).items():
        b.graph.replace_uses(made[value], saved)
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
            inner = _current()
            arguments = [inner.as_value(value) for value in operands]
            return body_gradients(body, arguments, wanted, [(i, inner.as_value(dy)) for i, dy in starts])

        return function

    found = _listed(build_cond(b, predicate, branch(node.bodies[0]), branch(node.bodies[1])))
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
    costly = [one.output for one in body.nodes if one.op.name in _WORTH_SAVING]

    def forward(*arguments: Value) -> list[Value]:
        inner = _current()
        captured = [inner.as_value(value) for value in rest]
        made: dict[Value, Value] = {}
        following = inline(inner, body, [*arguments, *captured], made)[:count]
        return [*following, *arguments[:count], *(made[value] for value in costly)]

    saved = _listed(build_scan(b, forward, states, xs, length, reverse))[count:]
    float_states = [i for i in range(count) if states[i].dtype.is_float]
    float_xs = [i for i in range(sequences) if xs[i].dtype.is_float]
    float_rest = [i for i in range(len(rest)) if rest[i].dtype.is_float]
    float_results = [i for i in range(count, len(node.outputs)) if node.outputs[i].dtype.is_float]
    start = [dys[i] if dys[i] is not None else b.zeros_like(states[i]) for i in float_states]
    totals = [b.zeros_like(rest[i]) for i in float_rest]
    result_dys = [dys[i] if dys[i] is not None else b.zeros_like(node.outputs[i]) for i in float_results]

    def backward(*arguments: Value) -> list[Value]:
        inner = _current()
        split = len(float_states)
        d_state = arguments[:split]
        sums = arguments[split : split + len(float_rest)]
        at = arguments[split + len(float_rest) :]
        old, products, at = at[:count], at[count : count + len(costly)], at[count + len(costly) :]
        slices, step_dys = at[:sequences], at[sequences:]
        captured = [inner.as_value(value) for value in rest]
        wanted = [*float_states, *(count + i for i in float_xs), *(count + sequences + i for i in float_rest)]
        starts = [*zip(float_states, d_state, strict=True), *zip(float_results, step_dys, strict=True)]
        known = dict(zip(costly, products, strict=True))
        found = body_gradients(body, [*old, *slices, *captured], wanted, starts, known)
        next_state = found[:split]
        d_slices = found[split : split + len(float_xs)]
        d_rest = found[split + len(float_xs) :]
        return [*next_state, *(inner.add(s, d) for s, d in zip(sums, d_rest, strict=True)), *d_slices]

    made = _listed(build_scan(b, backward, [*start, *totals], [*saved, *xs, *result_dys], length, not reverse))
    result: list[Value | None] = [None] * len(node.inputs)
    places = [*float_states, *(count + sequences + i for i in float_rest), *(count + i for i in float_xs)]
    for place, value in zip(places, made, strict=True):
        result[place] = value
    return result


def while_gradient(b: Any, node: Node, dys: Sequence[Value | None]) -> Sequence[Value | None]:
    """See the module."""
    limit = node.attributes["maximum_iterations"]
    return _bounded(b, node, dys, limit) if limit is not None else _recomputed(b, node, dys)


def _bounded(b: Any, node: Node, dys: Sequence[Value | None], limit: int) -> Sequence[Value | None]:
    count = node.attributes["state"]
    condition, body = node.bodies
    states, rest = node.inputs[:count], node.inputs[count:]

    def step(active: Value, *arguments: Value) -> list[Value]:
        inner = _current()
        captured = [inner.as_value(value) for value in rest]
        (going,) = inline(inner, condition, [*arguments, *captured])
        now = inner.logical_and(active, going)
        moved = build_cond(
            inner, now,
            lambda: inline(_current(), body, [_current().as_value(v) for v in (*arguments, *captured)]),
            lambda: [_current().as_value(value) for value in arguments],
        )  # fmt: skip
        return [now, *_listed(moved)]

    made = _listed(build_scan(b, step, [b.constant(True), *states], [], limit))
    pairs = [(y, dy) for y, dy in zip(made[1:], dys, strict=True) if dy is not None]
    wanted = [value for value in node.inputs if value.dtype.is_float]
    inputs = set(map(id, node.inputs))
    found = gradients(
        b, [y for y, _ in pairs], wanted, [dy for _, dy in pairs], unconnected="none",
        producer=lambda value: None if id(value) in inputs else value.node,
    )  # fmt: skip
    by_value = {id(value): gradient for value, gradient in zip(wanted, found, strict=True)}
    result: list[Value | None] = []
    for value in node.inputs:
        result.append(by_value.pop(id(value), None))
    return result


def _recomputed(b: Any, node: Node, dys: Sequence[Value | None]) -> Sequence[Value | None]:
    count = node.attributes["state"]
    condition, body = node.bodies
    states, rest = node.inputs[:count], node.inputs[count:]
    one, zero = b.constant(1, "int64"), b.constant(0, "int64")

    def captured() -> list[Value]:
        return [_current().as_value(value) for value in rest]

    def advance(*arguments: Value) -> list[Value]:
        inner = _current()
        return [inner.add(arguments[0], inner.as_value(one)), *inline(inner, body, [*arguments[1:], *captured()])]

    def going(*arguments: Value) -> Value:
        return inline(_current(), condition, [*arguments[1:], *captured()])[0]

    steps = _listed(build_while(b, going, advance, [zero, *states]))[0]
    float_states = [i for i in range(count) if states[i].dtype.is_float]
    float_rest = [i for i in range(len(rest)) if rest[i].dtype.is_float]
    start = [dys[i] if dys[i] is not None else b.zeros_like(states[i]) for i in float_states]
    totals = [b.zeros_like(rest[i]) for i in float_rest]

    def more(*arguments: Value) -> Value:
        inner = _current()
        return inner.greater(arguments[0], inner.as_value(zero))

    def back(*arguments: Value) -> list[Value]:
        inner = _current()
        left = inner.subtract(arguments[0], inner.as_value(one))
        d_state = arguments[1 : 1 + len(float_states)]
        sums = arguments[1 + len(float_states) :]
        before = _listed(
            build_while(
                inner,
                lambda *a: _current().less(a[0], _current().as_value(left)),
                advance,
                [zero, *states],
            )
        )[1:]
        wanted = [*float_states, *(count + i for i in float_rest)]
        found = body_gradients(body, [*before, *captured()], wanted, list(zip(float_states, d_state, strict=True)))
        d_rest = found[len(float_states) :]
        return [left, *found[: len(float_states)], *(inner.add(s, d) for s, d in zip(sums, d_rest, strict=True))]

    made = _listed(build_while(b, more, back, [steps, *start, *totals]))[1:]
    result: list[Value | None] = [None] * len(node.inputs)
    for place, value in zip([*float_states, *(count + i for i in float_rest)], made, strict=True):
        result[place] = value
    return result
