"""Packing: a block of an operand copied to where the microkernel wants it, read through its index map (whatever that is).

Each operand is walked along the axis it lies contiguously along, so that loads are vectors. A right operand that lies
contiguously along k is transposed in registers, a square of vectors at a time.
"""

from __future__ import annotations

from pierian.compiler.codegen.contraction.parts import Part, each
from pierian.compiler.codegen.evaluate import Scope, unravel
from pierian.compiler.codegen.transpose import turn_name
from pierian.compiler.codegen.writer import Value, i64
from pierian.compiler.kernel.nodes import Axis
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.schedule.roles import Roles
from pierian.compiler.target.features import CACHE_LINE

# Rows that are fetched before their turn: each begins where the hardware does not expect it. Those of panels are read in pieces, and
# those that are transposed many at a time, a square's width of each.
ROWS_AHEAD = 2
PIECES_AHEAD = 4
SQUARES_AHEAD = 4


def pack_part(
    sizes: Scope,
    scope: Scope,
    roles: Roles,
    part: Part,
    columns: tuple[Value, Value],
    target: Value,
    nr: int,
    panel: Value | None = None,
) -> None:
    """The products of a part of rhs for some columns (the first, and how many) into panels, `panel` elements apart, or into a single
    one; `sizes` is the outermost scope, `scope` has the point of the batch."""
    writer, r = scope.writer, roles
    with each(scope, part.segments) as segment:
        inside = Scope(scope.frame, scope, unravel(sizes, writer.add(part.segment, segment), r.segments))
        row = writer.mul(segment, sizes.dim(r.k.extent))
        begin, count = (part.start, columns[0]), (part.count, columns[1])
        start = writer.gep(target, r.rhs.dtype.llvm, writer.mul(row, i64(nr)))
        if panel is None and r.columns_contiguous:
            pack_panel(inside, r.rhs, r.k, r.n, begin, count, start, nr)
        else:
            pack_rhs(inside, r, begin, count, start, nr, panel or i64(0))


def pack_rhs(
    scope: Scope,
    roles: Roles,
    begin: tuple[Value, Value],
    count: tuple[Value, Value],
    target: Value,
    nr: int,
    panel: Value,
) -> None:
    """count[0] products of count[1] columns of rhs into panels, whichever axis it lies along."""
    pack = pack_panels if roles.columns_contiguous else pack_transposed
    pack(scope, roles.rhs, roles.k, roles.n, begin, count, target, nr, panel)


def lhs_steps(roles: Roles, rows: int, depth: int, lanes: int) -> tuple[int, int]:
    """Distances of `rows` packed rows of lhs along rows and along products; off a power of two, so that they do not share cache
    sets."""
    step = -(-(depth if roles.rows_contiguous else rows) // lanes) * lanes + lanes
    return (step, 1) if roles.rows_contiguous else (1, step)


def pack_lhs(
    scope: Scope,
    roles: Roles,
    rows: tuple[Value, Value],
    products: tuple[Value, Value],
    target: Value,
    steps: tuple[int, int],
) -> None:
    """Some rows and products of lhs (the first, and how many), whichever axis it lies along, `steps` apart (see `lhs_steps`)."""
    slow, fast, step = (rows, products, steps[0]) if roles.rows_contiguous else (products, rows, steps[1])
    axes = (roles.m, roles.k) if roles.rows_contiguous else (roles.k, roles.m)
    pack_rows(scope, roles.lhs, *axes, (slow[0], fast[0]), (slow[1], fast[1]), target, i64(step))


def pack_rows(
    scope: Scope,
    operand: Scalar,
    slow: Axis,
    fast: Axis,
    begin: tuple[Value, Value],
    count: tuple[Value, Value],
    target: Value,
    stride: Value,
) -> None:
    """target[i * stride + j] = operand at (slow = begin[0] + i, fast = begin[1] + j), the fast axis in vectors.

    Vectors at the end of a row are masked on loading and stored whole: `stride` leaves room for them.
    """
    writer, lanes = scope.writer, scope.frame.lanes
    element = operand.dtype.llvm
    whole = writer.round_down(count[1], lanes)
    with writer.loop(i64(0), count[0]) as row:
        line = Scope(scope.frame, scope, {slow.name: writer.add(begin[0], row.index)})
        line.hoist([operand], [fast.name])
        start = writer.gep(target, element, writer.mul(row.index, stride))
        later = Scope(scope.frame, scope, {slow.name: writer.add(begin[0], writer.add(row.index, i64(ROWS_AHEAD)))})

        def store(at: Value, value: Value, start: Value = start) -> None:
            writer.store(value, writer.gep(start, element, at), operand.dtype.itemsize)

        with writer.loop(i64(0), whole, lanes) as column:
            at = writer.add(begin[1], column.index)
            inside = Scope(scope.frame, line, {fast.name: at}, fast.name)
            store(column.index, inside.vector(operand))
            if operand.op == "load":
                Scope(scope.frame, later, {fast.name: at}).prefetch(operand)
        with writer.loop(whole, count[1], lanes) as column:
            at = writer.add(begin[1], column.index)
            inside = Scope(scope.frame, line, {fast.name: at}, fast.name)
            inside.mask = inside.tail_mask(at, writer.add(begin[1], count[1]))
            store(column.index, inside.vector(operand))


def pack_tiles(
    scope: Scope,
    operand: Scalar,
    k: Axis,
    m: Axis,
    begin: tuple[Value, Value],
    count: tuple[Value, Value],
    target: Value,
    mr: int,
    tile: int,
    following: Scope | None,
) -> None:
    """A left operand contiguous along m: count[0] products of count[1] rows, those of a tile together. The value of row i
    for product j lies at `i // mr * tile + j * mr + i % mr`. In the scope `following`, if there is one, the same products are read
    later.

    Vectors are read and stored whole: what is too much is overwritten by the next product, and after the last lies behind the tile;
    rows beyond those wanted may be read as long as the matrix has them."""
    writer, lanes = scope.writer, scope.frame.lanes
    element = operand.dtype.llvm
    width = -(-mr // lanes) * lanes
    tiles = writer.op("sdiv", writer.add(count[1], i64(mr - 1)), i64(mr))
    there = writer.sub(scope.dim(m.extent), begin[1])
    whole = writer.op("sdiv", writer.sub(there, i64(width - mr)), i64(mr))
    whole = writer.minimum(writer.intrinsic("llvm.smax", whole, i64(0)), tiles)
    with writer.loop(i64(0), count[0]) as product:
        line = Scope(scope.frame, scope, {k.name: writer.add(begin[0], product.index)})
        line.hoist([operand], [m.name])
        at_k = writer.add(begin[0], product.index)
        ahead = at_k if following else writer.add(at_k, i64(ROWS_AHEAD))
        later = Scope(scope.frame, following or scope, {k.name: ahead})
        start = writer.gep(target, element, writer.mul(product.index, i64(mr)))

        for first, last, is_masked in ((i64(0), whole, False), (whole, tiles, True)):
            with writer.loop(first, last, strided=True) as number:
                row = writer.mul(number.index, i64(mr))
                place = writer.gep(start, element, writer.mul(number.index, i64(tile)))
                left = writer.sub(there, row) if is_masked else None
                _pack_vectors(line, later, operand, m, writer.add(begin[1], row), place, width, left)


def _pack_vectors(
    line: Scope, later: Scope, operand: Scalar, axis: Axis, first: Value, start: Value, width: int, left: Value | None
) -> None:
    """`width` elements of a line from `first` on, `left` of them or all, to `start`; those of a line read `later` are fetched."""
    writer, lanes = line.writer, line.frame.lanes
    for offset in range(0, width, lanes):
        at = writer.add(first, i64(offset))
        inside = Scope(line.frame, line, {axis.name: at}, axis.name)
        if left is not None:
            inside.mask = inside.tail_mask(i64(offset), left)
        writer.store(inside.vector(operand), writer.gep(start, operand.dtype.llvm, i64(offset)), operand.dtype.itemsize)
        if operand.op == "load" and offset * operand.dtype.itemsize % CACHE_LINE == 0:
            Scope(line.frame, later, {axis.name: at}).prefetch(operand)


def pack_panel(
    scope: Scope,
    operand: Scalar,
    k: Axis,
    n: Axis,
    begin: tuple[Value, Value],
    count: tuple[Value, Value],
    target: Value,
    nr: int,
) -> None:
    """A right operand contiguous along n: count[0] rows of count[1] columns into one panel, which has room for nr columns."""
    writer = scope.writer
    full = writer.cmp("icmp eq", count[1], i64(nr))
    for condition, left in ((full, None), (writer.negated(full), count[1])):
        with writer.when(condition), writer.loop(i64(0), count[0], strided=True) as row:
            line = Scope(scope.frame, scope, {k.name: writer.add(begin[0], row.index)})
            later = Scope(scope.frame, scope, {k.name: writer.add(begin[0], writer.add(row.index, i64(PIECES_AHEAD)))})
            start = writer.gep(target, operand.dtype.llvm, writer.mul(row.index, i64(nr)))
            _pack_vectors(line, later, operand, n, begin[1], start, nr, left)


def pack_panels(
    scope: Scope,
    operand: Scalar,
    k: Axis,
    n: Axis,
    begin: tuple[Value, Value],
    count: tuple[Value, Value],
    target: Value,
    nr: int,
    panel: Value,
) -> None:
    """A right operand contiguous along n: count[0] rows of count[1] columns into panels of `nr` columns, `panel` elements apart.

    A last panel that is not full keeps room for nr columns."""
    writer = scope.writer
    rest = writer.op("srem", count[1], i64(nr))
    full = writer.sub(count[1], rest)
    with writer.loop(i64(0), count[0]) as row:
        line = Scope(scope.frame, scope, {k.name: writer.add(begin[0], row.index)})
        later = Scope(scope.frame, scope, {k.name: writer.add(begin[0], writer.add(row.index, i64(PIECES_AHEAD)))})

        def copy(
            column: Value, left: Value | None, line: Scope = line, later: Scope = later, row: Value = row.index
        ) -> None:
            place = writer.add(writer.mul(writer.op("sdiv", column, i64(nr)), panel), writer.mul(row, i64(nr)))
            start = writer.gep(target, operand.dtype.llvm, place)
            _pack_vectors(line, later, operand, n, writer.add(begin[1], column), start, nr, left)

        with writer.loop(i64(0), full, nr) as column:
            copy(column.index, None)
        with writer.when(writer.cmp("icmp sgt", rest, i64(0))):
            copy(full, rest)


def pack_transposed(
    scope: Scope,
    operand: Scalar,
    k: Axis,
    n: Axis,
    begin: tuple[Value, Value],
    count: tuple[Value, Value],
    target: Value,
    nr: int,
    panel: Value,
) -> None:
    """The same for one contiguous along k: squares of lanes x lanes are read along k and transposed in registers."""
    writer, lanes = scope.writer, scope.frame.lanes
    element = operand.dtype.llvm
    last_column = writer.sub(writer.add(begin[1], count[1]), i64(1))
    end = writer.add(begin[0], count[0])
    square_buffer = writer.alloca(element, lanes * lanes)
    with writer.loop(i64(0), count[1], lanes) as column:
        number = writer.op("sdiv", column.index, i64(nr))
        inside_panel = writer.sub(column.index, writer.mul(number, i64(nr)))
        first = writer.gep(target, element, writer.add(writer.mul(number, panel), inside_panel))

        def square(row: Value, masked: bool, column_index: Value = column.index, first: Value = first) -> None:
            at_k = writer.add(begin[0], row)
            with writer.loop(i64(0), i64(lanes)) as line:
                # Columns beyond the matrix repeat the last one; nobody uses their results.
                at_n = writer.minimum(writer.add(begin[1], writer.add(column_index, line.index)), last_column)
                inside = Scope(scope.frame, scope, {n.name: at_n, k.name: at_k}, k.name)
                if masked:
                    inside.mask = inside.tail_mask(at_k, end)
                place = writer.gep(square_buffer, element, writer.mul(line.index, i64(lanes)))
                writer.store(inside.vector(operand), place, operand.dtype.itemsize)
                if operand.op == "load" and not masked:
                    later = {n.name: at_n, k.name: writer.add(at_k, i64(SQUARES_AHEAD * lanes))}
                    Scope(scope.frame, scope, later).prefetch(operand)
            rows = writer.minimum(writer.sub(count[0], row), i64(lanes))  # what follows may belong to other threads
            where = writer.gep(first, element, writer.mul(row, i64(nr)))
            writer.call(turn_name(operand.dtype, lanes), "void", [square_buffer, where, i64(nr), rows])

        whole = writer.round_down(count[0], lanes)
        with writer.loop(i64(0), whole, lanes) as row:
            square(row.index, False)
        with writer.loop(whole, count[0], lanes) as row:
            square(row.index, True)
