"""Structured control flow: operators with bodies. Bodies are closed graphs; what they use from outside comes in as operands.

Bodies are traced from Python functions by `build_cond`, `build_while` and `build_scan`, which find the captured values by
themselves. Variables are read before the run as everywhere; bodies cannot assign them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, definitely_differ
from pierian.compiler.dtype import bool_, int64
from pierian.compiler.errors import ArgumentError, DTypeError, ShapeError
from pierian.compiler.graph.builder import Builder, GraphBuilder, using
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.shape import TensorType

Types = Sequence[TensorType]
_COUNT = TensorType(int64, ())


def _output_types(body: Graph) -> list[TensorType]:
    return [value.type for value in body.outputs]


def _check_parameters(body: Graph, types: Sequence[TensorType], what: str) -> None:
    found = [value.type for value in body.inputs]
    if found != list(types):
        raise ShapeError(f"the parameters of the {what} are not its operands", got=found, expected=list(types))


def _check_predicate(type_: TensorType, what: str) -> None:
    if type_ != TensorType(bool_, ()):
        raise DTypeError(f"{what} must be a boolean scalar", got=type_, expected="bool[]")


@operator(bodies=True, public=False)
def cond(predicate: Tensor, operands: Sequence[Tensor]) -> Tensor:
    """The results of the first body where `predicate` is true, else of the second; both take `operands`."""


@cond.infer
def _cond_infer(types: Types, bodies: Sequence[Graph]) -> tuple[TensorType, ...]:
    _check_predicate(types[0], "the predicate")
    if len(bodies) != 2:
        raise ArgumentError("cond has two bodies", got=len(bodies))
    for body, what in zip(bodies, ("true branch", "false branch"), strict=True):
        _check_parameters(body, types[1:], what)
    first, second = map(_output_types, bodies)
    if first != second or not first:
        raise ShapeError("both branches must give results of the same types", got=f"{first} and {second}")
    return tuple(first)


@cond.gradient
def _cond_gradient(b: Any, node: Node, *dys: Value | None) -> Sequence[Value | None]:
    from pierian.compiler.autodiff.control import cond_gradient

    return cond_gradient(b, node, dys)


@operator(bodies=True, public=False)
def while_loop(operands: Sequence[Tensor], state: int, maximum_iterations: int | None = None) -> Tensor:
    """The loop variables after repeating the second body while the first gives true, at most `maximum_iterations` times.

    The first `state` operands are the loop variables, the others are given to both bodies unchanged.
    """


@while_loop.infer
def _while_infer(
    types: Types, bodies: Sequence[Graph], state: int, maximum_iterations: int | None
) -> tuple[TensorType, ...]:
    if len(bodies) != 2 or not 0 < state <= len(types):
        raise ArgumentError(
            "a loop has two bodies and at least one variable", got=f"{len(bodies)} bodies, {state} variables"
        )
    condition, body = bodies
    _check_parameters(condition, types, "loop condition")
    _check_parameters(body, types, "loop body")
    if len(condition.outputs) != 1:
        raise ArgumentError("a loop condition gives one result", got=len(condition.outputs))
    _check_predicate(condition.outputs[0].type, "the loop condition")
    if _output_types(body) != list(types[:state]):
        raise ShapeError(
            "the loop body must give each variable in its own type",
            got=_output_types(body),
            expected=list(types[:state]),
        )
    return tuple(types[:state])


@while_loop.gradient
def _while_gradient(b: Any, node: Node, *dys: Value | None) -> Sequence[Value | None]:
    from pierian.compiler.autodiff.whiles import while_gradient

    return while_gradient(b, node, dys)


@operator(bodies=True, public=False)
def scan(operands: Sequence[Tensor], state: int, sequences: int, length: Dim, reverse: bool = False) -> Tensor:
    """A body run `length` times, from state to state; the results of all steps are stacked along a new first axis.

    Operands: `state` initial states, then `sequences` tensors whose slices along the first axis go to the steps, then values given
    to every step. The body gives the next states, then the results of a step. Outputs: the final states, then the stacked results.
    With `reverse` the last slice comes first, and results are stacked at the places of their slices.
    """


@scan.infer
def _scan_infer(
    types: Types, bodies: Sequence[Graph], state: int, sequences: int, length: Dim, reverse: bool
) -> tuple[TensorType, ...]:
    if len(bodies) != 1 or state < 0 or sequences < 0 or state + sequences > len(types):
        raise ArgumentError("scan has one body, states and sequences", got=f"{len(bodies)} bodies")
    (body,) = bodies
    slices = []
    for type_ in types[state : state + sequences]:
        if type_.rank == 0 or definitely_differ(type_.shape[0], length):
            raise ShapeError(
                "a scanned tensor must have one slice for each step", got=type_, expected=f"{length} slices"
            )
        slices.append(TensorType(type_.dtype, type_.shape[1:]))
    _check_parameters(body, [*types[:state], *slices, *types[state + sequences :]], "scan body")
    results = _output_types(body)
    if results[:state] != list(types[:state]) or not results:
        raise ShapeError(
            "the scan body must give each state in its own type", got=results[:state], expected=list(types[:state])
        )
    return (*types[:state], *(TensorType(type_.dtype, (length, *type_.shape)) for type_ in results[state:]))


@scan.constraints
def _scan_constraints(*types: TensorType, state: int, sequences: int, length: Dim, reverse: bool) -> list[Any]:
    return [(type_.shape[0], length) for type_ in types[state : state + sequences]]


@scan.gradient
def _scan_gradient(b: Any, node: Node, *dys: Value | None) -> Sequence[Value | None]:
    from pierian.compiler.autodiff.control import scan_gradient

    return scan_gradient(b, node, dys)


# --- tracing ---------------------------------------------------------------------------------------------------


class BodyBuilder(GraphBuilder):
    """Traces a body.

    Attributes:
        outer: what builds around it.
        captures: which parameter stands for what value from outside.
        turns: whether it is the body of a loop.
        turn: the parameter that counts the loop's turns, once it has been asked for (see `turn_of`).
    """

    def __init__(self, graph: Graph, outer: Builder, turns: bool = False) -> None:
        super().__init__(graph)
        self.outer: Builder = outer
        self.captures: dict[Value, Value] = {}
        self.turns = turns
        self.turn: Value | None = None

    def adopt(self, value: Value) -> Value:
        if value.node.graph is self.graph:
            return value
        outside = self.outer.adopt(value)
        found = self.captures.get(outside)
        if found is None:
            found = self.captures[outside] = self.placeholder(
                outside.type, f"captured_{outside.node.name}".replace("/", "_")
            )
        return found


def trace_body(
    b: Builder,
    function: Callable[..., Any],
    types: Sequence[TensorType],
    name: str,
    value_type: type[Value] | None = None,
    turns: bool = False,
) -> BodyBuilder:
    """Trace `function` of parameters of the given types; its results are the body's outputs."""
    graph = Graph(name, value_type or b.value_type)
    graph.parent = b.graph
    builder = BodyBuilder(graph, b, turns)
    parameters = [builder.placeholder(type_, f"p{i}") for i, type_ in enumerate(types)]
    with using(builder):
        results = function(*parameters)
        listed = results if isinstance(results, (list, tuple)) else (results,)
        values = [builder.as_value(result) for result in listed]
    _set_results(graph, values)
    return builder


def _set_results(graph: Graph, values: Sequence[Value]) -> None:
    graph.set_outputs(values, [f"r{i}" for i in range(len(values))])


def close_bodies(bodies: Sequence[BodyBuilder]) -> list[Value]:
    """Give all bodies parameters for what any of them captured, in one order; the captured values."""
    captured = list(dict.fromkeys(value for body in bodies for value in body.captures))
    for body in bodies:
        own = [value for value in body.graph.inputs if not any(value is one for one in body.captures.values())]
        for value in captured:
            if value not in body.captures:
                body.captures[value] = body.placeholder(value.type, "unused")
        body.graph.inputs = [*own, *(body.captures[value] for value in captured)]
        body.graph.parent = None
    return captured


# Turns of a loop inside another one that are told from those in the next turn of the outer one.
INNER_TURNS = 1 << 16


def turn_of(b: Builder) -> Value | None:
    """A number that differs from turn to turn of the loops around what is being built, as an int64; None outside loops.

    A loop that is asked has the count as one more variable. Of loops in loops, turns beyond `INNER_TURNS` repeat numbers.
    """
    if not isinstance(b, BodyBuilder):
        return None
    if b.turns:
        return _count_turns(b) if b.turn is None else b.turn
    around = turn_of(b.outer)
    return None if around is None else b.adopt(around)


def _count_turns(body: BodyBuilder) -> Value:
    """Give a body the count as a parameter."""
    body.turn = body.placeholder(_COUNT, "turn")
    return body.turn


def _first_turn(b: Builder) -> Value:
    around = turn_of(b)
    if around is None:
        return b.constant(np.int64(0))
    first: Value = b.multiply(around, b.constant(np.int64(INNER_TURNS)))
    return first


def _take_turn(body: BodyBuilder, states: int) -> Value:
    """The count as the parameter behind those of the states."""
    turn, graph = _count_turns(body) if body.turn is None else body.turn, body.graph
    parameters = [value for value in graph.inputs if value is not turn]
    graph.inputs = [*parameters[:states], turn, *parameters[states:]]
    return turn


def _carry_turn(body: BodyBuilder, states: int) -> None:
    """The count as one more state: the next one is a result behind those of the states."""
    turn, results = _take_turn(body, states), body.graph.outputs
    with using(body):
        following = body.add(turn, body.constant(np.int64(1)))
    _set_results(body.graph, [*results[:states], following, *results[states:]])


def _without(made: tuple[Value, ...], position: int) -> Any:
    """What an operator gives but for one result."""
    rest = (*made[:position], *made[position + 1 :])
    return rest[0] if len(rest) == 1 else rest


def build_cond(b: Builder, predicate: Any, true_function: Callable[[], Any], false_function: Callable[[], Any]) -> Any:
    """The results of one of two functions of no arguments, chosen when the program runs."""
    bodies = [trace_body(b, true_function, (), "true"), trace_body(b, false_function, (), "false")]
    captured = close_bodies(bodies)
    chosen = b.as_value(predicate)
    return b.apply(cond, (chosen, *captured), {}, [body.graph for body in bodies])


def build_while(
    b: Builder,
    condition: Callable[..., Any],
    body: Callable[..., Any],
    initial: Sequence[Any],
    maximum_iterations: int | None = None,
) -> Any:
    """The loop variables after `body` was repeated while `condition` held; both are functions of the variables."""
    start = [b.as_value(value) for value in initial]
    types = [value.type for value in start]
    bodies = [
        trace_body(b, condition, types, "condition", turns=True), trace_body(b, body, types, "body", turns=True)
    ]  # fmt: skip
    states = len(start)
    counted = any(one.turn is not None for one in bodies)
    if counted:
        _take_turn(bodies[0], states)
        _carry_turn(bodies[1], states)
        start.append(_first_turn(b))
    captured = close_bodies(bodies)
    attributes = {"state": len(start), "maximum_iterations": maximum_iterations}
    made = b.apply(while_loop, (*start, *captured), attributes, [one.graph for one in bodies])
    return _without(made, states) if counted else made


def build_scan(
    b: Builder,
    function: Callable[..., Any],
    initial: Sequence[Any],
    sequences: Sequence[Any],
    length: Dim | None = None,
    reverse: bool = False,
) -> Any:
    """Final states and stacked results of `function(*states, *slices) -> (*states, *results)` over the slices."""
    start = [b.as_value(value) for value in initial]
    scanned = [b.as_value(value) for value in sequences]
    if length is None:
        if not scanned or scanned[0].type.rank == 0:
            raise ArgumentError("scan needs a sequence or a length")
        length = scanned[0].shape[0]
    types = [value.type for value in start]
    types += [TensorType(value.dtype, value.shape[1:]) for value in scanned]
    body = trace_body(b, function, types, "step", turns=True)
    states = len(start)
    if body.turn is not None:
        _carry_turn(body, states)
        start.append(_first_turn(b))
    captured = close_bodies([body])
    attributes = {"state": len(start), "sequences": len(scanned), "length": length, "reverse": reverse}
    made = b.apply(scan, (*start, *scanned, *captured), attributes, [body.graph])
    return _without(made, states) if body.turn is not None else made


# --- reference -------------------------------------------------------------------------------------------------


def run_bodies(node: Node, arrays: Sequence[Any], run: Callable[..., list[Any]]) -> list[Any]:
    """What a node with bodies gives, in NumPy; `run(graph, feeds)` runs a body."""

    def call(body: Graph, given: Sequence[Any]) -> list[Any]:
        return run(body, dict(zip(body.inputs, given, strict=True)))

    if node.op is cond:
        return call(node.bodies[0 if arrays[0] else 1], arrays[1:])
    count = node.attributes["state"]
    states = list(arrays[:count])
    if node.op is while_loop:
        rest = list(arrays[count:])
        limit = node.attributes["maximum_iterations"]
        done = 0
        while (limit is None or done < limit) and call(node.bodies[0], states + rest)[0]:
            states = call(node.bodies[1], states + rest)
            done += 1
        return states
    return _run_scan(node, states, arrays[count:], call)


def _run_scan(node: Node, states: list[Any], rest: Sequence[Any], call: Callable[..., list[Any]]) -> list[Any]:
    count, sequences = node.attributes["state"], node.attributes["sequences"]
    length = len(rest[0]) if sequences else int(node.attributes["length"])
    order = range(length - 1, -1, -1) if node.attributes["reverse"] else range(length)
    rows: dict[int, list[Any]] = {}
    for step in order:
        found = call(node.bodies[0], [*states, *(x[step] for x in rest[:sequences]), *rest[sequences:]])
        states, rows[step] = found[:count], found[count:]
    stacked = []
    for position, value in enumerate(node.outputs[count:]):
        shape = (0, *(int(str(dim)) for dim in value.shape[1:])) if not rows else None
        column = [rows[step][position] for step in range(length)]
        stacked.append(np.stack(column) if rows else np.zeros(shape or (0,), value.dtype.numpy))
    return [*states, *stacked]
