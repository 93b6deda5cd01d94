"""Gradients of loops that go on while a condition holds.

With `maximum_iterations` such a loop is differentiated as a scan of that many steps that idles once the condition fails.

Without, the number of steps T is counted first. The way back walks segments of the loop from the last to the first: a snapshot of
the state at the start of each is taken on one more way forward, and chunks of CHUNK steps inside a segment are differentiated as
scans.

    steps       0 . . . . . . . . . . . . . . . . . . . . . . . . . . T
    snapshots   ^               ^               ^               ^
    chunks      |   :   :   :   |   :   :   :   |   :   :   :   |  :

There are SNAPSHOTS segments, so the memory is known before the run. Up to CHUNK * SNAPSHOTS steps a segment is one chunk: every step
runs three times forward and once backward. Of longer loops the start of a chunk is computed again from its segment's snapshot, in
T / (2 CHUNK SNAPSHOTS) times the time of the loop, all chunks together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pierian.compiler.autodiff.control import current_builder, listed
from pierian.compiler.autodiff.reverse import gradients
from pierian.compiler.graph.inline import inline
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.ops.control import build_cond, build_scan, build_while

# Each costs as many copies of the state in memory, and as many turns that do nothing where the loop is short.
CHUNK = 32
SNAPSHOTS = 32


def while_gradient(b: Any, node: Node, dys: Sequence[Value | None]) -> Sequence[Value | None]:
    """See the module."""
    limit = node.attributes["maximum_iterations"]
    return _bounded(b, node, dys, limit) if limit is not None else _Unbounded(b, node).gradient(dys)


def _bounded(b: Any, node: Node, dys: Sequence[Value | None], limit: int) -> Sequence[Value | None]:
    count = node.attributes["state"]
    condition, body = node.bodies
    states, rest = node.inputs[:count], node.inputs[count:]

    def step(active: Value, *arguments: Value) -> list[Value]:
        inner = current_builder()
        captured = [inner.as_value(value) for value in rest]
        (going,) = inline(inner, condition, [*arguments, *captured])
        now = inner.logical_and(active, going)
        moved = build_cond(
            inner, now,
            lambda: inline(current_builder(), body, [current_builder().as_value(v) for v in (*arguments, *captured)]),
            lambda: [current_builder().as_value(value) for value in arguments],
        )  # fmt: skip
        return [now, *listed(moved)]

    made = listed(build_scan(b, step, [b.constant(True), *states], [], limit))
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


class _Unbounded:
    """The gradient of a loop whose number of steps is not known."""

    def __init__(self, b: Any, node: Node) -> None:
        self.b = b
        self.condition, self.body = node.bodies
        count = node.attributes["state"]
        self.states, self.rest = node.inputs[:count], node.inputs[count:]
        self.float_states = [i for i, value in enumerate(self.states) if value.dtype.is_float]
        self.float_rest = [i for i, value in enumerate(self.rest) if value.dtype.is_float]

    def gradient(self, dys: Sequence[Value | None]) -> Sequence[Value | None]:
        """The gradients for the loop's inputs."""
        b = self.b
        self.steps = self._count()
        segment = b.floor_divide(b.add(self.steps, _number(b, SNAPSHOTS - 1)), _number(b, SNAPSHOTS))
        self.segment = b.maximum(segment, _number(b, CHUNK))
        snapshots = self._snapshots()
        start = [dys[i] if dys[i] is not None else b.zeros_like(self.states[i]) for i in self.float_states]
        totals = [b.zeros_like(self.rest[i]) for i in self.float_rest]
        last = b.multiply(self.segment, _number(b, SNAPSHOTS - 1))

        def back(begin: Value, *arguments: Value) -> list[Value]:
            inner = current_builder()
            split = len(start) + len(totals)
            found = self._segment(begin, arguments[:split], arguments[split:])
            return [inner.subtract(begin, inner.as_value(self.segment)), *found]

        made = listed(build_scan(b, back, [last, *start, *totals], snapshots, SNAPSHOTS, reverse=True))[1:]
        result: list[Value | None] = [None] * (len(self.states) + len(self.rest))
        places = [*self.float_states, *(len(self.states) + i for i in self.float_rest)]
        for place, value in zip(places, made, strict=True):
            result[place] = value
        return result

    def _captured(self) -> list[Value]:
        return [current_builder().as_value(value) for value in self.rest]

    def _step(self, state: Sequence[Value]) -> list[Value]:
        return inline(current_builder(), self.body, [*state, *self._captured()])

    def _advance(self, begin: Value, state: Sequence[Value], going: Callable[..., Value]) -> list[Value]:
        """The number of steps and the state after some more, while `going(number, *state)`."""

        def step(at: Value, *now: Value) -> list[Value]:
            inner = current_builder()
            return [inner.add(at, _number(inner, 1)), *self._step(now)]

        return listed(build_while(current_builder(), going, step, [begin, *state]))

    def _state_at(self, end: Value, begin: Value, state: Sequence[Value]) -> list[Value]:
        """The state after `end` steps, given that after `begin`; the same where that is not before the end."""
        made = self._advance(begin, state, lambda at, *_: current_builder().less(at, current_builder().as_value(end)))
        return made[1:]

    def _count(self) -> Value:
        def going(_: Value, *now: Value) -> Value:
            return inline(current_builder(), self.condition, [*now, *self._captured()])[0]

        return self._advance(_number(self.b, 0), self.states, going)[0]

    def _end(self, begin: Value) -> Value:
        """Where the segment that begins there ends."""
        inner = current_builder()
        return inner.minimum(inner.add(begin, inner.as_value(self.segment)), inner.as_value(self.steps))

    def _snapshots(self) -> list[Value]:
        """The states at the beginning of each segment, stacked."""

        def walk(begin: Value, *state: Value) -> list[Value]:
            following = self._state_at(self._end(begin), begin, state)
            inner = current_builder()
            return [inner.add(begin, inner.as_value(self.segment)), *following, *state]

        made = listed(build_scan(self.b, walk, [_number(self.b, 0), *self.states], [], SNAPSHOTS))
        return made[1 + len(self.states) :]

    def _segment(self, begin: Value, carried: Sequence[Value], snapshot: Sequence[Value]) -> list[Value]:
        """Gradients of the state and sums of those of what all steps use, carried back over the chunks of a segment."""
        inner = current_builder()
        end, chunk = self._end(begin), _number(inner, CHUNK)
        chunks = inner.floor_divide(inner.add(inner.subtract(end, begin), _number(inner, CHUNK - 1)), chunk)

        def more(left: Value, *_: Value) -> Value:
            return current_builder().greater(left, _number(current_builder(), 0))

        def back(left: Value, *now: Value) -> list[Value]:
            body = current_builder()
            left = body.subtract(left, _number(body, 1))
            first = body.add(body.as_value(begin), body.multiply(left, _number(body, CHUNK)))
            before = self._state_at(first, body.as_value(begin), [body.as_value(value) for value in snapshot])
            d_state, sums = now[: len(self.float_states)], now[len(self.float_states) :]
            found = self._chunk(first, body.as_value(end), before, d_state)
            d_rest = found[len(d_state) :]
            return [left, *found[: len(d_state)], *(body.add(s, d) for s, d in zip(sums, d_rest, strict=True))]

        return listed(build_while(inner, more, back, [chunks, *carried]))[1:]

    def _chunk(self, first: Value, end: Value, before: Sequence[Value], d_state: Sequence[Value]) -> list[Value]:
        """The gradients for the state before a chunk and for what its steps use."""
        b = current_builder()
        rest = self._captured()

        def step(at: Value, *state: Value) -> list[Value]:
            inner = current_builder()
            moved = build_cond(
                inner, inner.less(at, inner.as_value(end)),
                lambda: self._step([current_builder().as_value(value) for value in state]),
                lambda: [current_builder().as_value(value) for value in state],
            )  # fmt: skip
            return [inner.add(at, _number(inner, 1)), *listed(moved)]

        made = listed(build_scan(b, step, [first, *before], [], CHUNK))[1:]
        wanted = [*(before[i] for i in self.float_states), *(rest[i] for i in self.float_rest)]
        inputs = {id(value) for value in (*before, *rest)}
        found = gradients(
            b, [made[i] for i in self.float_states], wanted, d_state, unconnected="zero",
            producer=lambda value: None if id(value) in inputs else value.node,
        )  # fmt: skip
        return [value for value in found if value is not None]


def _number(b: Any, value: int) -> Value:
    made: Value = b.constant(value, "int64")
    return made
