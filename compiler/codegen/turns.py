"""Loops that take several numbers at a time: neighbours, or such as lie far apart.

Rows that come from memory are best taken far apart, as streams that run on from turn to turn: neighbours that are short end before
the hardware follows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pierian.compiler.codegen.writer import FunctionWriter, Value, i64


@contextmanager
def turns(writer: FunctionWriter, begin: Value, end: Value, count: int, far: bool) -> Iterator[tuple[list[Value], int]]:
    """A loop over the numbers begin <= i < end, `count` in each turn. Inside: those of the turn, some of which lie beyond the end in
    the last turns if `count` does not divide them, and how far each is from the next turn's."""
    apart, step, stop = i64(1), count, end
    if far:
        apart = writer.op("udiv", writer.add(writer.sub(end, begin), i64(count - 1)), i64(count))
        step, stop = 1, writer.add(begin, apart)
    with writer.loop(begin, stop, step) as loop:
        yield [writer.add(loop.index, writer.mul(apart, i64(i))) for i in range(count)], step


def whole_end(writer: FunctionWriter, low: Value, high: Value, width: int) -> Value:
    """Where the whole steps of `width` elements from `low` on end."""
    return writer.add(low, writer.round_down(writer.sub(high, low), width))
