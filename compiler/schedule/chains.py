"""Chains of two products with work on rows between them, such as attention: what plays which part, and the sizes of blocks.

    s[row, column] = sum over k of lhs * rhs           the first product, its results (scores) for a block of rows at a time
    ...                                                 reductions over columns, pointwise work: weights
    o[row, n] = sum over column of weight * values      the second product
    results                                             stores that use o

Where the work on rows is a softmax, columns come in blocks too: the largest score so far and the sum of weights are carried from
block to block, and what has been summed is scaled when a larger score appears. All else needs whole rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pierian.compiler.dim import Dim, Symbolic, ceildiv, coefficient, product, symbol
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Axis, Buffer, Kernel, Product, Reduce, Statement, Store
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.schedule.contraction import CHAIN, UNROLL
from pierian.compiler.schedule.roles import Roles, classify
from pierian.compiler.schedule.rows import cost, replace_expression
from pierian.compiler.target.features import CACHE_LINE, Target

# Columns of scores in one block of a softmax: as many as keep the second product's sums long in registers.
COLUMNS = 512
# The same where whole blocks can be left out because they are masked: smaller ones leave out more.
MASKED_COLUMNS = 256
# Products in one score, and columns of the second product, at most: operands of one block of rows stay near beside its scores.
DEPTH = 256
# Bytes of scores of one block of rows: a quarter of a second-level cache; of whole rows half of it.
BLOCK_BYTES = 1 << 18
WHOLE_BYTES = 1 << 19
# Rows of a register tile, at most.
TILE_ROWS = 14
# Tiles in a block of rows, at most: operands that are walked for so many rows come fast enough from the last cache. Lower blocks of
# rows have more columns in common that are masked.
TILES = 9
MASKED_TILES = 5
# Bytes of a score matrix from which it leaves the second-level cache: smaller ones cost next to nothing between kernels.
NEAR_BYTES = 1 << 18
# Tasks that are enough for several threads.
ENOUGH_TASKS = 16
# Operations from which a score's expression is kept for the pass that needs it again.
WORTH_KEEPING = 2
# Below which difference from the largest score a weight is zero, for certain: exp underflows, denormals included.
VANISHED = {"float32": 104.0, "float64": 746.0}
_COMBINERS = ("sum", "prod", "max", "min")


@frozen
class Masked:
    """Scores that are one number wherever a comparison of positions holds: `difference` > 0, or >= 0 where not `strict`.

    Attributes:
        condition: the comparison.
        difference: an expression linear in the column and the row.
        holds: whether the number stands where the comparison holds, or where it does not.
        number: the number.
        open: the score where it does not stand.
    """

    condition: Scalar
    difference: Dim
    strict: bool
    holds: bool
    number: Scalar
    open: Scalar


@frozen
class Softmax:
    """The work on rows is: peak = max of score, total = sum of exp(score - peak), weight = exp(score - peak) / total."""

    score: Scalar
    peak: Reduce
    total: Reduce
    masked: Masked | None


@frozen
class Chain:
    """The parts of a chain kernel; all walk the columns by the name of `column`.

    Attributes:
        scores, values: the two products, and their roles as contractions: rows along m, columns, columns of results.
        rows: what is computed between them.
        results: the stores behind the second product.
        numbers: stores of what reductions over a row give, when it has been walked.
        weight: what the second product multiplies, as an expression over scores.
        softmax: set where the work on rows is just that, and perhaps stores of the weights.
        idle: set where weights are zero by a comparison of positions.
    """

    kernel: Kernel
    scores: Product
    values: Product
    rows: tuple[Statement, ...]
    results: tuple[Store, ...]
    numbers: tuple[Store, ...]
    first: Roles
    second: Roles
    weight: Scalar
    softmax: Softmax | None
    idle: Masked | None

    @property
    def kept(self) -> tuple[Store, ...]:
        """Stores of what is computed on rows."""
        return tuple(statement for statement in self.rows if isinstance(statement, Store))

    @property
    def needs_rows(self) -> bool:
        """Whether rows cannot come in blocks of columns."""
        return self.softmax is None or bool(self.kept)

    @property
    def m(self) -> Axis:
        """The axis of rows."""
        return self.first.m

    @property
    def others(self) -> tuple[Axis, ...]:
        """The outer axes beside that of rows."""
        return tuple(axis for axis in self.kernel.axes if axis.name != self.m.name)

    @property
    def column(self) -> Axis:
        """The axis of columns."""
        return self.scores.axes[0]


@frozen
class Blocks:
    """Sizes in elements.

    Attributes:
        lanes: elements in a vector.
        mr, tail: rows of a register tile, and of the last one where it is lower and known.
        nr, nv: columns of a register tile of scores, and of the second product.
        rows, columns: scores computed at a time.
        online: whether a row can have several blocks.
        ahead: cache lines of the next panel that a tile fetches with every few products.
    """

    lanes: int
    mr: int
    tail: int
    nr: int
    nv: int
    rows: int
    columns: int
    online: bool
    ahead: int

    @property
    def stride(self) -> int:
        """Distance of rows of scores, off a power of two so that rows do not share cache sets."""
        return -(-self.columns // self.nr) * self.nr + self.lanes


def take_apart(kernel: Kernel) -> Chain | None:
    """The parts of a chain kernel; None where it has another structure, or one that blocks cannot be made for."""
    positions = [i for i, statement in enumerate(kernel.body) if isinstance(statement, Product)]
    if len(positions) != 2 or positions[0] != 0 or any(not isinstance(s, Store) for s in kernel.body[positions[1] :]):
        return None
    first, second = kernel.body[0], kernel.body[positions[1]]
    assert isinstance(first, Product) and isinstance(second, Product)
    if any(len(s.axes) != 1 or len(s.over) != 1 or s.value.op != "mul" for s in (first, second)):
        return None
    column = first.axes[0]
    rows = tuple(_along(statement, column) for statement in kernel.body[1 : positions[1]])
    behind = [statement for statement in kernel.body[positions[1] + 1 :] if isinstance(statement, Store)]
    results = tuple(store for store in behind if store.axes)
    numbers = tuple(store for store in behind if not store.axes)
    if any(store.axes != second.axes for store in results) or any(store.value.op != "reduced" for store in numbers):
        return None
    if any(statement is None for statement in rows) or second.over[0].extent != column.extent:
        return None
    values = replace(
        second, value=ir.rename_axes(second.value, {second.over[0].name: symbol(column.name)}), over=(column,)
    )
    roles = _roles(kernel, first, values)
    if roles is None or not _reads_in_place(first, values, rows, results):
        return None
    weight = values.value.args[0]
    between = tuple(statement for statement in rows if statement is not None)
    m = roles[0].m
    softmax, idle = _softmax(between, weight, m, column), _masked_weight(weight, m, column)
    return Chain(kernel, first, values, between, results, numbers, *roles, weight, softmax, idle)


def _reads_in_place(
    first: Product, values: Product, rows: Sequence[Statement | None], results: Sequence[Statement]
) -> bool:
    """Whether each product is read, by what follows it, only at the place where it is written."""
    for product_, readers in ((first, (*rows, values)), (values, results)):
        for node in ir.postorder([statement.value for statement in readers if statement is not None]):
            is_load = node.op == "load" and ir.load_parts(node)[0] == product_.buffer
            if is_load and ir.load_parts(node)[1] != product_.indices:
                return False
    return first.indices == (symbol(first.axes[0].name),) and values.indices == (symbol(values.axes[0].name),)


def _along(statement: Statement, column: Axis) -> Statement | None:
    """A statement on rows that walks the columns by their common name, or none; None where it walks anything else."""
    if isinstance(statement, Reduce) and statement.combiner not in _COMBINERS:
        return None
    if not statement.axes:
        return None if isinstance(statement, Reduce) else statement
    if len(statement.axes) != 1 or statement.axes[0].extent != column.extent:
        return None
    names: dict[str, Dim] = {statement.axes[0].name: symbol(column.name)}
    value = ir.rename_axes(statement.value, names)
    if isinstance(statement, Reduce):
        return replace(statement, axes=(column,), value=value)
    if any(isinstance(index, Scalar) for index in statement.indices):
        return None
    place = ir.load(statement.buffer, statement.indices, statement.value.dtype)
    return replace(statement, axes=(column,), value=value, indices=ir.load_parts(ir.rename_axes(place, names))[1])


def _roles(kernel: Kernel, first: Product, second: Product) -> tuple[Roles, Roles] | None:
    """Both products as contractions over the kernel's axes, those of rows last."""
    depends = Dependencies()
    lhs, rhs = first.value.args
    shared = depends.of(rhs) | depends.of(second.value.args[1])
    free = [axis for axis in kernel.axes if axis.name not in shared and axis.name in depends.of(lhs)]
    if not free:
        return None
    m = max(free, key=lambda axis: axis.extent if isinstance(axis.extent, int) else 1 << 62)
    axes = tuple(axis for axis in kernel.axes if axis is not m)
    # The weights are no array: for the roles of the second product one stands in for them.
    everywhere = tuple(symbol(axis.name) for axis in (*kernel.axes, *first.axes))
    stand_in = Buffer("weights", first.value.dtype, tuple(axis.extent for axis in (*kernel.axes, *first.axes)))
    load = ir.load("weights", everywhere, first.value.dtype)
    value = ir.scalar("mul", second.value.dtype, (load, second.value.args[1]))
    found = (
        classify(_contraction(kernel, (*axes, m, first.axes[0]), Reduce("s", "sum", first.over, first.value))),
        classify(_contraction(kernel, (*axes, m, second.axes[0]), Reduce("o", "sum", second.over, value), stand_in)),
    )
    fits = all(roles.m == m and not roles.segments for roles in found)
    return found if fits and found[0].n == first.axes[0] and found[1].n == second.axes[0] else None


def _contraction(kernel: Kernel, axes: tuple[Axis, ...], reduce: Reduce, *more: Buffer) -> Kernel:
    return Kernel("contraction", (*kernel.buffers, *more), kernel.dims, axes, (reduce,))


def _softmax(rows: tuple[Statement, ...], weight: Scalar, m: Axis, column: Axis) -> Softmax | None:
    if len(rows) < 2:
        return None
    peak, total, *stores = rows
    if not isinstance(peak, Reduce) or not isinstance(total, Reduce):
        return None
    if any(not isinstance(s, Store) or not s.axes or s.value != weight for s in stores):
        return None
    score, dtype = peak.value, peak.value.dtype
    if peak.combiner != "max" or total.combiner != "sum":
        return None
    shifted = ir.scalar("sub", dtype, (score, ir.reduced(peak.name, dtype)))
    if total.value != ir.scalar("exp", dtype, (shifted,)):
        return None
    if _quotient(weight) != (total.value, ir.reduced(total.name, dtype)):
        return None
    return Softmax(score, peak, total, find_masked(score, m, column))


def _quotient(weight: Scalar) -> tuple[Scalar, Scalar] | None:
    """A value and the result of a reduction that it is divided by, or multiplied by the reciprocal of."""
    if weight.op == "div" and weight.args[1].op == "reduced":
        return weight.args[0], weight.args[1]
    if weight.op != "mul" or weight.args[1].op != "div":
        return None
    one, divisor = weight.args[1].args
    is_reciprocal = one.op == "const" and one.attribute == 1 and divisor.op == "reduced"
    return (weight.args[0], divisor) if is_reciprocal else None


# --- masks ------------------------------------------------------------------------------------------------------------


def find_masked(score: Scalar, m: Axis, column: Axis) -> Masked | None:
    """Scores of the form `select(comparison of positions, number, ...)`, as of a causal mask."""
    if score.op != "select" or score.args[0].op not in ("gt", "ge", "lt", "le"):
        return None
    condition, yes, no = score.args
    if "const" not in (yes.op, no.op):
        return None
    x, y = _position(condition.args[0]), _position(condition.args[1])
    if x is None or y is None:
        return None
    difference = x - y if condition.op in ("gt", "ge") else y - x
    if any(not isinstance(coefficient(difference, axis.name), int) for axis in (m, column)):
        return None
    holds = yes.op == "const"
    return Masked(condition, difference, condition.op in ("gt", "lt"), holds, *((yes, no) if holds else (no, yes)))


def _masked_weight(weight: Scalar, m: Axis, column: Axis) -> Masked | None:
    """Weights that are zero wherever a comparison of positions holds, as of the gradient of a causal mask."""
    while weight.op == "mul" and weight.args[1].op == "const" and math.isfinite(weight.args[1].attribute):  # type: ignore[arg-type]
        weight = weight.args[0]
    found = find_masked(weight, m, column)
    return found if found is not None and found.number.attribute == 0 else None


def _position(node: Scalar) -> Dim | None:
    """An integer as an expression over axes and sizes, where it is one of small numbers (no element's position wraps 31 bits)."""
    if node.dtype.is_float or node.dtype.is_bool or node.dtype.bits < 32:
        return None
    if node.op == "const":
        return int(node.attribute)  # type: ignore[arg-type]
    if node.op == "dim":
        assert isinstance(node.attribute, Symbolic)
        return node.attribute
    if node.op == "convert":
        return _position(node.args[0])
    if node.op not in ("add", "sub", "mul"):
        return None
    x, y = _position(node.args[0]), _position(node.args[1])
    if x is None or y is None or (node.op == "mul" and not isinstance(x, int) and not isinstance(y, int)):
        return None
    return x + y if node.op == "add" else x - y if node.op == "sub" else x * y


# --- choices ----------------------------------------------------------------------------------------------------------


def refusal(chain: Chain) -> str:
    """Why three kernels that hand each other the matrix of scores are better than one; empty where one is.

    One saves four times the matrix in traffic, and its memory, and computes nothing twice: it pays where the matrix would leave the
    nearest caches, if blocks of rows fit them with all their operands, and rows that have to be whole are not too long for that.
    """
    dtype = chain.scores.value.dtype
    columns, itemsize = chain.column.extent, dtype.itemsize
    kinds = [
        chain.weight.dtype,
        chain.values.value.dtype,
        *(s.value.dtype for s in chain.rows if isinstance(s, Reduce)),
    ]
    if str(dtype) not in VANISHED or any(kind is not dtype for kind in kinds):
        return "rows between two products are worked on in place only in float32 or float64 throughout"
    if any(not isinstance(size, int) or not 1 < size <= DEPTH for size in (chain.first.depth, chain.second.n.extent)):
        return f"a block of rows stays near only with 2 to {DEPTH} products in a score and columns of values"
    if chain.m.extent == 1 or columns == 0:
        return "a single row of scores is no matrix"
    if chain.needs_rows and (not isinstance(columns, int) or columns * TILE_ROWS * itemsize > WHOLE_BYTES):
        return f"work other than a softmax, or weights that others read, need whole rows, and {columns} columns are too long"
    elements = product([axis.extent for axis in (*chain.kernel.axes, chain.column)])
    if isinstance(elements, int) and elements * itemsize <= NEAR_BYTES:
        return f"the scores stay near: {elements * itemsize} bytes"
    return ""


def choose_blocks(chain: Chain, target: Target) -> Blocks:
    """Register tiles and blocks for a target."""
    dtype = chain.scores.value.dtype
    lanes = target.lanes(dtype.bits)
    m, columns, n = chain.m.extent, chain.column.extent, chain.second.n.extent
    assert isinstance(n, int)
    nr, nv = 2 * lanes, lanes if n <= lanes else 2 * lanes
    most = min(TILE_ROWS, max(1, (target.vector_registers - 3) // 2))
    tiles = ceildiv(m, most)
    mr = most if not isinstance(m, int) or not isinstance(tiles, int) else -(-m // tiles)
    width, limit, masked = _block_columns(chain, nr)
    most = max(1, min(MASKED_TILES if masked else TILES, limit // (width * dtype.itemsize * mr)))
    rows = _row_tiles(chain, most, mr) * mr
    online = not chain.needs_rows and (masked or not (isinstance(columns, int) and columns <= width))
    size = columns * (chain.first.depth + n) * dtype.itemsize
    near = isinstance(size, int) and size <= target.l2 // 2
    ahead = 0 if near else -(-nr * dtype.itemsize * UNROLL // CACHE_LINE // (rows // mr))
    return Blocks(lanes, mr, m % mr if isinstance(m, int) else 0, nr, nv, rows, width, online, ahead)


def _block_columns(chain: Chain, nr: int) -> tuple[int, int, bool]:
    """Columns of a block, in whole panels; bytes that a block of rows may take; whether masked columns are left out."""
    columns = chain.column.extent
    masked = chain.softmax is not None and chain.softmax.masked is not None
    if chain.needs_rows:
        assert isinstance(columns, int)
        return columns, WHOLE_BYTES if columns > COLUMNS else BLOCK_BYTES, masked
    width = MASKED_COLUMNS if masked and not (isinstance(columns, int) and columns <= COLUMNS) else COLUMNS
    if isinstance(columns, int):
        width = -(-(-(-columns // -(-columns // width))) // nr) * nr
    return width, BLOCK_BYTES, masked


def _row_tiles(chain: Chain, most: int, mr: int) -> int:
    """Tiles in a block of rows: even blocks where their number is known, and enough of them to share out."""
    m, count = chain.m.extent, product([axis.extent for axis in chain.others])
    if not isinstance(m, int):
        return min(most, 8)
    tiles = -(-m // mr)
    blocks = -(-tiles // most)
    if isinstance(count, int):
        blocks = max(blocks, min(tiles, -(-ENOUGH_TASKS // max(count, 1))))
    return -(-tiles // blocks)


# --- passes over rows -------------------------------------------------------------------------------------------------


@frozen
class Passes:
    """The work on a block of rows as statements, with what later passes need again kept where the scores were.

    Attributes:
        body: reductions and stores; stores to KEPT go over the block of scores, loads of it read from there.
        divisor: the reduction that the second product's sums are divided by; None where weights are final.
    """

    body: tuple[Statement, ...]
    divisor: Scalar | None


# Names under which the block is read and written: the scores, what a first pass keeps of them, the weights.
SCORE_KEPT, WEIGHT_KEPT = "kept", "weights"


def plan_passes(chain: Chain, open_only: bool = False) -> Passes:
    """The passes; with `open_only` for blocks of which nothing is masked.

    before:  m = max of f(s);  l = sum of exp(f(s) - m);  weight exp(f(s) - m) / l
    after:   kept = f(s), m = max of f(s);  weights = exp(kept - m), l = sum of weights;  the second product's sums / l
    """
    rows, weight, column = list(chain.rows), chain.weight, chain.column
    if open_only:
        assert chain.softmax is not None and chain.softmax.masked is not None
        masked = chain.softmax.masked
        rows = [_replaced(statement, chain.softmax.score, masked.open) for statement in rows]
        weight = replace_expression(weight, chain.softmax.score, masked.open)
    weight, divisor = _quotient(weight) or (weight, None)
    place, dtype = (symbol(column.name),), weight.dtype
    rows.append(Store(WEIGHT_KEPT, place, weight, (column,)))
    rows = _keep(rows, 0, SCORE_KEPT, chain, WORTH_KEEPING)
    final = rows[-1].value
    position = next((i for i, s in enumerate(rows[:-1]) if isinstance(s, Reduce) and s.value == final), None)
    if position is not None:
        moved = ir.load(WEIGHT_KEPT, place, dtype)
        behind = [_replaced(statement, final, moved) for statement in rows[position + 1 : -1]]
        if not any(_reads(statement, (chain.scores.buffer, SCORE_KEPT)) for statement in behind):
            rows = [*rows[: position + 1], rows[-1], *behind]
    return Passes(tuple(rows), divisor)


def _keep(rows: list[Statement], position: int, name: str, chain: Chain, worth: int) -> list[Statement]:
    """Let the value of the first reduction be stored over the scores, if nothing behind it needs those themselves."""
    first = rows[position]
    if not isinstance(first, Reduce) or cost(first.value) < worth or not _reads(first, (chain.scores.buffer,)):
        return rows
    load = ir.load(name, (symbol(chain.column.name),), first.value.dtype)
    behind = [_replaced(statement, first.value, load) for statement in rows[position + 1 :]]
    if first.value.dtype is not chain.weight.dtype or any(_reads(s, (chain.scores.buffer,)) for s in behind):
        return rows
    return [first, Store(name, (symbol(chain.column.name),), first.value, (chain.column,)), *behind]


def _replaced(statement: Statement, old: Scalar, new: Scalar) -> Statement:
    return replace(statement, value=replace_expression(statement.value, old, new))


def _reads(statement: Statement, names: tuple[str, ...]) -> bool:
    return any(node.op == "load" and ir.load_parts(node)[0] in names for node in ir.postorder([statement.value]))


def chain_length(depth: Dim) -> int:
    """Products that are added up one after the other (see `Tiling.chain`)."""
    return depth if isinstance(depth, int) and depth <= CHAIN else CHAIN
