"""When a product of few rows is computed as inner products, and in which pieces.

Where rhs lies along k, vectors may lie along k as well: nothing is turned or packed on the way. rhs is read once, where it lies, and
the few rows of lhs stay in the caches. Each sum is left in the lanes of one vector, which have to be added up in the end.
"""

from __future__ import annotations

from collections.abc import Callable

from pierian.compiler.dim import Dim, are_positive, product
from pierian.compiler.frozen import frozen
from pierian.compiler.kernel.access import step
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Axis, Kernel
from pierian.compiler.schedule.contraction import CHAIN, FEW_ROWS
from pierian.compiler.schedule.roles import Roles, plain_load
from pierian.compiler.target.features import Target

# Rows of lhs, at most: more of them would not stay near.
MOST_ROWS = 64
# What things take, in the time of one multiplication of vectors, measured on Zen 4: the lanes of a vector added up together with
# those of its neighbours; an element of rhs copied into panels, or turned on the way; an element of lhs copied across its rows.
FOLD = 3.0
COPY = 0.15
TURN = 1.0
GATHER = 1.5
# A tile loads more values for each multiplication than one of panels does, and takes so much longer; wide vectors of a rhs that the
# second cache does not hold come no faster than the second number allows (Emerald Rapids).
LOADING = 1.15
LOADING_FAR = 1.75
# Bytes of rhs in one task, about, and columns at most.
TASK_BYTES = 1 << 17
TASK_COLUMNS = 512
# Tasks of so many bytes that are worth sharing out.
FEW_TASKS = 4
# Products of one row between two visits of its sums, at least.
SHORTEST_PART = 512
# Bytes of columns from which each is worth a stream of its own from the last cache: neighbours that are shorter are one stream as it
# is, and far apart they cost more to store one by one than to wait for (Zen 3).
SHORT_STREAM = 256
# Bytes that the hardware follows by itself before they end: there fetching ahead takes a seventh longer.
FOLLOWED = 1024
# Tiles of rows that pass over the same columns, at most, for columns far apart: while more of them do, the hardware fetches nothing.
FEW_TILES = 2
# The size that a choice is made for where one is open, and the products of a sum from which open ones may be chosen.
OPEN_SIZE = 1024
DEEP = 64


@frozen
class Dots:
    """The pieces of a product of inner products.

    Attributes:
        outer: the outer axes beside those of rows and columns, and of them those that lhs varies along.
        packed: lhs is copied so that it lies along k first.
        lanes: elements in a vector.
        rows, columns: sums in a register tile; the rows of an open number that fill no tile are taken one by one.
        most: rows up to which this pays.
        part: products between two visits of a sum; each lane adds up a chain of them.
        task: columns in a task, a multiple of those in a tile.
        abreast: the columns of a tile lie far apart in a task, so that each is a stream that runs on from tile to tile; else they
            are neighbours.
        ahead: columns are fetched before their turn.
    """

    outer: tuple[Axis, ...]
    lhs_outer: tuple[Axis, ...]
    packed: bool
    lanes: int
    rows: int
    columns: int
    most: int
    part: int
    task: int
    abreast: bool
    ahead: bool

    def pays(self, roles: Roles) -> Dim:
        """1 where the sizes of a run are such that this is to be used, else 0."""
        k = roles.k.extent
        deep = [] if isinstance(k, int) else [k + 1 - DEEP]
        return are_positive([self.most + 1 - roles.m.extent, *deep])


def choose_dots(kernel: Kernel, roles: Roles, target: Target, tiled: Callable[[int], float]) -> Dots | None:
    """The pieces; None where lhs has too many rows, rhs does not lie along k, or it takes longer than `tiled` gives for that many
    rows (see `tiled_time`). An open number of rows is compared in each run with `most`, how many it pays for."""
    form = _form(kernel, roles, target)
    if form is None:
        return None
    r, outer, tile = roles, form.outer, form.tile
    m, n, k = r.m.extent, r.n.extent, r.k.extent
    itemsize = r.reduce.value.dtype.itemsize
    rows = range(1, MOST_ROWS + 1) if not isinstance(m, int) else [m] if 0 < m <= MOST_ROWS else []
    most = max((one for one in rows if form.time(one) < tiled(one)), default=0)
    task = max(tile[1], min(TASK_COLUMNS, TASK_BYTES // (guess(k) * itemsize)) // tile[1] * tile[1])
    size = form.size
    if m == 1 and isinstance(size, int) and size > FEW_TASKS * TASK_BYTES and guess(n) <= task and not outer:
        return None  # few long rows: each is better cut up, and shared out
    if not most:
        return None
    depends = Dependencies()
    lhs_outer = tuple(axis for axis in outer if axis.name in depends.of(r.lhs))
    abreast = isinstance(m, int) and m <= FEW_TILES * tile[0] and _reads_abreast(k * itemsize, size, target)
    # Narrow vectors would ask for each line of a stream more than once.
    ahead = (target.is_wide or not abreast) and _fetches_ahead(tile[0], k * itemsize, size, target)
    return Dots(outer, lhs_outer, form.packed, form.lanes, *tile, most, form.part, task, abreast, ahead)


def dots_time(kernel: Kernel, roles: Roles, target: Target) -> Callable[[int], float] | None:
    """What inner products take for so many rows, in the time of one multiplication of vectors; None where there is no such way."""
    form = _form(kernel, roles, target)
    return None if form is None else form.time


@frozen
class _Form:
    """What a product of inner products looks like, whether or not it pays (attributes as of `Dots`).

    Attributes:
        size: bytes of rhs.
        sizes: columns and depth, guessed where they are open.
        loading: what a multiplication takes, in the time of one of a tile of panels.
    """

    outer: tuple[Axis, ...]
    packed: bool
    lanes: int
    tile: tuple[int, int]
    part: int
    size: Dim
    sizes: tuple[int, int]
    loading: float

    def time(self, m: int) -> float:
        """What it takes for so many rows."""
        n, k = self.sizes
        padded, width = (-(-size // side) * side for size, side in zip((m, n), self.tile, strict=True))
        products = padded * width * (self.loading * -(-k // self.lanes) + FOLD * -(-k // self.part))
        return products + self.packed * GATHER * m * k


def _form(kernel: Kernel, roles: Roles, target: Target) -> _Form | None:
    """None where rhs does not lie along k, or would be read again and again."""
    r = roles
    m, n, k = r.m.extent, r.n.extent, r.k.extent
    itemsize = r.reduce.value.dtype.itemsize
    lanes = target.lanes(8 * itemsize)
    if (
        lanes == 1
        or n in (0, 1)
        or r.columns_contiguous
        or r.segments
        or r.packed
        or (isinstance(k, int) and k < lanes)
    ):
        return None
    depends = Dependencies()
    outer = tuple(axis for axis in kernel.axes if axis.name not in (r.m.name, r.n.name))
    if not all(axis.name in depends.of(r.rhs) for axis in outer):
        return None
    lies = plain_load(kernel, r.lhs)
    packed = lies is None or step(lies, r.k.name) != 1
    tile = _tile(m, n, target)
    # The rows of lhs take half of the first cache.
    near = target.l1 // 2 // ((m if isinstance(m, int) and m > 0 else tile[0]) * itemsize)
    part = min(max(SHORTEST_PART, near), CHAIN * lanes) // lanes * lanes
    size = product([axis.extent for axis in outer]) * n * k * itemsize
    is_far = target.is_wide and isinstance(size, int) and size > target.l2
    return _Form(outer, packed, lanes, tile, part, size, (guess(n), guess(k)), LOADING_FAR if is_far else LOADING)


def tiled_time(roles: Roles, target: Target) -> Callable[[int, int], float]:
    """What a register tile of panels, packed on the way, or of rhs in place takes for so many rows and columns at each point of the
    axes `rows`, which share what is packed. No loop over rows is as fast as inner products."""
    lanes = target.lanes(roles.reduce.value.dtype.bits)
    k, points = guess(roles.k.extent), guess(roles.row_count)

    def time(m: int, n: int) -> float:
        if 1 in (m, n):
            return float("inf")
        in_place = m <= FEW_ROWS and roles.rhs_step is not None
        packing = TURN if not roles.columns_contiguous else 0 if in_place else COPY
        return float(m * -(-n // lanes) * k + packing * n * k / max(points, 1))

    return time


def guess(extent: Dim) -> int:
    """A size to choose for."""
    return extent if isinstance(extent, int) else OPEN_SIZE


def _tile(m: Dim, n: Dim, target: Target) -> tuple[int, int]:
    """Rows and columns of the register tile: its sums and columns take registers, its rows are read from memory."""
    if m == 1:
        return 1, min(guess(n), 8)
    most = 4 if target.vector_registers >= 32 else 2
    if not isinstance(m, int) or m == 0:
        return most, min(guess(n), 4)
    return -(-m // -(-m // most)), min(guess(n), 4)


def _reads_abreast(length: Dim, size: Dim, target: Target) -> bool:
    """Whether the columns of a tile, `length` bytes each, are far apart. Neighbours that are not long are streams that end before
    the hardware follows them: products with 64 MB of columns of 512 bytes took 2.2 times as long (Zen 3)."""
    if isinstance(size, int) and size <= target.l2:
        return False
    if isinstance(size, int) and size > target.l3 // 2:
        return True
    return not isinstance(length, int) or length >= SHORT_STREAM


def _fetches_ahead(rows: int, length: Dim, size: Dim, target: Target) -> bool:
    """Whether columns, `length` bytes each, are asked for before their turn: not where they are near. The hardware follows few long
    ones from the last cache by itself, as it does those so short that they are one stream."""
    if isinstance(size, int) and size <= target.l2:
        return False
    return (
        rows > 2
        or not (isinstance(size, int) and isinstance(length, int))
        or size > target.l3 // 2
        or SHORT_STREAM < length < FOLLOWED
    )
