"""Building control flow: Python callables traced into closed bodies, and closed graphs put in line.

A body is traced in a graph of its own. What it reads from around it becomes a parameter there and an operand of the
node, so that the finished body refers to nothing outside itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pierian.compiler.dim import Dim, definitely_differ
from pierian.compiler.dtype import int32, int64
from pierian.compiler.errors import ArgumentError, ShapeError
from pierian.compiler.graph.builder import Builder, GraphBuilder, using
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Value
from pierian.compiler.shape import TensorType

BodyFunction = Callable[..., Any]


class BodyBuilder(GraphBuilder):
    """Adds nodes to a body; values from around it are captured.

    Attributes:
        outer: the builder of what the body stands in, which may be a body itself.
    """

    def __init__(self, graph: Graph, outer: Builder) -> None:
        super().__init__(graph)
        self.outer = outer
        if isinstance(outer, GraphBuilder):
            graph.parent = outer.graph
        self.location = outer.location

    def adopt(self, value: Value) -> Value:
        if value.node.graph is self.graph:
            return value
        outside = self.outer.adopt(value)
        known = self.graph.captures.get(outside)
        if known is None:
            known = self.placeholder(outside.type, f"captured_{outside.node.name}".replace("/", "_"))
            self.graph.captures[outside] = known
        return known

    def results(self, given: Any, types: Sequence[TensorType] | None = None) -> list[Value]:
        """What a traced function returned as values; plain numbers take the element types of `types`."""
        listed = list(given) if isinstance(given, (list, tuple)) else [given]
        if types is not None and len(listed) != len(types):
            raise ArgumentError(
                "a body returns the wrong number of values", got=len(listed), expected=len(types), location=self._here()
            )
        values: list[Value] = []
        for position, one in enumerate(listed):
            value = self.as_value(one, weak=types is not None)
            if not isinstance(value, Value):
                assert types is not None
                value = self.constant(value, types[position].dtype)
            values.append(value)
        return values

    def close(self, captured: Sequence[Value], outputs: Sequence[Value]) -> Graph:
        """The finished body: after its own parameters those for `captured`, in that order."""
        graph = self.graph
        own = graph.inputs[:]
        for parameter in graph.captures.values():
            own.remove(parameter)
        parameters = [self.adopt(value) for value in captured]
        graph.inputs[:] = [*own, *parameters]
        graph.set_outputs(outputs)
        graph.parent, graph.captures = None, {}
        return graph


def _begin(b: Builder, name: str, types: Sequence[TensorType], like: Value | None) -> tuple[BodyBuilder, list[Value]]:
    """A builder for a new body, and its parameters of these types."""
    if isinstance(b, GraphBuilder):
        value_type = b.graph.value_type
    elif like is not None:
        value_type = type(like)
    else:
        raise ArgumentError("control flow needs at least one tensor", where=name)
    builder = BodyBuilder(Graph(name, value_type), b)
    return builder, [builder.placeholder(type_, f"{name}_{i}") for i, type_ in enumerate(types)]


def _captured(*builders: BodyBuilder) -> list[Value]:
    """What any of these bodies captured, in the order of first use."""
    return list(dict.fromkeys(value for builder in builders for value in builder.graph.captures))


def _listed(made: Any) -> list[Value]:
    return list(made) if isinstance(made, tuple) else [made]


def build_cond(
    b: Builder, predicate: Any, true_fn: BodyFunction, false_fn: BodyFunction, name: str | None = None
) -> list[Value]:
    """A `cond` node: the values `true_fn()` returns where `predicate` (a bool scalar) is true, else those of `false_fn()`.

    Both functions take nothing and return values, or sequences of equally many, of equal types; a plain number takes
    the element type of its counterpart.

    Raises:
        ArgumentError: the branches return different numbers of values.
        DTypeError, ShapeError: they return different types.
    """
    from pierian.compiler.ops.definition import operator_named  # operators are defined on top of this module

    condition = b.as_value(predicate)
    builders: list[BodyBuilder] = []
    given: list[list[Any]] = []
    for word, function in (("then", true_fn), ("otherwise", false_fn)):
        builder, _ = _begin(b, word, (), condition)
        with using(builder):
            made = function()
            listed = list(made) if isinstance(made, (list, tuple)) else [made]
            given.append([builder.as_value(one, weak=True) for one in listed])
        builders.append(builder)
    if len(given[0]) != len(given[1]):
        raise ArgumentError(
            "the branches return different numbers of values", got=f"{len(given[0])} and {len(given[1])}", location=b._here()
        )
    for first, second in zip(*given, strict=True):
        _check_branches(b, first, second)
    outputs = [
        [_like_counterpart(builder, one, other) for one, other in zip(mine, theirs, strict=True)]
        for builder, mine, theirs in zip(builders, given, reversed(given), strict=True)
    ]
    captured = _captured(*builders)
    bodies = [builder.close(captured, values) for builder, values in zip(builders, outputs, strict=True)]
    return _listed(b.apply(operator_named("cond"), (condition, *captured), {}, bodies, name))


def _like_counterpart(builder: BodyBuilder, value: Any, other: Any) -> Value:
    if isinstance(value, Value):
        return value
    return builder.constant(value, other.dtype if isinstance(other, Value) else None)


def _check_branches(b: Builder, first: Any, second: Any) -> None:
    if isinstance(first, Value) and isinstance(second, Value) and first.type.shape != second.type.shape:
        raise ShapeError(
            "the branches of a cond return different shapes", got=f"{first.type} and {second.type}", location=b._here()
        )


def build_while(
    b: Builder,
    cond_fn: BodyFunction,
    body_fn: BodyFunction,
    init: Sequence[Any],
    maximum_iterations: int | None = None,
    name: str | None = None,
) -> list[Value]:
    """A `while_loop` node: `body_fn` applied to the loop variables as long as `cond_fn` of them is true.

    Args:
        b: the builder the node is made with.
        cond_fn: takes the loop variables, returns a bool scalar.
        body_fn: takes the loop variables, returns as many values of the same types.
        init: the loop variables before the first turn.
        maximum_iterations: turns after which the loop ends in any case.

    Raises:
        DTypeError, ShapeError: a loop variable changes its type.
    """
    from pierian.compiler.ops.definition import operator_named

    start = [b.as_value(one) for one in init]
    types = [value.type for value in start]
    like = start[0] if start else None
    condition, parameters = _begin(b, "condition", types, like)
    with using(condition):
        test = condition.results(cond_fn(*parameters))
    body, parameters = _begin(b, "body", types, like)
    with using(body):
        following = body.results(body_fn(*parameters), types)
    captured = _captured(condition, body)
    bodies = [condition.close(captured, test), body.close(captured, following)]
    attributes = {"state": len(start), "maximum_iterations": maximum_iterations}
    return _listed(b.apply(operator_named("while_loop"), (*start, *captured), attributes, bodies, name))


def build_scan(
    b: Builder,
    fn: BodyFunction,
    init: Sequence[Any],
    sequences: Sequence[Any] = (),
    length: Dim | None = None,
    reverse: bool = False,
    name: str | None = None,
) -> tuple[list[Value], list[Value]]:
    """A `scan` node: `fn(state, slices) -> (state, outputs)` applied along the first axis of `sequences`.

    Args:
        b: the builder the node is made with.
        fn: takes a list of the state and a list of one slice of each sequence; returns the state after the step (as
            many values of the same types) and the step's outputs (any number).
        init: the state before the first step.
        sequences: what is walked along; the first axes have `length`.
        length: the number of steps; needed where there are no sequences.
        reverse: from the last slice to the first. Outputs stand at the places of the slices they were made from.

    Returns:
        The state after the last step, and the outputs of all steps stacked along a new first axis.

    Raises:
        ArgumentError: neither sequences nor a length.
        ShapeError: sequences of different lengths, or a state that changes its shape.
    """
    from pierian.compiler.ops.definition import operator_named

    start = [b.as_value(one) for one in init]
    walked = [b.as_value(one) for one in sequences]
    length = _common_length(b, walked, length)
    types = [value.type for value in start]
    slices = [TensorType(value.dtype, value.shape[1:]) for value in walked]
    like = next(iter((*start, *walked)), None)
    builder, parameters = _begin(b, "step", [*types, *slices], like)
    with using(builder):
        made = fn(list(parameters[: len(start)]), list(parameters[len(start) :]))
        if not isinstance(made, tuple) or len(made) != 2:
            raise ArgumentError("a scan's function returns a pair: the state and the outputs", got=repr(made)[:80])
        outputs = [*builder.results(made[0], types), *builder.results(made[1])]
    captured = _captured(builder)
    body = builder.close(captured, outputs)
    attributes = {"state": len(start), "sequences": len(walked), "length": length, "reverse": reverse}
    values = _listed(b.apply(operator_named("scan"), (*start, *walked, *captured), attributes, (body,), name))
    return values[: len(start)], values[len(start) :]


def _common_length(b: Builder, walked: Sequence[Value], length: Dim | None) -> Dim:
    for value in walked:
        if not value.shape:
            raise ShapeError("a scalar has no axis to walk along", where=value.name, got=value.type, location=b._here())
        if length is None:
            length = value.shape[0]
        elif definitely_differ(length, value.shape[0]):
            raise ShapeError("sequences differ in length", got=value.shape[0], expected=length, location=b._here())
    if length is None:
        raise ArgumentError("a scan without sequences needs a length", location=b._here())
    return length


def inline(b: Builder, graph: Graph, arguments: Sequence[Value]) -> list[Value]:
    """The outputs of a closed graph for these arguments, computed by copies of its nodes made with `b`."""
    mapping: dict[Value, Value] = dict(zip(graph.inputs, arguments, strict=True))
    for node in graph.nodes:
        if node.op.name == "placeholder":
            continue
        if node.op.name == "constant":
            made: Any = b.constant(node.attributes["value"])
        else:
            bodies = tuple(body.clone(None, body.value_type) for body in node.bodies)
            made = b.apply(node.op, [mapping[value] for value in node.inputs], dict(node.attributes), bodies)
        mapping.update(zip(node.outputs, _listed(made), strict=True))
    return [mapping[value] for value in graph.outputs]


def step_counter(b: Builder, wide: bool = True) -> Value:
    """Zero, to count steps from."""
    return b.constant(0, int64 if wide else int32)
