"""When a product of few rows reads its right operand where it lies, as memory gives it, and in which pieces."""

from __future__ import annotations

from pierian.compiler.dim import Dim, are_positive, ceildiv, product
from pierian.compiler.frozen import frozen
from pierian.compiler.schedule.roles import Roles
from pierian.compiler.target.features import CACHE_LINE, Target

# Rows of results up to which rhs is read so: with so many, reading takes longer than multiplying, or panels would have to be packed
# on the way (half to nine tenths of the time on Zen 3, 0.65 to 0.9 on Emerald Rapids). With more rows than the second number, panels
# that are there already are faster.
MOST_ROWS = 8
MOST_ROWS_BEFORE_PANELS = 4
# Vectors in a stripe, at least: shorter rows of rhs are better summed in registers.
FEW_VECTORS = 16
# Rows of rhs read side by side, at most; a power of two, as is half of it.
MOST_STREAMS = 8
# Products in a chain. As those of rows read side by side are added up first, twice as many would still round less than NumPy does,
# but leave too few tasks to products of a middling size.
STREAM_CHAIN = 256
# Bytes of rows that are streams long enough by themselves: rows of 8 and 16 KB far apart take 0.85 to 0.91 of the time with one
# thread, 0.93 to 1 with two, rows of 64 KB 1.02 and 1.06 (Zen 4).
LONG_ROW = 32768


@frozen
class Stream:
    """The pieces of a product of `rows` x `columns` sums of `depth` products.

    Attributes:
        lanes: elements in a vector.
        group: rows of rhs read side by side.
        abreast: these lie far apart in a chain, so that each is a stream that runs on over many rows; else they are neighbours.
        stripe: columns whose sums stay in the first-level cache.
        chain: products that are added up one after the other.
        distance: elements between the rows of the sums of a chain.
        own_distance: elements between the rows of a stripe's sums: a line more than they have, so that they do not share the sets of
            the first-level cache.
    """

    rows: int
    columns: Dim
    depth: Dim
    lanes: int
    group: int
    abreast: bool
    stripe: int
    chain: int
    distance: Dim
    own_distance: int

    @property
    def chains(self) -> Dim:
        """How many chains a sum has."""
        return ceildiv(self.depth, self.chain)

    @property
    def stripes(self) -> Dim:
        """How many stripes a row has."""
        return ceildiv(self.columns, self.stripe)

    @property
    def beats_panels(self) -> bool:
        """Whether even panels that were packed beforehand, once for many runs, are no faster."""
        return self.rows <= MOST_ROWS_BEFORE_PANELS

    def pays(self, roles: Roles) -> Dim:
        """1 where the sizes of a run are such that this is to be used, else 0: of an open number of rows, one; and columns that fill
        a stripe, where their number is open, and something to add up."""
        m, n, k = roles.m.extent, self.columns, self.depth
        one = [] if isinstance(m, int) else [2 - m, m]
        wide = [] if isinstance(n, int) else [n + 1 - FEW_VECTORS * self.lanes]
        return are_positive([*one, *wide, *([] if isinstance(k, int) else [k])])


def choose_stream(roles: Roles, target: Target) -> Stream | None:
    """The pieces; None where a product has more rows, rhs cannot be read in place, or is near anyway."""
    m, n, k, step = roles.m.extent, roles.n.extent, roles.k.extent, roles.rhs_step
    if step is None or k == 0 or roles.rows or roles.segments or roles.packed:
        return None
    rows = m if isinstance(m, int) else 1
    if not 0 < rows <= MOST_ROWS:
        return None
    itemsize = roles.reduce.value.dtype.itemsize
    lanes = target.lanes(8 * itemsize)
    size = product([axis.extent for axis in roles.rhs_batch]) * (n * k * itemsize)
    if (isinstance(n, int) and n < FEW_VECTORS * lanes) or (isinstance(size, int) and size <= target.l2):
        return None
    # Sums of a stripe take half of the cache; what is read passes through the other.
    most = max(lanes, target.l1 // 2 // (rows * itemsize) // lanes * lanes)
    even = -(-n // -(-n // most)) if isinstance(n, int) else most
    stripe = -(-even // lanes) * lanes
    # Many rows are many streams from memory, as long as their values of lhs and the sums stay in registers.
    group = MOST_STREAMS if rows <= 2 and (MOST_STREAMS + 1) * rows < target.vector_registers else MOST_STREAMS // 2
    # Short rows from memory end before the hardware follows them: 64 MB of rows of 1 KB took twice as long as neighbours (Zen 3).
    from_memory = isinstance(size, int) and size > target.l3 // 2
    abreast = from_memory and isinstance(n, int) and n * itemsize < LONG_ROW
    chain = min(k, STREAM_CHAIN) if isinstance(k, int) else STREAM_CHAIN
    own_distance = stripe + CACHE_LINE // itemsize
    return Stream(rows, n, k, lanes, group, abreast, stripe, chain, ceildiv(n, lanes) * lanes, own_distance)
