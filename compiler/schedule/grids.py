"""Grids: products that fill matrices, pointwise work on those, and products that sum over their rows or columns, block by block.

    s[row, column] = sum over k of lhs * rhs            products that fill matrices (scores)
    w[row, column] = ...                                pointwise work: weights
    o[row, n]    = sum over column of w * operand       products over columns
    o[column, n] = sum over row of w * operand          products over rows
    results                                             stores that use those

A task is a point of the batch, or a share of its blocks of columns where the batch alone is too few tasks. For one block of columns
after the other it walks all blocks of rows: scores and weights of a block lie in scratch memory, and are multiplied from there into
both kinds of sums. Those over rows stay near until the block of columns is done; those over columns are kept in memory, for each
share on its own, and added up at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import lcm

from pierian.compiler.dim import Dim, ceildiv, product, symbol
from pierian.compiler.errors import LoweringError
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.nodes import Axis, Buffer, Kernel, Product, Reduce, Statement, Store
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.schedule.chains import DEPTH, ENOUGH_TASKS, TILE_ROWS, VANISHED, Masked, find_masked
from pierian.compiler.schedule.roles import Roles, classify
from pierian.compiler.schedule.rows import replace_expression
from pierian.compiler.target.features import Target

# Rows and columns of a block, about: its weights and what they are multiplied by stay in the second-level cache.
ROWS = 72
COLUMNS = 192
# Bytes of the matrices that would lie in memory, up to which they cost less there: a core's share of the last cache holds them. The
# second number is for a mask that empties blocks, whose products are left out.
FEW_BYTES = 4 << 20
FEW_MASKED_BYTES = 2 << 20
# Products of a score that are added up one after the other: few, for a few hundredths of the time, since sums over rows that
# scores are compared with were rounded otherwise, and differences of nearly equal numbers keep the errors of both.
SHORT_CHAIN = 16
# Shares of the columns of one point of a batch, at most: each keeps sums over columns of its own in memory.
SHARES = 16


@frozen
class Sum:
    """A product that sums over rows or columns.

    Attributes:
        weight: the position, among the work, of what it multiplies.
        over_rows: whether results stand for columns.
        roles: as a contraction, the weights its left operand: m are the rows or columns that results stand for.
        stores: the stores behind it.
    """

    product: Product
    weight: int
    over_rows: bool
    roles: Roles
    stores: tuple[Store, ...]

    @property
    def width(self) -> int:
        """Columns of results."""
        extent = self.roles.n.extent
        assert isinstance(extent, int)
        return extent


@frozen
class Vanishing:
    """Weights that are zero wherever a comparison of positions holds, and a number that a row has lies far enough below zero.

    Attributes:
        masked: the scores that are one number there.
        exponent: what exp is taken of there, an expression over rows.
    """

    masked: Masked
    exponent: Scalar


@frozen
class Grid:
    """The parts of a grid kernel.

    Attributes:
        row, column: the axes of its matrices.
        scores: the products that fill matrices, and their roles as contractions.
        work: the weights as expressions over scores alone.
        sums: the products over rows and columns.
        vanishing: set where weights vanish behind a mask.
    """

    kernel: Kernel
    row: Axis
    column: Axis
    scores: tuple[tuple[Product, Roles], ...]
    work: tuple[Store, ...]
    sums: tuple[Sum, ...]
    vanishing: Vanishing | None

    @property
    def batch(self) -> Dim:
        """Points of the batch."""
        return product([axis.extent for axis in self.kernel.axes])

    @property
    def over_rows(self) -> tuple[Sum, ...]:
        """The sums that stand for columns."""
        return tuple(one for one in self.sums if one.over_rows)

    @property
    def over_columns(self) -> tuple[Sum, ...]:
        """The sums that stand for rows."""
        return tuple(one for one in self.sums if not one.over_rows)

    @property
    def open_work(self) -> tuple[Store, ...]:
        """The weights in blocks of which nothing is masked."""
        assert self.vanishing is not None
        masked = self.vanishing.masked
        return tuple(
            replace(store, value=_settled(store.value, masked.condition, not masked.holds)) for store in self.work
        )


@frozen
class Blocks:
    """Sizes in elements.

    Attributes:
        lanes: elements in a vector.
        mr: rows of a register tile, of scores and of results.
        nr: columns of a register tile of scores.
        rows, columns: weights computed at a time; rows are whole tiles, columns whole panels.
        chain: products of a score that are added up one after the other (see `Tiling.chain`).
        shares: into how many tasks the blocks of columns at one point of the batch are dealt, one after the other.
    """

    lanes: int
    mr: int
    nr: int
    rows: int
    columns: int
    chain: int
    shares: int

    def nv(self, width: int) -> int:
        """Columns of a register tile of results that are so wide."""
        return self.lanes if width <= self.lanes else 2 * self.lanes

    @property
    def stride(self) -> int:
        """Distance of rows of weights, off a power of two so that rows do not share cache sets."""
        return self.columns + self.lanes

    @property
    def tall(self) -> int:
        """Columns in whole tiles."""
        return -(-self.columns // self.mr) * self.mr


def take_apart(kernel: Kernel) -> Grid | None:
    """The parts of a grid kernel; None where it has another structure, or one that blocks cannot be made for."""
    body = list(kernel.body)
    scores = [
        s
        for s in body
        if isinstance(s, Product) and len(s.axes) == 2 and s.axes == body[0].axes and s.indices == _place(s)
    ]
    matrices = {s.buffer for s in scores}
    if not scores or len(body) < len(scores) + 2 or any(len(s.over) != 1 or s.value.op != "mul" for s in scores):
        return None
    row, column = scores[0].axes
    rest = [statement for statement in body if statement not in scores]
    work = [
        s for s in rest if type(s) is Store and s.axes == (row, column) and s.buffer in {b.name for b in kernel.local}
    ]
    ends = [statement for statement in rest if statement not in work]
    roles = [_roles(kernel, row, column, one.over[0], one.value) for one in scores]
    if any(one is None for one in roles) or any(store.indices != _place(store) for store in work):
        return None
    inlined = _inlined(work)
    sums = _sums(kernel, row, column, work, ends)
    if sums is None or not _is_pointwise(inlined, matrices, row, column):
        return None
    pairs = tuple((one, found) for one, found in zip(scores, roles, strict=True) if found is not None)
    return Grid(kernel, row, column, pairs, inlined, sums, _vanishing(inlined, row, column))


def _place(store: Store) -> tuple[Dim, ...]:
    return tuple(symbol(axis.name) for axis in store.axes)


def _roles(kernel: Kernel, m: Axis, n: Axis, k: Axis, value: Scalar, *more: Buffer) -> Roles | None:
    """A product as a contraction over the kernel's axes and two of the grid's."""
    body = (Reduce("r", "sum", (k,), value),)
    try:
        found = classify(
            Kernel("contraction", (*kernel.buffers, *kernel.local, *more), kernel.dims, (*kernel.axes, m, n), body)
        )
    except LoweringError:
        return None
    return found if found.m == m and found.n == n and found.k == k and not found.segments else None


def _inlined(work: Sequence[Store]) -> tuple[Store, ...]:
    """Work on the grid, each value an expression over scores and arrays: earlier ones are put in where they are read."""
    found: list[Store] = []
    for store in work:
        value = store.value
        for earlier in found:
            value = replace_expression(
                value, ir.load(earlier.buffer, earlier.indices, earlier.value.dtype), earlier.value
            )
        found.append(replace(store, value=value))
    return tuple(found)


def _is_pointwise(work: Sequence[Store], matrices: set[str], row: Axis, column: Axis) -> bool:
    """Whether work reads the matrices at its own place only, and no reductions."""
    local = {store.buffer for store in work}
    for node in ir.postorder([store.value for store in work]):
        if node.op == "reduced":
            return False
        if node.op == "load":
            name, indices = ir.load_parts(node)
            if name in local or (name in matrices and indices != (symbol(row.name), symbol(column.name))):
                return False
    return True


def _sums(
    kernel: Kernel, row: Axis, column: Axis, work: Sequence[Store], ends: Sequence[Statement]
) -> tuple[Sum, ...] | None:
    """The products over rows and columns, each with the stores behind it."""
    weights = {ir.load(s.buffer, s.indices, s.value.dtype): i for i, s in enumerate(work)}
    found: list[Sum] = []
    for statement in ends:
        if isinstance(statement, Product):
            if len(statement.axes) != 2 or statement.value.op != "mul" or statement.value.args[0] not in weights:
                return None
            over_rows = statement.over == (row,)
            along = column if over_rows else row
            roles = _roles(kernel, *statement.axes, statement.over[0], statement.value)
            if statement.axes[0] != along or statement.over not in ((row,), (column,)) or roles is None:
                return None
            if statement.indices != _place(statement):
                return None
            found.append(Sum(statement, weights[statement.value.args[0]], over_rows, roles, ()))
        elif found and type(statement) is Store and statement.axes == found[-1].product.axes:
            found[-1] = replace(found[-1], stores=(*found[-1].stores, statement))
        else:
            return None
    return tuple(found) if found and all(one.stores for one in found) else None


# --- masks ------------------------------------------------------------------------------------------------------------


def _vanishing(work: Sequence[Store], row: Axis, column: Axis) -> Vanishing | None:
    """Where all weights vanish behind a mask: they are products with the exponential of a masked score less what a row has."""
    for node in ir.postorder([store.value for store in work]):
        if node.op != "exp" or node.args[0].op != "sub":
            continue
        score, origin = node.args[0].args
        masked = find_masked(score, row, column)
        if masked is None or column.name in ir.axes_used([origin]):
            continue
        settled = [_settled(store.value, masked.condition, masked.holds) for store in work]
        gone = _settled(node, masked.condition, masked.holds)
        if all(_is_zero(replace_expression(value, gone, ir.const(0.0, node.dtype))) for value in settled):
            return Vanishing(masked, gone.args[0])
    return None


def _settled(value: Scalar, condition: Scalar, holds: bool) -> Scalar:
    """A value where a comparison is known to hold, or not."""
    done: dict[Scalar, Scalar] = {}
    for node in ir.postorder([value]):
        args = tuple(done[arg] for arg in node.args)
        if node.op == "select" and args[0] is condition:
            done[node] = args[1 if holds else 2]
        else:
            done[node] = node if args == node.args else ir.scalar(node.op, node.dtype, args, node.attribute)
    return done[value]


def _is_zero(value: Scalar) -> bool:
    """Whether a value is zero for certain, all that is multiplied by zero taken to be finite."""
    if value.op == "const":
        return value.attribute == 0
    if value.op in ("neg", "div"):
        return _is_zero(value.args[0])
    if value.op == "mul":
        return any(map(_is_zero, value.args))
    if value.op in ("add", "sub"):
        return all(map(_is_zero, value.args))
    return value.op == "select" and all(map(_is_zero, value.args[1:]))


# --- choices ----------------------------------------------------------------------------------------------------------


def refusal(grid: Grid) -> str:
    """Why matrices in memory are better than blocks of them computed once more; empty where blocks are.

    Weights that are kept cost a store, and a load for each product that reads them; blocks cost one product and one exponential more
    for each weight (for the gradient of attention five products instead of four), and save the memory. Loads from a near cache are
    cheaper than that, those from memory, which all threads share, are not.
    """
    dtype = grid.scores[0][0].value.dtype
    values = [
        *(one.value for one, _ in grid.scores),
        *(s.value for s in grid.work),
        *(one.product.value for one in grid.sums),
    ]
    if str(dtype) not in VANISHED or any(value.dtype is not dtype for value in values):
        return "blocks of a grid are computed once more only in float32 or float64 throughout"
    sizes: Iterator[Dim] = (size for pair in _extents(grid) for size in pair)
    if any(not isinstance(size, int) or not 1 < size <= DEPTH for size in sizes):
        return f"a block of a grid stays near only with 2 to {DEPTH} products in a score and columns of results"
    size = len(grid.work) * grid.batch * grid.row.extent * grid.column.extent * dtype.itemsize
    if isinstance(size, int) and size <= (FEW_BYTES if grid.vanishing is None else FEW_MASKED_BYTES):
        return f"its {size} bytes, with those of what follows from it, cost less to read again than to compute"
    return ""


def _extents(grid: Grid) -> Iterator[tuple[Dim, ...]]:
    yield tuple(roles.k.extent for _, roles in grid.scores)
    yield tuple(one.roles.n.extent for one in grid.sums)


def choose_blocks(grid: Grid, target: Target) -> Blocks:
    """Register tiles and blocks for a target."""
    lanes = target.lanes(grid.scores[0][0].value.dtype.bits)
    nr = 2 * lanes
    mr = min(TILE_ROWS, max(1, (target.vector_registers - 3) // 2))
    rows = _even(grid.row.extent, ROWS, mr)
    columns = _even(grid.column.extent, COLUMNS, lcm(nr, mr))
    return Blocks(lanes, mr, nr, rows, columns, SHORT_CHAIN, _shares(grid, columns))


def _even(extent: Dim, most: int, unit: int) -> int:
    """Rows or columns of a block: about so many, whole units, and even shares of an extent that is known."""
    size = max(unit, most // unit * unit)
    if not isinstance(extent, int) or extent == 0:
        return size
    blocks = -(-extent // size)
    return -(-extent // blocks // unit) * unit


def _shares(grid: Grid, columns: int) -> int:
    """How many tasks share one point of the batch: enough for several threads, of what is known of the batch."""
    known = 1
    for axis in grid.kernel.axes:
        known *= axis.extent if isinstance(axis.extent, int) else 1
    shares = min(SHARES, -(-ENOUGH_TASKS // max(known, 1)))
    blocks = ceildiv(grid.column.extent, columns)
    return max(1, min(shares, blocks)) if isinstance(blocks, int) else shares
