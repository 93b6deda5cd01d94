"""Gradients by rewriting: reverse mode, with the same operators users have, so gradients can be differentiated again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pierian.compiler.autodiff.connectivity import explain_unconnected
from pierian.compiler.autodiff.totals import Totals
from pierian.compiler.dim import definitely_differ
from pierian.compiler.errors import GradientError
from pierian.compiler.graph.node import Node, Value

Producer = Callable[[Value], Node | None]


def _maker(value: Value) -> Node | None:
    return value.node


def gradients(
    b: Any,
    ys: Sequence[Value],
    xs: Sequence[Value],
    grad_ys: Sequence[Value | None] | None = None,
    unconnected: str = "error",
    producer: Producer = _maker,
) -> list[Value | None]:
    """The gradients of the sum of `ys` with respect to each of `xs`.

    Args:
        b: the builder that the new nodes are made with.
        ys: what is differentiated; floats.
        xs: with respect to what; any values `ys` were computed from.
        grad_ys: what to start from for each y, ones where it is None (the default).
        unconnected: `error`, `zero` or `none`: what to do where no y depends on an x.
        producer: the node that made a value; an eager tape gives the node it recorded.

    Raises:
        GradientError: an x that no y depends on (it says where the path breaks), or something that is not a float.
    """
    for value in (*ys, *xs):
        if not value.dtype.is_float:
            raise GradientError(
                "only floats have gradients", where=value.name, got=value.type, location=value.node.location,
                advice="cast to float32 first",
            )  # fmt: skip
    order, reaching = _reachable(ys, xs, producer)
    totals = Totals(b)
    for position, y in enumerate(ys):
        start = grad_ys[position] if grad_ys is not None else None
        start = b.ones_like(y) if start is None else _like(b, start, y)
        if start.type != y.type:
            raise GradientError("a starting gradient must be like its y", got=start.type, expected=y.type)
        totals.add(y, start)
    targets = set(xs)
    stopped: list[tuple[Node, Value]] = []
    for node in reversed(order):
        _step(b, node, totals, reaching, targets, stopped)
    missing = [x for x in xs if x not in totals]
    if missing and unconnected == "error":
        raise GradientError(
            f"no gradient reaches {missing[0].name!r}", location=missing[0].node.location,
            got=explain_unconnected(ys, missing[0], producer, stopped),
            advice='ask for zeros with unconnected="zero"',
        )  # fmt: skip
    found = [b.zeros_like(x) if x not in totals and unconnected == "zero" else totals.get(x) for x in xs]
    return [_like(b, gradient, x) if gradient is not None else None for gradient, x in zip(found, xs, strict=True)]


def _like(b: Any, gradient: Value, value: Value) -> Value:
    """A gradient with the type of what it is for. What came back through an operator on two tensors may have the other one's open
    sizes, which only a run can tell to be equal: it is asked to. A gradient that does not fit stays what it is."""
    pairs = list(zip(gradient.shape, value.shape, strict=False))
    same = gradient.dtype is value.dtype and gradient.type.rank == value.type.rank
    if (
        gradient.type == value.type
        or not same
        or any(one == 1 != other or definitely_differ(one, other) for one, other in pairs)
    ):
        return gradient
    result: Value = b.broadcast_to(gradient, shape=value.shape)
    return result


def _reachable(ys: Sequence[Value], xs: Sequence[Value], producer: Producer) -> tuple[list[Node], set[Value]]:
    """Nodes between xs and ys in topological order, and the values through which some x is reached."""
    order: list[Node] = []
    done: set[Node] = set()
    wanted = set(xs)
    for y in ys:
        root = producer(y)
        stack: list[tuple[Node, bool]] = [(root, False)] if root is not None else []
        while stack:
            node, expanded = stack.pop()
            if expanded:
                order.append(node)
                continue
            if node in done:
                continue
            done.add(node)
            stack.append((node, True))
            for value in node.inputs:
                maker = producer(value)
                if maker is not None and maker not in done:
                    stack.append((maker, False))
    reaching = set(wanted)
    for node in order:
        if any(value in reaching for value in node.inputs):
            reaching.update(node.outputs)
    return order, reaching


def _step(
    b: Any,
    node: Node,
    totals: Totals,
    reaching: set[Value],
    targets: set[Value],
    stopped: list[tuple[Node, Value]],
) -> None:
    """Pass the gradients of a node's outputs on to its inputs; note in `stopped` where it passes none."""
    if not any(value in totals for value in node.outputs) or not any(value in reaching for value in node.inputs):
        return
    before = b.location
    b.location = node.location
    try:
        incoming = [_incoming(b, value, totals, targets) for value in node.outputs]
        if all(one is None for one in incoming):
            return
        if node.bodies:  # these have parameters of the outputs' types
            pairs = zip(incoming, node.outputs, strict=True)
            incoming = [_like(b, one, value) if one is not None else None for one, value in pairs]
        for value, gradient in zip(node.inputs, _gradients_of(b, node, incoming, reaching), strict=True):
            if gradient is not None and value in reaching and value.dtype.is_float:
                totals.add(value, gradient)
            elif value in reaching:
                stopped.append((node, value))
    finally:
        b.location = before


def _incoming(b: Any, value: Value, totals: Totals, targets: set[Value]) -> Value | None:
    """What has reached a value, to be passed on; zeros for a float that nothing has reached."""
    found = totals.get(value)
    # A target keeps its total: it may stand in the middle of the path to another one.
    if found is not None and value not in targets:
        totals.forget(value)
    return b.zeros_like(value) if found is None and value.dtype.is_float else found


def _gradients_of(b: Any, node: Node, incoming: Sequence[Value | None], reaching: set[Value]) -> Sequence[Value | None]:
    rule = node.op.gradient_rule
    if rule is not None:
        return rule(b, node, *incoming)
    if node.op.expand_rule is None:
        raise GradientError(f"operator {node.op.name!r} has no gradient", where=node.describe(), location=node.location)
    # A composition: expand it with the same inputs and differentiate that.
    expanded = node.op.expand_rule(b, *node.inputs, **node.attributes)
    results = expanded if isinstance(expanded, tuple) else (expanded,)
    pairs = [(y, dy) for y, dy in zip(results, incoming, strict=True) if dy is not None]
    wanted = [value for value in node.inputs if value in reaching and value.dtype.is_float]
    found = gradients(
        b, [y for y, _ in pairs], wanted, [dy for _, dy in pairs], unconnected="none", producer=_within(node)
    )
    by_value = dict(zip(wanted, found, strict=True))
    seen: set[Value] = set()
    parts: list[Value | None] = []
    for value in node.inputs:
        # An input given twice got its whole gradient at once.
        parts.append(None if value in seen else by_value.get(value))
        seen.add(value)
    return parts


def _within(node: Node) -> Producer:
    """Stop at the inputs of an expanded composition."""
    inputs = set(node.inputs)

    def producer(value: Value) -> Node | None:
        return None if value in inputs else value.node

    return producer
