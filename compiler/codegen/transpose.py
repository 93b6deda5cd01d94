"""Squares of vectors transposed in registers, in place or by a function that kernels share."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from pierian.compiler.codegen.combine import SHUFFLED_BYTES
from pierian.compiler.codegen.writer import FunctionWriter, Value, element_of, i64, lanes_of, vector
from pierian.compiler.dtype import DType

_BYTES = {"i8": 1, "i16": 2, "half": 2, "bfloat": 2, "i32": 4, "float": 4, "i64": 8, "double": 8}


def turn_name(dtype: DType, lanes: int) -> str:
    """What `emit_turn`'s function is called in every module."""
    return f"pierian_turn_{dtype}_{lanes}"


@functools.lru_cache(maxsize=16)
def emit_turn(dtype: DType, lanes: int) -> FunctionWriter:
    """void TURN(ptr square, ptr target, i64 stride, i64 rows): the first rows of a transposed square, `stride` elements apart."""
    writer = FunctionWriter(
        turn_name(dtype, lanes), "void", [("square", "ptr"), ("target", "ptr"), ("stride", "i64"), ("rows", "i64")]
    )
    element, type_ = dtype.llvm, vector(dtype.llvm, lanes)
    lines = [
        writer.load(writer.gep(writer.arg("square"), element, i64(lane * lanes)), type_, dtype.itemsize)
        for lane in range(lanes)
    ]
    turned = transpose(writer, lines)
    whole, some, done = writer.label("whole"), writer.label("some"), writer.label("done")
    writer.cond_br(writer.cmp("icmp eq", writer.arg("rows"), i64(lanes)), whole, some)

    def store(lane: int) -> None:
        place = writer.gep(writer.arg("target"), element, writer.mul(writer.arg("stride"), i64(lane)))
        writer.store(turned[lane], place, dtype.itemsize)

    writer.start(whole)
    for lane in range(lanes):
        store(lane)
    writer.br(done)
    writer.start(some)
    for lane in range(lanes):
        with writer.when(writer.cmp("icmp sgt", writer.arg("rows"), i64(lane))):
            store(lane)
    writer.br(done)
    writer.start(done)
    writer.ret()
    return writer


def transpose(writer: FunctionWriter, lines: Sequence[Value]) -> list[Value]:
    """The transposed square: first inside blocks of registers within which shuffles are cheapest, then block by block."""
    lanes = len(lines)
    block = min(lanes, SHUFFLED_BYTES // _BYTES[element_of(lines[0].type)])
    groups = [_inside_blocks(writer, lines[at : at + block], 1, block) for at in range(0, lanes, block)]
    turned = [_blocks(writer, [group[place] for group in groups], block) for place in range(block)]
    return [turned[lane % block][lane // block] for lane in range(lanes)]


def _inside_blocks(writer: FunctionWriter, lines: Sequence[Value], width: int, block: int) -> list[Value]:
    """In each block of the result number i, the elements number i of that block in all lines."""
    if len(lines) == 1:
        return list(lines)
    lanes = lanes_of(lines[0].type)
    halves = []
    for half in (0, block // 2):
        starts = [first + half + at for first in range(0, lanes, block) for at in range(0, block // 2, width)]
        order = [of + at + i for at in starts for of in (0, lanes) for i in range(width)]
        pairs = zip(lines[::2], lines[1::2], strict=True)
        halves.append(_inside_blocks(writer, [writer.shuffle(order, x, y) for x, y in pairs], 2 * width, block))
    return halves[0] + halves[1]


def _blocks(writer: FunctionWriter, lines: Sequence[Value], block: int) -> list[Value]:
    """As many lines as they have blocks: the result number i has block number i of all."""
    if len(lines) == 1:
        return list(lines)
    found = list(lines)
    for odd in (0, 1):
        starts = range(odd * block, 2 * lanes_of(lines[0].type), 2 * block)
        order = [at + i for at in starts for i in range(block)]
        pairs = zip(lines[::2], lines[1::2], strict=True)
        found[odd::2] = _blocks(writer, [writer.shuffle(order, x, y) for x, y in pairs], block)
    return found
