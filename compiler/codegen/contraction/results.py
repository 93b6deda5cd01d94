"""Where finished tiles go: straight from the registers to the matrix, or through the kernel's epilogue row by row."""

from __future__ import annotations

from contextlib import ExitStack

from pierian.compiler.codegen.evaluate import Frame, Scope
from pierian.compiler.codegen.transpose import transpose
from pierian.compiler.codegen.writer import TRUE, Value, constant, i64, vector
from pierian.compiler.dim import Dim
from pierian.compiler.frozen import frozen
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.access import address, step
from pierian.compiler.kernel.nodes import Kernel, Store
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.schedule.contraction import Tiling
from pierian.compiler.schedule.roles import Roles
from pierian.compiler.target.features import CACHE_LINE


@frozen
class Place:
    """A tile's first row and column, and how many of each lie in the matrix."""

    first_row: Value
    first_column: Value
    rows: Value
    columns: Value


class ResultWriter:
    """Writes the stores of a contraction's tiles."""

    def __init__(self, frame: Frame, kernel: Kernel, roles: Roles, tiling: Tiling) -> None:
        self.frame = frame
        self.writer = frame.writer
        self.roles = roles
        self.tiling = tiling
        self.dtype = roles.reduce.value.dtype
        self.stores = [statement for statement in kernel.body if isinstance(statement, Store)]
        self.plain = self._plain_position()
        self.turned = tiling.lanes > 1 and self._lie_along_m()

    def _lie_along_m(self) -> bool:
        """Whether results lie contiguously along the tile's rows, not its columns."""
        places = [address(self.frame.buffers[store.buffer], store.indices).known for store in self.stores]
        return all(step(place, self.roles.m.name) == 1 for place in places)

    def _plain_position(self) -> tuple[Dim, Dim] | None:
        """Position and distance of rows where the sums are stored as they are, contiguous along n; None for an epilogue."""
        if len(self.stores) != 1 or self.stores[0].value != _sum(self.roles):
            return None
        (store,) = self.stores
        buffer = self.frame.buffers[store.buffer]
        where = address(buffer, store.indices)
        rows = step(where.known, self.roles.m.name)
        if (
            buffer.dtype is not self.dtype
            or where.computed
            or step(where.known, self.roles.n.name) != 1
            or rows is None
        ):
            return None
        return where.known, rows

    def direct(self, scope: Scope, place: Place, height: int) -> tuple[Value, Value, Value] | None:
        """For a tile of `height` rows: whether all of it lies in the matrix and may be stored from the registers; then where and how
        far apart its rows lie. None where no tile may."""
        if self.plain is None:
            return None
        w, r, t = self.writer, self.roles, self.tiling
        known, rows = self.plain
        n = r.n.extent
        whole_columns = isinstance(n, int) and n % t.nr == 0
        fits = TRUE if self._is_whole(height) else w.cmp("icmp eq", place.rows, i64(height))
        if not whole_columns:
            fits = w.both(fits, w.cmp("icmp eq", place.columns, i64(t.nr)))
        inside = Scope(self.frame, scope, {r.m.name: place.first_row, r.n.name: place.first_column})
        base = self.frame.parameters.buffers[self.stores[0].buffer]
        return fits, w.gep(base, self.dtype.llvm, inside.dim(known)), scope.dim(rows)

    def _is_whole(self, height: int) -> bool:
        """Whether all rows of every tile of that height are known to lie in the matrix."""
        m = self.roles.m.extent
        return bool(self.tiling.tail) or (isinstance(m, int) and m % height == 0)

    def epilogue(self, scope: Scope, tile: Value, place: Place, height: int) -> None:
        """The stores of a tile of `height` rows held in memory, row by row in vectors, or column by column where results lie so; at
        the edges they are masked."""
        w, t = self.writer, self.tiling
        n = self.roles.n.extent
        if self.turned:
            self._columns(scope, tile, place, height, not (isinstance(n, int) and n % t.nr == 0))
            return
        if isinstance(n, int) and n % t.nr == 0:
            self._rows(scope, tile, place, None)
            return
        full = w.cmp("icmp eq", place.columns, i64(t.nr))
        yes, no, done = w.label("full"), w.label("edge"), w.label("stored")
        w.cond_br(full, yes, no)
        w.start(yes)
        self._rows(scope, tile, place, None)
        w.br(done)
        w.start(no)
        self._rows(scope, tile, place, place.columns)
        w.br(done)
        w.start(done)

    def _rows(self, scope: Scope, tile: Value, place: Place, columns: Value | None) -> None:
        w, r, t = self.writer, self.roles, self.tiling
        element = self.dtype.llvm
        with w.loop(i64(0), place.rows) as row:
            line = Scope(self.frame, scope, {r.m.name: w.add(place.first_row, row.index)})
            for offset in range(0, t.nr, t.lanes):
                values = {r.n.name: w.add(place.first_column, i64(offset))}
                inside = Scope(self.frame, line, values, r.n.name)
                if columns is not None:
                    inside.mask = inside.tail_mask(i64(offset), columns)
                at = w.add(w.mul(row.index, i64(t.nr)), i64(offset))
                sums = w.load(w.gep(tile, element, at), vector(element, t.lanes), self.dtype.itemsize)
                inside.define(_sum(r), sums)
                for store in self.stores:
                    inside.store(store.buffer, store.indices, store.value)

    def _columns(self, scope: Scope, tile: Value, place: Place, height: int, has_edge: bool) -> None:
        """Squares of the tile are transposed in registers."""
        w, r, t = self.writer, self.roles, self.tiling
        element = self.dtype.llvm
        zero = constant(0, element, t.lanes)
        exact = t.lanes * self.dtype.itemsize < CACHE_LINE and self._is_whole(height)
        for top in range(0, height, t.lanes):
            stored = min(t.lanes, height - top)
            full = (exact or place.rows.text == str(height)) and stored == t.lanes
            mask = None if full else scope.tail_mask(i64(top), place.rows)
            for left in range(0, t.nr, t.lanes):
                lines = [zero] * t.lanes
                for i in range(min(t.lanes, height - top)):
                    at = w.gep(tile, element, i64((top + i) * t.nr + left))
                    lines[i] = w.load(at, vector(element, t.lanes), self.dtype.itemsize)
                for j, sums in enumerate(transpose(w, lines)):
                    column = w.add(place.first_column, i64(left + j))
                    values = {r.n.name: column, r.m.name: w.add(place.first_row, i64(top))}
                    with ExitStack() as there:
                        if has_edge:
                            there.enter_context(w.when(w.cmp("icmp sgt", place.columns, i64(left + j))))
                        inside = Scope(self.frame, scope, values, r.m.name, mask)
                        inside.define(_sum(r), sums)
                        inside.stored = stored if exact and not full else None
                        for store in self.stores:
                            inside.store(store.buffer, store.indices, store.value)


def _sum(roles: Roles) -> Scalar:
    """The finished sum, as epilogues name it."""
    return ir.reduced(roles.reduce.name, roles.reduce.value.dtype)
