"""Squares of vectors transposed in registers, in place or by a function that kernels share."""

from __future__ import annotations

import functools

from pierian.compiler.codegen.writer import FunctionWriter, Value, i64, vector
from pierian.compiler.dtype import DType


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


def transpose(writer: FunctionWriter, lines: list[Value]) -> list[Value]:
    """The transposed square: log2(lanes) rounds, each interleaving line i with line i + lanes/2."""
    lanes = len(lines)
    half = lanes // 2
    rounds = lanes.bit_length() - 1
    type_ = lines[0].type
    low = ", ".join(f"i32 {i // 2 + (lanes if i % 2 else 0)}" for i in range(lanes))
    high = ", ".join(f"i32 {half + i // 2 + (lanes if i % 2 else 0)}" for i in range(lanes))
    for _ in range(rounds):
        following = []
        for i in range(half):
            pair = f"{type_} {lines[i].text}, {type_} {lines[i + half].text}"
            for order in (low, high):
                following.append(writer.emit(f"shufflevector {pair}, <{lanes} x i32> <{order}>", type_))
        lines = following
    return lines
