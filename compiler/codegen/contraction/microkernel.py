"""The register tile: `mr` rows by `nr` columns of sums of products, all in vector registers.

    void MICRO(ptr lhs, ptr rhs, i64 stride, i64 depth, ptr tile, i1 resume, ptr offsets, i64 segments)

Distances of lhs along the tile's rows and along k are fixed at compile time; `rhs` starts at the tile's first column with `stride`
elements from row to row. `tile` takes the results in row-major order; with `resume` the sums go on from what it holds. A segmented
tile sums `segments` times `depth` products: the values of lhs for segment s begin `offsets[s]` elements after `lhs`, those of rhs
follow each other.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, i64, vector
from pierian.compiler.dtype import DType

_UNROLL = 4


@dataclass(frozen=True, slots=True)
class MicroShape:
    """What a microkernel is made for.

    Attributes:
        rows, columns: sums in the tile; columns a multiple of lanes.
        lanes: elements of a vector.
        row_step, depth_step: element (i, k) of lhs lies at `i * row_step + k * depth_step`.
        segmented: whether lhs comes in segments.
    """

    rows: int
    columns: int
    lanes: int
    row_step: int
    depth_step: int
    segmented: bool


def micro_name(dtype: DType, shape: MicroShape) -> str:
    """What the function for a shape is called in every module."""
    kind = "segmented" if shape.segmented else "micro"
    return f"pierian_{kind}_{dtype}_{shape.rows}x{shape.columns}_{shape.lanes}_{shape.row_step}_{shape.depth_step}"


@functools.lru_cache(maxsize=64)
def emit_microkernel(dtype: DType, shape: MicroShape) -> FunctionWriter:
    """The function."""
    return _MicroEmitter(micro_name(dtype, shape), dtype, shape).emit()


class _MicroEmitter:
    def __init__(self, name: str, dtype: DType, shape: MicroShape) -> None:
        self.f = FunctionWriter(
            name,
            "void",
            [
                ("lhs", "ptr"), ("rhs", "ptr"), ("stride", "i64"), ("depth", "i64"), ("tile", "ptr"), ("resume", "i1"),
                ("offsets", "ptr"), ("segments", "i64"),
            ],
        )  # fmt: skip
        self.dtype = dtype
        self.shape = shape
        self.vectors = shape.columns // shape.lanes
        self.stride = self.f.arg("stride")
        self.cells = [(i, j) for i in range(shape.rows) for j in range(self.vectors)]

    def emit(self) -> FunctionWriter:
        f = self.f
        sums = self._first_sums()
        if self.shape.segmented:
            with f.loop(i64(0), f.arg("segments"), 1, sums) as segment:
                offset = f.load(f.gep(f.arg("offsets"), "i64", segment.index), "i64", 8)
                lhs = f.gep(f.arg("lhs"), self.dtype.llvm, offset)
                row = f.mul(f.mul(segment.index, f.arg("depth")), self.stride)
                segment.next = self._segment(lhs, f.gep(f.arg("rhs"), self.dtype.llvm, row), segment.carried)
            sums = segment.results
        else:
            sums = self._segment(f.arg("lhs"), f.arg("rhs"), sums)
        for (i, j), value in zip(self.cells, sums, strict=True):
            f.store(value, self._cell(i, j), self.dtype.itemsize)
        f.ret()
        return f

    def _cell(self, i: int, j: int) -> Value:
        shape = self.shape
        return self.f.gep(self.f.arg("tile"), self.dtype.llvm, i64(i * shape.columns + j * shape.lanes))

    def _first_sums(self) -> list[Value]:
        """What the tile holds, or zeros."""
        f, element, lanes = self.f, self.dtype.llvm, self.shape.lanes
        type_ = vector(element, lanes)
        load, ready, fresh = f.label("load"), f.label("ready"), f.block
        f.cond_br(f.arg("resume"), load, ready)
        f.start(load)
        held = [f.load(self._cell(i, j), type_, self.dtype.itemsize) for i, j in self.cells]
        f.br(ready)
        f.start(ready)
        zero = constant(0, element, lanes)
        return [f.phi(type_, [(zero, fresh), (value, load)]) for value in held]

    def _segment(self, lhs: Value, rhs: Value, sums: list[Value]) -> list[Value]:
        f = self.f
        depth = f.arg("depth")
        whole = f.op("and", depth, i64(-_UNROLL))
        with f.loop(i64(0), whole, _UNROLL, sums) as loop:
            loop.next = self._steps(_UNROLL, lhs, rhs, loop.index, loop.carried)
        with f.loop(whole, depth, 1, loop.results) as rest:
            rest.next = self._steps(1, lhs, rhs, rest.index, rest.carried)
        return rest.results

    def _steps(self, count: int, lhs: Value, rhs: Value, at: Value, carried: list[Value]) -> list[Value]:
        f, shape, element = self.f, self.shape, self.dtype.llvm
        type_ = vector(element, shape.lanes)
        current = list(carried)
        left_row = f.gep(lhs, element, f.mul(at, i64(shape.depth_step)))
        right_row = f.gep(rhs, element, f.mul(at, self.stride))
        for offset in range(count):
            row = right_row if not offset else f.gep(right_row, element, f.mul(self.stride, i64(offset)))
            right = [
                f.load(f.gep(row, element, i64(j * shape.lanes)), type_, self.dtype.itemsize)
                for j in range(self.vectors)
            ]
            for i in range(shape.rows):
                where = f.gep(left_row, element, i64(i * shape.row_step + offset * shape.depth_step))
                left = f.splat(f.load(where, element, self.dtype.itemsize), shape.lanes)
                for j in range(self.vectors):
                    position = i * self.vectors + j
                    current[position] = self._accumulate(left, right[j], current[position])
        return current

    def _accumulate(self, x: Value, y: Value, total: Value) -> Value:
        f = self.f
        if self.dtype.is_float:
            return f.intrinsic("llvm.fma", x, y, total)
        return f.op("add", total, f.op("mul", x, y))
