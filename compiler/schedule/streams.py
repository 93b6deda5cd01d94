"""When a product of few rows reads its right operand where it lies, as memory gives it, and in which pieces."""

from __future__ import annotations

from dataclasses import dataclass

from pierian.compiler.dim import product
from pierian.compiler.schedule.contraction import CHAIN, Roles
from pierian.compiler.target.features import Target

# Rows of results up to which reading rhs takes longer than multiplying.
MOST_ROWS = 4
# Vectors in a stripe, at least: shorter rows of rhs are better summed in registers.
FEW_VECTORS = 16


@dataclass(frozen=True, slots=True)
class Stream:
    """The pieces of a product of `rows` x `columns` sums of `depth` products.

    Attributes:
        lanes: elements in a vector.
        group: rows of rhs read side by side.
        stripe: columns whose sums stay in the first-level cache.
        chain: products that are added up one after the other.
        distance: elements between the rows of the sums that wait.
    """

    rows: int
    columns: int
    depth: int
    lanes: int
    group: int
    stripe: int
    chain: int
    distance: int

    @property
    def chains(self) -> int:
        """How many chains a sum has."""
        return -(-self.depth // self.chain)

    @property
    def stripes(self) -> int:
        """How many stripes a row has."""
        return -(-self.columns // self.stripe)


def choose_stream(roles: Roles, target: Target) -> Stream | None:
    """The pieces; None where a product has more rows, rhs cannot be read in place, or is near anyway."""
    m, n, k, step = roles.m.extent, roles.n.extent, roles.k.extent, roles.rhs_step
    if not (isinstance(m, int) and isinstance(n, int) and isinstance(k, int)) or step is None:
        return None
    if not 0 < m <= MOST_ROWS or k == 0 or roles.rows or roles.segments or roles.packed:
        return None
    itemsize = roles.reduce.value.dtype.itemsize
    lanes = target.lanes(8 * itemsize)
    size = product([axis.extent for axis in roles.rhs_batch]) * (n * k * itemsize)
    if n < FEW_VECTORS * lanes or (isinstance(size, int) and size <= target.l2):
        return None
    # Sums of a stripe take half of the cache; what is read passes through the other.
    most = max(lanes, target.l1 // 2 // (m * itemsize) // lanes * lanes)
    even = -(-n // -(-n // most))
    stripe = -(-even // lanes) * lanes
    group = 8 if m <= 2 and target.vector_registers >= 32 else 4
    return Stream(m, n, k, lanes, group, stripe, min(k, CHAIN), -(-n // lanes) * lanes)
