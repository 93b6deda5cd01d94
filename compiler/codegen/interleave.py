"""Interleaved elements in registers: vectors that hold x[point, place] one after the other as one vector for each place, and back.

With `count` places and as many vectors, the elements of one place lie `count` apart. Those of every p-th place are picked first, for
a prime p of `count`, then what is left is separated the same way; where `count` is a multiple of the lanes, squares are transposed.
"""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.codegen.transpose import transpose
from pierian.compiler.codegen.writer import FunctionWriter, Value, lanes_of
from pierian.compiler.schedule.shuffles import smallest_prime


def separate(writer: FunctionWriter, vectors: Sequence[Value]) -> list[Value]:
    """Element (point, place) lies at point * count + place of the vectors; the result is one vector of all points for each place."""
    count, lanes = len(vectors), lanes_of(vectors[0].type)
    if count == 1:
        return list(vectors)
    if count % lanes == 0:
        wide = count // lanes
        squares = [transpose(writer, list(vectors[first::wide])) for first in range(wide)]
        return [place for square in squares for place in square]
    prime = smallest_prime(count)
    found: list[Value] = list(vectors)
    for remainder in range(prime):
        order = [lane * prime + remainder for lane in range(lanes)]
        stream = [_picked(writer, vectors[at : at + prime], order) for at in range(0, count, prime)]
        found[remainder::prime] = separate(writer, stream)
    return found


def join(writer: FunctionWriter, vectors: Sequence[Value]) -> list[Value]:
    """The opposite of `separate`."""
    count, lanes = len(vectors), lanes_of(vectors[0].type)
    if count == 1:
        return list(vectors)
    found: list[Value] = list(vectors)
    if count % lanes == 0:
        wide = count // lanes
        for first in range(wide):
            found[first::wide] = transpose(writer, list(vectors[first * lanes : (first + 1) * lanes]))
        return found
    prime = smallest_prime(count)
    streams = [join(writer, vectors[remainder::prime]) for remainder in range(prime)]
    for at in range(count):
        places = [divmod((at % prime) * lanes + lane, prime) for lane in range(lanes)]
        sources = [stream[at // prime] for stream in streams]
        found[at] = _picked(writer, sources, [remainder * lanes + place for place, remainder in places])
    return found


def repeat(writer: FunctionWriter, vector: Value, count: int, number: int) -> Value:
    """Vector `number` of those that hold each element `count` times: what `join` makes of equal vectors."""
    lanes = lanes_of(vector.type)
    return writer.shuffle([(number * lanes + lane) // count for lane in range(lanes)], vector)


def _picked(writer: FunctionWriter, sources: Sequence[Value], order: Sequence[int]) -> Value:
    """Some lanes of vectors numbered through, by shuffles of two at a time."""
    lanes, type_ = lanes_of(sources[0].type), sources[0].type
    found = sources[0]
    for number, source in enumerate(sources[1:], 1):
        first = number == 1
        picked = []
        for lane, place in enumerate(order):
            if place // lanes == number:
                picked.append(f"i32 {lanes + place % lanes}")
            elif place // lanes < number:
                picked.append(f"i32 {place if first else lane}")
            else:
                picked.append("i32 poison")
        found = writer.emit(f"shufflevector {found}, {source}, <{lanes} x i32> <{', '.join(picked)}>", type_)
    return found
