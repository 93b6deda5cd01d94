"""When a product of few rows sums along the vectors of both operands, each read once where it lies along k, and in which pieces."""

from __future__ import annotations

from dataclasses import dataclass

from pierian.compiler.dim import Dim, ceildiv, product
from pierian.compiler.schedule.contraction import CHAIN, Roles
from pierian.compiler.target.features import Target

# Rows of results up to which products need no registers for results of many columns.
MOST_ROWS = 8
# Vectors in a sum, at least: shorter ones take longer to add across lanes than to multiply.
FEW_VECTORS = 4
# Sums under way at a time, and columns of them: as many streams of memory.
SUMS = 16
MOST_COLUMNS = 8
# Bytes of rhs in one task, about, and columns.
TASK_BYTES = 1 << 16
TASK_COLUMNS = 256
# The share of the last cache up to which rhs is found there. Columns of a larger one are fetched ahead, which halves the time of
# (10000, 256) x (256, 4) in float64 and would cost 10 % of that of nearer ones.
SHARE = 2


@dataclass(frozen=True, slots=True)
class Dots:
    """The pieces of a product of `rows` x `columns` sums of `depth` products.

    Attributes:
        lanes: elements in a vector.
        group: columns summed side by side.
        task: columns in a task, a multiple of lanes.
        chain: products that are added up before they join the sum of all: `CHAIN` in each lane.
        ahead: whether the columns that follow are fetched meanwhile.
    """

    rows: int
    columns: Dim
    depth: int
    lanes: int
    group: int
    task: int
    chain: int
    ahead: bool

    @property
    def stride(self) -> int:
        """Elements between packed rows of lhs."""
        return -(-self.depth // self.lanes) * self.lanes

    @property
    def tasks(self) -> Dim:
        """Into how many tasks the columns are cut."""
        return ceildiv(self.columns, self.task)


def choose_dots(roles: Roles, target: Target) -> Dots | None:
    """The pieces; None where a product has more rows, or rhs does not lie along k."""
    m, k = roles.m.extent, roles.k.extent
    itemsize = roles.reduce.value.dtype.itemsize
    lanes = target.lanes(8 * itemsize)
    if (
        not isinstance(m, int)
        or not isinstance(k, int)
        or not 0 < m <= MOST_ROWS
        or k < FEW_VECTORS * lanes
        or lanes == 1
    ):
        return None
    if roles.columns_contiguous or roles.rows or roles.segments or roles.packed:
        return None
    most = SUMS if target.vector_registers >= 32 else SUMS // 2
    group = max(1, min(MOST_COLUMNS, most // m))
    task = min(TASK_COLUMNS, max(1, TASK_BYTES // (k * itemsize)))
    size = roles.n.extent * product([axis.extent for axis in roles.rhs_batch]) * (k * itemsize)
    ahead = not isinstance(size, int) or size > target.l3 // SHARE
    return Dots(m, roles.n.extent, k, lanes, group, -(-task // lanes) * lanes, CHAIN * lanes, ahead)
