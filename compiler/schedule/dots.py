"""When a product of few rows is computed as inner products, and in which pieces.

Where rhs lies along k, vectors may lie along k as well: nothing is turned or packed on the way. rhs is read once, where it lies, and
the few rows of lhs stay in the caches. Each sum is left in the lanes of one vector, which have to be added up in the end.
"""

from __future__ import annotations

from dataclasses import dataclass

from pierian.compiler.dim import Dim, product
from pierian.compiler.kernel.access import step
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Axis, Kernel
from pierian.compiler.schedule.contraction import CHAIN, FEW_ROWS, Roles, plain_load
from pierian.compiler.target.features import Target

# Rows of lhs, at most: more of them would not stay near.
MOST_ROWS = 64
# What things take, in the time of one multiplication of vectors, measured on Zen 4: the lanes of a vector added up together with
# those of its neighbours; an element of rhs copied into panels, or turned on the way; an element of lhs copied across its rows.
FOLD = 3.0
COPY = 0.15
TURN = 1.0
GATHER = 1.5
# A tile loads more values for each multiplication than one of panels does, and takes so much longer.
LOADING = 1.15
# Bytes of rhs in one task, about, and columns at most.
TASK_BYTES = 1 << 17
TASK_COLUMNS = 512
# Tasks of so many bytes that are worth sharing out.
FEW_TASKS = 4
# Products of one row between two visits of its sums, at least.
SHORTEST_PART = 512
# Bytes of columns that are short, and those at whose multiples the hardware stops fetching ahead.
ONE_STREAM = 256
PAGE = 4096
# Columns that the choice is made for where their number is open.
MANY_COLUMNS = 1024


@dataclass(frozen=True, slots=True)
class Dots:
    """The pieces of a product of inner products.

    Attributes:
        outer: the outer axes beside those of rows and columns, and of them those that lhs varies along.
        packed: lhs is copied so that it lies along k first.
        lanes: elements in a vector.
        rows, columns: sums in a register tile.
        part: products between two visits of a sum; each lane adds up a chain of them.
        task: columns in a task, a multiple of those in a tile.
        ahead: columns are fetched before their turn.
    """

    outer: tuple[Axis, ...]
    lhs_outer: tuple[Axis, ...]
    packed: bool
    lanes: int
    rows: int
    columns: int
    part: int
    task: int
    ahead: bool


def choose_dots(kernel: Kernel, roles: Roles, target: Target, tiled: float) -> Dots | None:
    """The pieces; None where lhs has too many rows, rhs does not lie along k, or it takes longer than `tiled` (see `tiled_time`)."""
    r = roles
    m, n, k = r.m.extent, r.n.extent, r.k.extent
    itemsize = r.reduce.value.dtype.itemsize
    lanes = target.lanes(8 * itemsize)
    if (
        not isinstance(m, int)
        or not isinstance(k, int)
        or not 0 < m <= MOST_ROWS
        or k < lanes
        or n in (0, 1)
        or lanes == 1
    ):
        return None
    if r.columns_contiguous or r.segments or r.packed:
        return None
    depends = Dependencies()
    outer = tuple(axis for axis in kernel.axes if axis.name not in (r.m.name, r.n.name))
    if not all(axis.name in depends.of(r.rhs) for axis in outer):
        return None  # rhs would be read again and again
    rows, columns = _tile(m, n, target)
    # The rows of lhs take half of the first cache.
    part = min(max(SHORTEST_PART, target.l1 // 2 // (m * itemsize)), CHAIN * lanes) // lanes * lanes
    task = max(columns, min(TASK_COLUMNS, TASK_BYTES // (k * itemsize)) // columns * columns)
    size = product([axis.extent for axis in outer]) * (n * k * itemsize)
    if (
        m == 1
        and isinstance(size, int)
        and n * k * itemsize == size > FEW_TASKS * TASK_BYTES
        and isinstance(n, int)
        and n <= task
    ):
        return None  # few long rows: each is better cut up, and shared out
    lies = plain_load(kernel, r.lhs)
    packed = lies is None or step(lies, r.k.name) != 1
    padded = -(-m // rows) * rows
    width = -(-_columns(n) // columns) * columns
    time = padded * width * (LOADING * -(-k // lanes) + FOLD * -(-k // part)) + packed * GATHER * m * k
    if time >= tiled:
        return None
    lhs_outer = tuple(axis for axis in outer if axis.name in depends.of(r.lhs))
    return Dots(
        outer, lhs_outer, packed, lanes, rows, columns, part, task, _fetches_ahead(rows, k * itemsize, size, target)
    )


def tiled_time(roles: Roles, target: Target) -> float:
    """What a register tile takes that reads panels, packed on the way, or rhs in place. No loop over rows is as fast as inner
    products."""
    lanes = target.lanes(roles.reduce.value.dtype.bits)
    m, n, k = roles.m.extent, roles.n.extent, roles.k.extent
    if 1 in (m, n) or not isinstance(k, int):
        return float("inf")
    m, n = _columns(m), _columns(n)
    packing = TURN if not roles.columns_contiguous else 0 if m <= FEW_ROWS and roles.rhs_step is not None else COPY
    return float(m * -(-n // lanes) * k + packing * n * k)


def _columns(extent: Dim) -> int:
    return extent if isinstance(extent, int) else MANY_COLUMNS


def _tile(m: int, n: Dim, target: Target) -> tuple[int, int]:
    """Rows and columns of the register tile: its sums and columns take registers, its rows are read from memory."""
    if m == 1:
        return 1, min(_columns(n), 8)
    most = 4 if target.vector_registers >= 32 else 2
    return -(-m // -(-m // most)), min(_columns(n), 4)


def _fetches_ahead(rows: int, length: int, size: Dim, target: Target) -> bool:
    """Whether columns, `length` bytes each, are asked for before their turn: not where they are near. The hardware follows few long
    ones from the last cache by itself, as it does those so short that they are one stream."""
    if isinstance(size, int) and size <= target.l2:
        return False
    return rows > 2 or not isinstance(size, int) or size > target.l3 // 2 or ONE_STREAM < length < PAGE
