"""The register tile: `mr` rows by `nr` columns of sums of products, all in vector registers.

    void MICRO(ptr lhs, ptr rhs, i64 rhs_stride, i64 depth, ptr tile, i1 resume)

`lhs` is a packed block with distances fixed at compile time, `rhs` starts at the tile's first column with `rhs_stride` elements
from row to row. `tile` takes mr x nr results in row-major order; with `resume` the sums go on from what it holds.
"""

from __future__ import annotations

from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, i64, vector
from pierian.compiler.dtype import DType
from pierian.compiler.schedule.contraction import Tiling

_UNROLL = 4


def emit_microkernel(name: str, dtype: DType, tiling: Tiling, row_step: int, depth_step: int) -> FunctionWriter:
    """The function; element (i, k) of lhs lies at `i * row_step + k * depth_step`."""
    f = FunctionWriter(
        name,
        "void",
        [("lhs", "ptr"), ("rhs", "ptr"), ("stride", "i64"), ("depth", "i64"), ("tile", "ptr"), ("resume", "i1")],
    )
    element, lanes = dtype.llvm, tiling.lanes
    columns = tiling.nr // lanes
    type_ = vector(element, lanes)
    cells = [(i, j) for i in range(tiling.mr) for j in range(columns)]

    def cell(i: int, j: int) -> Value:
        return f.gep(f.arg("tile"), element, i64(i * tiling.nr + j * lanes))

    load, ready, fresh = f.label("load"), f.label("ready"), f.block
    f.cond_br(f.arg("resume"), load, ready)
    f.start(load)
    held = [f.load(cell(i, j), type_, dtype.itemsize) for i, j in cells]
    f.br(ready)
    f.start(ready)
    zero = constant(0, element, lanes)
    sums = [f.phi(type_, [(zero, fresh), (value, load)]) for value in held]
    whole = f.op("and", f.arg("depth"), i64(-_UNROLL))

    def steps(count: int, at: Value, carried: list[Value]) -> list[Value]:
        current = list(carried)
        lhs = f.gep(f.arg("lhs"), element, f.mul(at, i64(depth_step)))
        rhs = f.gep(f.arg("rhs"), element, f.mul(at, f.arg("stride")))
        for offset in range(count):
            row = rhs if not offset else f.gep(rhs, element, f.mul(f.arg("stride"), i64(offset)))
            right = [f.load(f.gep(row, element, i64(j * lanes)), type_, dtype.itemsize) for j in range(columns)]
            for i in range(tiling.mr):
                where = f.gep(lhs, element, i64(i * row_step + offset * depth_step))
                left = f.splat(f.load(where, element, dtype.itemsize), lanes)
                for j in range(columns):
                    position = i * columns + j
                    current[position] = _accumulate(f, dtype, left, right[j], current[position])
        return current

    with f.loop(i64(0), whole, _UNROLL, sums) as loop:
        loop.next = steps(_UNROLL, loop.index, loop.carried)
    with f.loop(whole, f.arg("depth"), 1, loop.results) as rest:
        rest.next = steps(1, rest.index, rest.carried)
    for (i, j), value in zip(cells, rest.results, strict=True):
        f.store(value, cell(i, j), dtype.itemsize)
    f.ret()
    return f


def _accumulate(f: FunctionWriter, dtype: DType, x: Value, y: Value, total: Value) -> Value:
    if dtype.is_float:
        return f.intrinsic("llvm.fma", x, y, total)
    return f.op("add", total, f.op("mul", x, y))
