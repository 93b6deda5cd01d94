"""Choices for contractions: which axis plays which part, tile and block sizes, and when operands are read in place."""

from __future__ import annotations

from dataclasses import dataclass

from pierian.compiler.codegen.access import address, step
from pierian.compiler.codegen.evaluate import Dependencies
from pierian.compiler.dim import Dim
from pierian.compiler.errors import LoweringError
from pierian.compiler.kernel.nodes import Axis, Kernel, Reduce
from pierian.compiler.kernel.scalar import Scalar, load_parts, postorder
from pierian.compiler.target.features import Target

# Axes that a kernel lacks because they have one point.
NO_ROWS = Axis("%m_", 1)
NO_COLUMNS = Axis("%n_", 1)
NO_DEPTH = Axis("%k_", 1)


@dataclass(frozen=True, slots=True)
class Roles:
    """A contraction's parts: acc[batch, m, n] = sum over k of lhs[batch, m, k] * rhs[batch, k, n].

    Attributes:
        batch: outer axes looped over one by one.
        m, n, k: the axes of the tile; of one point where the kernel has none.
        rows_contiguous: lhs lies contiguously along k (else along m or nowhere).
        columns_contiguous: rhs lies contiguously along n (else along k or nowhere).
        rhs_in_place: rhs is one plain load with a constant distance between its rows.
    """

    reduce: Reduce
    lhs: Scalar
    rhs: Scalar
    batch: tuple[Axis, ...]
    m: Axis
    n: Axis
    k: Axis
    rows_contiguous: bool
    columns_contiguous: bool
    rhs_in_place: Dim | None


@dataclass(frozen=True, slots=True)
class Tiling:
    """Sizes in elements.

    Attributes:
        lanes: elements in a vector.
        mr, nr: the register tile: mr rows of nr columns, nr a multiple of lanes.
        mb, nb, kb: the block one task works on, packed into its scratch memory.
    """

    lanes: int
    mr: int
    nr: int
    mb: int
    nb: int
    kb: int

    @property
    def lhs_stride(self) -> int:
        """Distance of packed lhs rows (or columns): off a power of two, so that rows do not share cache sets."""
        return self.kb + self.lanes


def classify(kernel: Kernel) -> Roles:
    """The parts the axes of a contraction kernel play.

    Raises:
        LoweringError: the kernel is no sum of products over one axis.
    """
    reduces = [statement for statement in kernel.body if isinstance(statement, Reduce)]
    if len(reduces) != 1 or reduces[0].combiner != "sum" or reduces[0].value.op != "mul" or len(reduces[0].axes) != 1:
        raise LoweringError("a contraction kernel must be one sum of products over one axis")
    (reduce,) = reduces
    lhs, rhs = reduce.value.args
    depends = Dependencies()
    left, right = depends.of(lhs), depends.of(rhs)
    rows = [axis for axis in kernel.axes if axis.name in left and axis.name not in right]
    columns = [axis for axis in kernel.axes if axis.name in right and axis.name not in left]
    m = rows[-1] if rows else NO_ROWS
    n = columns[-1] if columns else NO_COLUMNS
    k = reduce.axes[0]
    batch = tuple(axis for axis in kernel.axes if axis not in (m, n))
    return Roles(
        reduce, lhs, rhs, batch, m, n, k,
        _is_contiguous(kernel, lhs, k.name),
        _is_contiguous(kernel, rhs, n.name) or not _is_contiguous(kernel, rhs, k.name),
        _row_distance(kernel, rhs, k.name, n.name),
    )  # fmt: skip


def _is_contiguous(kernel: Kernel, operand: Scalar, axis: str) -> bool:
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    for node in postorder([operand]):
        if node.op == "load":
            name, indices = load_parts(node)
            where = address(buffers[name], indices)
            if step(where.known, axis) == 1:
                return True
    return False


def _row_distance(kernel: Kernel, rhs: Scalar, k: str, n: str) -> Dim | None:
    if rhs.op != "load":
        return None
    name, indices = load_parts(rhs)
    buffer = next(buffer for buffer in kernel.buffers if buffer.name == name)
    where = address(buffer, indices)
    if where.computed or step(where.known, n) != 1:
        return None
    return step(where.known, k)


def choose_tiling(roles: Roles, target: Target) -> Tiling:
    """Register tile and blocks for a target; known sizes get tiles that waste little."""
    bits = roles.reduce.value.dtype.bits
    lanes = target.lanes(bits)
    vectors = 2
    n = roles.n.extent
    if isinstance(n, int) and n <= lanes:
        vectors = 1
    # Accumulators, one row of rhs, and one value of lhs must fit the registers.
    mr = max(1, (target.vector_registers - vectors - 1) // vectors)
    mr = min(mr, 14)
    m = roles.m.extent
    if isinstance(m, int):
        mr = _best_rows(m, mr)
    nr = vectors * lanes
    itemsize = bits // 8
    kb = 384 * 4 // itemsize
    if isinstance(roles.k.extent, int):
        blocks = max(1, -(-roles.k.extent // kb))
        kb = max(8, -(-(-(-roles.k.extent // blocks)) // 8) * 8)
    mb = mr * max(1, 168 // mr)
    nb = max(nr, 256 // nr * nr)
    if isinstance(n, int):
        blocks = max(1, -(-n // nb))
        if blocks == 1 and isinstance(m, int) and isinstance(roles.k.extent, int) and m * n * roles.k.extent > 1 << 20:
            blocks = 2
        nb = -(-(-(-max(n, 1) // blocks)) // nr) * nr
    if isinstance(m, int):
        blocks = max(1, -(-m // mb))
        mb = -(-(-(-max(m, 1) // blocks)) // mr) * mr
    return Tiling(lanes, mr, nr, mb, nb, kb)


def _best_rows(m: int, most: int) -> int:
    """The tile height that leaves the fewest rows of the last tile empty; the taller of equals."""
    if m <= most:
        return max(m, 1)

    def waste(rows: int) -> float:
        return -(-m // rows) * rows * (1 + 1.0 / rows)

    return min(range(most, most // 2, -1), key=waste)
