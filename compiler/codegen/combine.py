"""Combiners of reductions: identity, pairwise combination, and across the lanes of a vector in a fixed tree."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pierian.compiler.codegen.scalars import emit_scalar, register_type
from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, element_of, lanes_of, vector
from pierian.compiler.dtype import DType, int64
from pierian.compiler.kernel.scalar import scalar

# A running result: one value, or for argmax/argmin the extreme value and its position (int64).
State = list[Value]

_OPERATION = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "or", "all": "and"}


def identity_value(combiner: str, dtype: DType) -> int | float | bool:
    """What an empty reduction gives; for argmax/argmin the value no element is worse than."""
    if combiner in ("any", "all"):
        return combiner == "all"
    if combiner in ("sum", "prod"):
        return 0 if combiner == "sum" else 1
    lowest = combiner in ("max", "argmax")
    if dtype.is_float:
        return -math.inf if lowest else math.inf
    if dtype.is_bool:
        return not lowest
    half = 1 << (dtype.bits - 1)
    return -half if lowest else half - 1


def identity(combiner: str, dtype: DType, lanes: int) -> State:
    """The state before the first element. Positions start at the largest int64, so that any position is better."""
    start = constant(identity_value(combiner, dtype), register_type(dtype), lanes)
    if not combiner.startswith("arg"):
        return [start]
    return [start, constant((1 << 63) - 1, "i64", lanes)]


def state_types(combiner: str, dtype: DType, lanes: int) -> list[str]:
    """LLVM types of a state."""
    types = [vector(register_type(dtype), lanes)]
    return [*types, vector("i64", lanes)] if combiner.startswith("arg") else types


def result_dtype(combiner: str, dtype: DType) -> DType:
    """The element type a reduction gives."""
    return int64 if combiner.startswith("arg") else dtype


def result(combiner: str, state: State) -> Value:
    """The reduction's result from its final state."""
    return state[1] if combiner.startswith("arg") else state[0]


def combine(writer: FunctionWriter, combiner: str, dtype: DType, x: State, y: State) -> State:
    """Both states as one. Of equally extreme values the lower position wins; a NaN is more extreme than any number."""
    if not combiner.startswith("arg"):
        node = scalar(_OPERATION[combiner], dtype)
        if dtype.is_bool and combiner in ("sum", "max"):
            return [writer.op("or", x[0], y[0])]
        if dtype.is_bool and combiner in ("prod", "min"):
            return [writer.op("and", x[0], y[0])]
        return [emit_scalar(writer, node, [x[0], y[0]])]
    greater = combiner == "argmax"
    (a, i), (b, j) = x, y
    if dtype.is_float:
        better = writer.cmp("fcmp ogt" if greater else "fcmp olt", b, a)
        same = writer.cmp("fcmp oeq", b, a)
        b_nan, a_nan = writer.cmp("fcmp uno", b, b), writer.cmp("fcmp uno", a, a)
        better = writer.op("or", better, writer.op("and", b_nan, writer.op("xor", a_nan, _all_ones(a_nan))))
        same = writer.op("or", same, writer.op("and", a_nan, b_nan))
    else:
        sign = "u" if dtype.is_bool else "s"
        better = writer.cmp(f"icmp {sign}{'gt' if greater else 'lt'}", b, a)
        same = writer.cmp("icmp eq", b, a)
    earlier = writer.cmp("icmp slt", j, i)
    take = writer.op("or", better, writer.op("and", same, earlier))
    return [writer.select(take, b, a), writer.select(take, j, i)]


def advance(writer: FunctionWriter, combiner: str, dtype: DType, state: State, value: State) -> State:
    """`combine` where every position in `value` is behind those in `state` (one lane walking forward): cheaper."""
    if not combiner.startswith("arg"):
        return combine(writer, combiner, dtype, state, value)
    (a, i), (b, j) = state, value
    greater = combiner == "argmax"
    if dtype.is_float:
        # Not (b <= a) is true for a better b and for a NaN b; a NaN a keeps its place.
        better = writer.cmp("fcmp ugt" if greater else "fcmp ult", b, a)
        settled = writer.cmp("fcmp ord", a, a)
        better = writer.op("and", better, settled)
        first = writer.cmp("icmp eq", i, constant((1 << 63) - 1, "i64", lanes_of(i.type)))
        better = writer.op("or", better, first)
    else:
        sign = "u" if dtype.is_bool else "s"
        better = writer.cmp(f"icmp {sign}{'gt' if greater else 'lt'}", b, a)
        first = writer.cmp("icmp eq", i, constant((1 << 63) - 1, "i64", lanes_of(i.type)))
        better = writer.op("or", better, first)
    return [writer.select(better, b, a), writer.select(better, j, i)]


def merge(writer: FunctionWriter, combiner: str, dtype: DType, states: Sequence[State]) -> State:
    """Several states as one, in a balanced tree fixed by their order."""
    level = list(states)
    while len(level) > 1:
        paired = [combine(writer, combiner, dtype, x, y) for x, y in zip(level[::2], level[1::2], strict=False)]
        level = paired + ([level[-1]] if len(level) % 2 else [])
    return level[0]


def across_lanes(writer: FunctionWriter, combiner: str, dtype: DType, state: State) -> State:
    """The lanes of a state as one scalar state: upper half with lower half, until one lane is left."""
    lanes = lanes_of(state[0].type)
    while lanes > 1:
        lanes //= 2
        low = [_half(writer, part, 0, lanes) for part in state]
        high = [_half(writer, part, lanes, lanes) for part in state]
        state = combine(writer, combiner, dtype, low, high)
    return [writer.extract(part, 0) if part.type.startswith("<") else part for part in state]


def _half(writer: FunctionWriter, value: Value, first: int, lanes: int) -> Value:
    element = element_of(value.type)
    if lanes == 1:
        return writer.extract(value, first)
    order = ", ".join(f"i32 {first + lane}" for lane in range(lanes))
    return writer.emit(f"shufflevector {value}, {value.type} poison, <{lanes} x i32> <{order}>", vector(element, lanes))


def _all_ones(value: Value) -> Value:
    return constant(True, "i1", lanes_of(value.type))
