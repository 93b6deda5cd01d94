"""Combiners of reductions: identity, pairwise combination, and across the lanes of a vector in a fixed tree."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pierian.compiler.codegen.scalars import emit_scalar, register_type
from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, element_of, lanes_of, vector
from pierian.compiler.dtype import DType, int32, int64
from pierian.compiler.kernel.scalar import scalar

# A running result: one value, or for argmax/argmin the extreme value and its position (int64).
State = list[Value]

# Bytes of the blocks of registers within which shuffles are cheapest: the smallest vector registers.
SHUFFLED_BYTES = 16

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


def number_type(dtype: DType, fits: bool) -> str:
    """The type of step numbers beside lanes of `dtype`: as narrow as the lanes where 32 bits can hold every step."""
    return "i32" if fits and dtype.bits < 64 else "i64"


def start(combiner: str, dtype: DType, lanes: int, number: str) -> State:
    """The state before a walk whose lanes only go forward. For argmax/argmin it holds the number of the step at which a lane met
    its extreme, not the position: narrow, and the same for all lanes. Step 0 needs no better element to count."""
    if not combiner.startswith("arg"):
        return identity(combiner, dtype, lanes)
    return [identity(combiner, dtype, lanes)[0], constant(0, number, lanes)]


def advance_masked(
    writer: FunctionWriter, combiner: str, dtype: DType, state: State, value: State, mask: Value | None
) -> State:
    """`advance` of the lanes in the mask, where there is one; the others stay."""
    advanced = advance(writer, combiner, dtype, state, value)
    if mask is None:
        return advanced
    return [writer.select(mask, after, before) for after, before in zip(advanced, state, strict=True)]


def advance(writer: FunctionWriter, combiner: str, dtype: DType, state: State, value: State) -> State:
    """A state of a walk and the next element of every lane; for argmax/argmin the element with the step's number."""
    if not combiner.startswith("arg"):
        return combine(writer, combiner, dtype, state, value)
    (a, i), (b, j) = state, value
    greater = combiner == "argmax"
    if dtype.is_float:
        # Not (b <= a) is true for a better b and for a NaN b; a NaN a keeps its place.
        better = writer.cmp("fcmp ugt" if greater else "fcmp ult", b, a)
        better = writer.op("and", writer.cmp("fcmp ord", a, a), better)
    else:
        sign = "u" if dtype.is_bool else "s"
        better = writer.cmp(f"icmp {sign}{'gt' if greater else 'lt'}", b, a)
    return [writer.select(better, b, a), writer.select(better, j, i)]


def first_extreme(writer: FunctionWriter, combiner: str, dtype: DType, states: Sequence[State]) -> State:
    """Walked states with positions (any integer type) as one scalar state: the extreme of all lanes, then the lowest position of
    the lanes that have it. Lanes that met nothing lie behind all others, and hold what no element is worse than."""
    values = [state[:1] for state in states]
    extreme = across_lanes(writer, combiner[3:], dtype, merge(writer, combiner[3:], dtype, values))[0]
    everywhere = writer.splat(extreme, lanes_of(values[0][0].type))
    kind = int64 if element_of(states[0][1].type) == "i64" else int32
    far = constant((1 << (kind.bits - 1)) - 1, kind.llvm, lanes_of(values[0][0].type))
    found = []
    for value, position in states:
        hit = writer.cmp("fcmp oeq" if dtype.is_float else "icmp eq", value, everywhere)
        if dtype.is_float:  # where a lane is NaN so is the extreme, and equals nothing
            hit = writer.op("or", hit, writer.cmp("fcmp uno", value, value))
        found.append([writer.select(hit, position, far)])
    first = across_lanes(writer, "min", kind, merge(writer, "min", kind, found))[0]
    return [extreme, writer.cast("sext", first, "i64")]


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
        low = [writer.shuffle(range(lanes), part) for part in state]
        high = [writer.shuffle(range(lanes, 2 * lanes), part) for part in state]
        state = combine(writer, combiner, dtype, low, high)
    return [writer.extract(part, 0) if part.type.startswith("<") else part for part in state]


def across_each(writer: FunctionWriter, combiner: str, dtype: DType, vectors: Sequence[Value]) -> Value:
    """`across_lanes` of some vectors, no more than they have lanes, as the first lanes of one.

    Each round halves the vectors, and the lanes that a result is spread over: first inside blocks of registers within which shuffles
    are cheapest, [x0 x1 x2 x3], [y0 y1 y2 y3] -> [x0+x2 y0+y2 x1+x3 y1+y3] and so on, then even and odd blocks.
    """
    level, lanes = list(vectors), lanes_of(vectors[0].type)
    block = min(lanes, max(1, SHUFFLED_BYTES // dtype.itemsize))
    rounds = []
    for width in (1 << i for i in range(block.bit_length() - 1)):
        starts = [at for first in range(0, lanes, block) for at in range(first, first + block // 2, width)]
        low = [lane for at in starts for of in (at, at + lanes) for lane in range(of, of + width)]
        rounds.append((low, block // 2))
    for _ in range((lanes // block).bit_length() - 1):
        rounds.append(([at + lane for at in range(0, 2 * lanes, 2 * block) for lane in range(block)], block))
    for low, distance in rounds:
        high = [lane + distance for lane in low]
        pairs = zip(level[::2], [*level[1::2], level[-1]], strict=False)
        level = [
            combine(writer, combiner, dtype, [writer.shuffle(low, x, y)], [writer.shuffle(high, x, y)])[0]
            for x, y in pairs
        ]
    return level[0]


def _all_ones(value: Value) -> Value:
    return constant(True, "i1", lanes_of(value.type))
