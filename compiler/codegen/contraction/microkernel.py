"""The register tile: `mr` rows by `nr` columns of sums of products, all in vector registers.

    void MICRO(ptr lhs, ptr rhs, i64 stride, i64 depth, i64 chain, ptr held, i1 resume, ptr target, i64 row, ptr ahead,
               ptr offsets, i64 segments[, i64 gap][, ptr later][, ptr panel])

Distances of lhs along the tile's rows and along k are fixed at compile time; `rhs` starts at the tile's first column with `stride`
elements from row to row. Products are added up in chains: each of `chain` products begins at zero and is added to the tile when it
is complete, so that rounding errors grow with the number of chains and the length of one, not with their product. With `resume`
the tile goes on from `held`, in row-major order; the results go to `target`, `row` elements from row to row: a tile that waits for
more, or the matrix itself. `held` is overwritten. `ahead` is memory that will be read next: some of its cache lines are fetched
with every few products, those of rows `gap` elements apart where it is no packed panel. A segmented tile sums `segments` times
`depth` products, `chain` segments at a time: the values of lhs for segment s begin `offsets[s]` elements after `lhs`, those of rhs
follow each other. `later` is where the values of lhs for another tile begin, of which lines are fetched likewise. To `panel` goes
what is read of rhs, packed for the tiles that follow.
"""

from __future__ import annotations

import functools

from pierian.compiler.codegen.turns import whole_end
from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, i64, vector
from pierian.compiler.dtype import DType
from pierian.compiler.frozen import frozen
from pierian.compiler.schedule.contraction import UNROLL
from pierian.compiler.target.features import CACHE_LINE

# Vectors of sums from which the loop around them costs nothing.
MANY_SUMS = 16


@frozen
class MicroShape:
    """What a microkernel is made for.

    Attributes:
        rows, columns: sums in the tile; columns a multiple of lanes.
        lanes: elements of a vector.
        row_step, depth_step: element (i, k) of lhs lies at `i * row_step + k * depth_step`.
        segmented: whether lhs comes in segments.
        ahead: lines of `ahead` that are fetched with every `UNROLL` products, or rows where they lie apart.
        narrow: whether only the first vector of each row is wanted; the tile in memory has room for all.
        apart: whether what is fetched lies in rows apart.
        later: bytes of `later` that go with each product; 0 where nothing is fetched of it.
        packs: whether rhs is packed on the way.
    """

    rows: int
    columns: int
    lanes: int
    row_step: int
    depth_step: int
    segmented: bool
    ahead: int = 0
    narrow: bool = False
    apart: bool = False
    later: int = 0
    packs: bool = False


def micro_name(dtype: DType, shape: MicroShape) -> str:
    """What the function for a shape is called in every module."""
    kind = "segmented" if shape.segmented else "micro"
    kind += "_narrow" * shape.narrow + "_apart" * shape.apart + "_packs" * shape.packs
    steps = f"{shape.row_step}_{shape.depth_step}_{shape.ahead}_{shape.later}"
    return f"pierian_{kind}_{dtype}_{shape.rows}x{shape.columns}_{shape.lanes}_{steps}"


def ahead_bytes(shape: MicroShape) -> int:
    """Bytes of `ahead` that a tile fetches for each of its products, where they follow each other."""
    return shape.ahead * CACHE_LINE // UNROLL


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
                ("lhs", "ptr"), ("rhs", "ptr"), ("stride", "i64"), ("depth", "i64"), ("chain", "i64"), ("held", "ptr"),
                ("resume", "i1"), ("target", "ptr"), ("row", "i64"), ("ahead", "ptr"), ("offsets", "ptr"), ("segments", "i64"),
                *([("gap", "i64")] if shape.apart else []), *([("later", "ptr")] if shape.later else []),
                *([("panel", "ptr")] if shape.packs else []),
            ],
        )  # fmt: skip
        self.dtype = dtype
        self.shape = shape
        self.vectors = 1 if shape.narrow else shape.columns // shape.lanes
        self.stride = self.f.arg("stride")
        self.ahead_step = ahead_bytes(shape)
        # Products of one turn of the loop: one is enough work for a tile of many sums, and so little code compiles soon. Nor is more
        # written out where rows lie so near each other that a later product of one row reads what an earlier one of the next does:
        # the code generator would keep what they share in registers that it does not have.
        overlap = 0 < shape.row_step // max(shape.depth_step, 1) < UNROLL
        self.turn = 1 if overlap or shape.rows * self.vectors >= MANY_SUMS else UNROLL
        self.cells = [(i, j) for i in range(shape.rows) for j in range(self.vectors)]

    def emit(self) -> FunctionWriter:
        f = self.f
        self._prefetch_target()
        count = f.arg("segments" if self.shape.segmented else "depth")
        with f.loop(i64(0), f.intrinsic("llvm.smax", count, i64(1)), f.arg("chain")) as chain:
            end = f.minimum(f.add(chain.index, f.arg("chain")), count)
            sums = self._segments(chain.index, end) if self.shape.segmented else self._fresh(chain.index, end)
            resume = f.op("or", f.arg("resume"), f.cmp("icmp sgt", chain.index, i64(0)))
            self._store(self._added(sums, resume), f.cmp("icmp eq", end, count))
        f.ret()
        return f

    def _zeros(self) -> list[Value]:
        return [constant(0, self.dtype.llvm, self.shape.lanes)] * len(self.cells)

    def _fresh(self, begin: Value, end: Value) -> list[Value]:
        """The sums of some products."""
        f = self.f
        return self._products(f.arg("lhs"), f.arg("rhs"), f.arg("ahead"), None, begin, end, self._zeros())

    def _segments(self, begin: Value, end: Value) -> list[Value]:
        """The sums over some segments."""
        f, element, depth = self.f, self.dtype.llvm, self.f.arg("depth")
        with f.loop(begin, end, 1, self._zeros()) as segment:
            offset = f.load(f.gep(f.arg("offsets"), "i64", segment.index), "i64", 8)
            lhs = f.gep(f.arg("lhs"), element, offset)
            before = f.mul(segment.index, depth)
            rhs = f.gep(f.arg("rhs"), element, f.mul(before, self.stride))
            ahead = f.gep(f.arg("ahead"), "i8", f.mul(before, i64(self.ahead_step)))
            later = f.gep(f.arg("later"), element, offset) if self.shape.later else None
            segment.next = self._products(lhs, rhs, ahead, later, i64(0), depth, segment.carried)
        return segment.results

    def _store(self, sums: list[Value], last: Value) -> None:
        """To the tile, or to where it goes when it is complete."""
        f, shape = self.f, self.shape
        target = f.select(last, f.arg("target"), f.arg("held"))
        row = f.select(last, f.arg("row"), i64(shape.columns))
        for (i, j), value in zip(self.cells, sums, strict=True):
            at = f.add(f.mul(row, i64(i)), i64(j * shape.lanes))
            f.store(value, f.gep(target, self.dtype.llvm, at), self.dtype.itemsize)

    def _cell(self, i: int, j: int) -> Value:
        shape = self.shape
        return self.f.gep(self.f.arg("held"), self.dtype.llvm, i64(i * shape.columns + j * shape.lanes))

    def _prefetch_target(self) -> None:
        """Stores wait for lines that are far away; these are on their way while the sums are computed."""
        f, dtype = self.f, self.dtype
        for i, j in self.cells:
            if j * dtype.itemsize * self.shape.lanes % CACHE_LINE == 0:
                at = f.add(f.mul(f.arg("row"), i64(i)), i64(j * self.shape.lanes))
                f.prefetch(f.gep(f.arg("target"), dtype.llvm, at), for_writing=True)

    def _added(self, sums: list[Value], resume: Value) -> list[Value]:
        """The sums, and with `resume` what the tile holds."""
        f = self.f
        add, ready, fresh = f.label("add"), f.label("ready"), f.block
        f.cond_br(resume, add, ready)
        f.start(add)
        held = [f.load(self._cell(i, j), sums[0].type, self.dtype.itemsize) for i, j in self.cells]
        operation = "fadd" if self.dtype.is_float else "add"
        totals = [f.op(operation, x, y) for x, y in zip(held, sums, strict=True)]
        f.br(ready)
        f.start(ready)
        return [f.phi(one.type, [(one, fresh), (total, add)]) for one, total in zip(sums, totals, strict=True)]

    def _products(
        self, lhs: Value, rhs: Value, ahead: Value, later: Value | None, begin: Value, end: Value, sums: list[Value]
    ) -> list[Value]:
        f = self.f
        whole = whole_end(f, begin, end, self.turn) if self.turn > 1 else end
        # One multiplication for the place of several products is hidden by them: as fast as pointers that step, and compiled sooner.
        with f.loop(begin, whole, self.turn, sums, strided=self.turn == 1) as loop:
            self._fetch(ahead, loop.index)
            if later is not None:
                self._fetch_later(later, loop.index)
            loop.next = self._steps(self.turn, lhs, rhs, loop.index, loop.carried)
        if self.turn == 1:
            return loop.results
        with f.loop(whole, end, 1, loop.results) as rest:
            rest.next = self._steps(1, lhs, rhs, rest.index, rest.carried)
        return rest.results

    def _fetch(self, ahead: Value, at: Value) -> None:
        """What is fetched of `ahead` with the products of a turn from `at` on; where turns are short, the same more than once."""
        f, shape, size = self.f, self.shape, self.dtype.itemsize
        if not shape.apart:
            for line in range(-(-self.ahead_step * self.turn // CACHE_LINE)):
                f.prefetch(f.gep(ahead, "i8", f.add(f.mul(at, i64(self.ahead_step)), i64(line * CACHE_LINE))))
            return
        gap = f.arg("gap")
        row = f.gep(ahead, self.dtype.llvm, f.mul(f.op("udiv", f.mul(at, i64(shape.ahead)), i64(UNROLL)), gap))
        for turn in range(-(-shape.ahead * self.turn // UNROLL)):
            for end in range(min(CACHE_LINE, shape.columns * size), shape.columns * size + 1, CACHE_LINE):
                # Each line's last byte: where rows do not begin with a line, the first one was the end of the panel before.
                f.prefetch(f.gep(f.gep(row, self.dtype.llvm, f.mul(gap, i64(turn))), "i8", i64(end - 1)))

    def _fetch_later(self, later: Value, at: Value) -> None:
        """The lines of `later` that go with the products of a turn from `at` on."""
        f, size = self.f, self.shape.later
        apart = max(size, CACHE_LINE)
        for line in range(-(-size * self.turn // apart)):
            f.prefetch(f.gep(later, "i8", f.add(f.mul(at, i64(size)), i64(line * apart))))

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
            if shape.packs:
                place = f.gep(f.arg("panel"), element, f.mul(f.add(at, i64(offset)), i64(shape.columns)))
                for j, vector_ in enumerate(right):
                    f.store(vector_, f.gep(place, element, i64(j * shape.lanes)), self.dtype.itemsize)
            for i in range(shape.rows):
                where = f.gep(left_row, element, i64(i * shape.row_step + offset * shape.depth_step))
                left = f.splat(f.load(where, element, self.dtype.itemsize), shape.lanes)
                for j in range(self.vectors):
                    position = i * self.vectors + j
                    current[position] = accumulate(f, self.dtype, left, right[j], current[position])
        return current


def accumulate(writer: FunctionWriter, dtype: DType, x: Value, y: Value, total: Value) -> Value:
    """total + x * y, floats rounded once."""
    if dtype.is_float:
        return writer.intrinsic("llvm.fma", x, y, total)
    return writer.op("add", total, writer.op("mul", x, y))
