"""Third phase of a contraction whose sums are split over tasks: the shares of each are added up, in order, and stored.

A task is a column of tiles in a block.
"""

from __future__ import annotations

from pierian.compiler.codegen.contraction.blocks import BlockEmitter
from pierian.compiler.codegen.contraction.parts import each, outermost, split_count
from pierian.compiler.codegen.evaluate import Scope, unravel
from pierian.compiler.codegen.writer import FunctionWriter, Value, i64, vector
from pierian.compiler.dim import Dim


class SplitFinisher(BlockEmitter):
    """Writes the function `name`."""

    @property
    def columns(self) -> int:
        """Columns of tiles in a block."""
        return self.tiling.nb // self.tiling.nr

    @property
    def tasks(self) -> Dim:
        """How many columns of tiles."""
        return self.roles.batch_count * self.blocks * self.columns

    def emit(self) -> FunctionWriter:
        """The phase's function."""
        w, r, t = self.writer, self.roles, self.tiling
        scope = self.outermost = outermost(self.frame, r, t)
        blocks, splits = self._look_up_sizes(scope)
        self.tile = w.alloca(self.dtype.llvm, t.mr * t.nr)
        with w.loop(w.arg("begin"), w.arg("end")) as task:
            number, column = w.divided(task.index, i64(self.columns))
            inside, block = self._block(scope, number)
            batch, within = w.divided(number, blocks)
            self.sums = self._shared_sums(scope, w.add(w.mul(w.mul(batch, splits), blocks), within))
            before = w.mul(column, i64(t.nr))
            first_column, left = w.add(block.first_column, before), w.sub(block.width, before)
            with w.when(w.cmp("icmp sgt", left, i64(0))), each(inside, block.points) as point:
                values = unravel(scope, w.add(block.first_point, point), r.rows)
                here = Scope(self.frame, inside, values)
                shares = self._waiting(point, before)

                def tile(height: int, row: Value, shares: Value = shares, here: Scope = here) -> None:
                    self._add_up(w.gep(shares, self.dtype.llvm, w.mul(row, i64(t.nr))), height)
                    place = self._place(block, row, height, first_column, w.minimum(left, i64(t.nr)))
                    self.results.epilogue(here, self.tile, place, height)

                self._each_tile(block, tile)
        w.ret()
        return w

    def _add_up(self, shares: Value, height: int) -> None:
        """The tile as the sum of its shares, which lie as far apart as the tasks of two splits of a block."""
        w, t, element = self.writer, self.tiling, self.dtype.llvm
        apart = w.mul(self.outermost.dim(self.blocks), i64(self.sums_size))
        operation, type_ = "fadd" if self.dtype.is_float else "add", vector(element, t.lanes)
        with w.loop(i64(0), i64(height * t.nr), t.lanes) as at:
            first = w.gep(shares, element, at.index)
            held = w.load(first, type_, self.dtype.itemsize)
            with w.loop(i64(1), self.outermost.dim(split_count(self.roles, t)), 1, [held]) as split:
                one = w.load(w.gep(first, element, w.mul(split.index, apart)), type_, self.dtype.itemsize)
                split.next = [w.op(operation, split.carried[0], one)]
            w.store(split.results[0], w.gep(self.tile, element, at.index), self.dtype.itemsize)
