"""Choices for contractions: tile and block sizes, and when operands are read in place."""

from __future__ import annotations

import math

from pierian.compiler.dim import Dim, ceildiv, floordiv, maximum
from pierian.compiler.frozen import frozen
from pierian.compiler.schedule.roles import Roles
from pierian.compiler.target.features import CACHE_LINE, Target

# Products that a microkernel of few sums adds up in one turn of its loop, and those for which lines are fetched together.
UNROLL = 4
# Rows up to which rhs is read in place, and so much of k at a time that a panel stays in the second-level cache; products with more
# rows pay for packing it. So do those with fewer where the rows of a panel share too few sets of the cache. An open number of rows
# counts as few: the more there are, the less it matters.
FEW_ROWS = 256
FEW_ROWS_IN_FEW_SETS = 64
# Panels of narrow vectors as deep as a chain fit this share of the first-level cache. There they should be: few products are made of
# each value that is read. Where they lie, up to twice the rows that the cache has sets for are still better than packing. Up to so
# many rows of results each task packs for itself, long sums of few results cut along the sum: with more, it would pack what others
# pack too. They may be more where the first tile packs what it reads, or lhs has to be packed anyway; and up to `FEW_ROWS` where
# rows of rhs begin within cache lines. (Zen 3, against reading in place: 9 to 17 rows take 0.75 to 0.9 of the time, 128 rows 0.85
# to 1, and 168 to 256 rows by 300, 500 or 1000 columns 0.74 to 0.9.)
PANEL_SHARE = 3 / 8
PATIENCE = 2
LEAST_ROWS_OF_PANELS = 9
FEW_ROWS_OF_PANELS = 96
FEW_ROWS_PACKED_CHEAPLY = 144
# Bytes of each row that are packed at once where rows share so few sets that nothing can be fetched before its turn.
PIECE = 512
# Panels of the results of one task where lhs is walked along m, such as an image in the gradient of filters: what its lines hold is
# used up while they are near only where a task has all rows, or as many as the sums of so many panels leave room for.
PANELS_ALONG_M = 4
# Ways of a cache.
WAYS = 8
# Sums that keep two units busy which add a product in four or five cycles.
ENOUGH_SUMS = 10
# Products that are added up one after the other; longer sums are sums of such chains.
CHAIN = 192
# The share of the second-level cache that a block of lhs may take, and the tiles it should have at least: each panel of rhs that
# comes from further away is used by so many. A block of more products would have few rows: 512 x 3072 x 768 takes 0.94 of the time
# in two parts of 1536 (Emerald Rapids), while two of 512 for 1024 cubed take 1.03.
NEAR_SHARE = 4
FEW_TILES = 3
DEEPEST = 1536
# Rows and columns of results in one task, at most.
TASK_ROWS = 168
TASK_COLUMNS = 1024
# Columns of results in one task, at most, where the number of rows is open: even few rows are work for several threads. A power of
# two of them divides usual matrices into blocks that threads share evenly: three blocks for two threads take the time of four.
OPEN_COLUMNS = 256
# A left operand read in place that lies along m, where k is walked in segments: bytes between values that follow each other along
# k, at most. Segments are too short for the hardware to see what comes next.
FAR_IN_SEGMENTS = 256
# Rows of one tile whose values may share a set of the first-level cache, also beside panels that are to stay there, and the bytes
# after which sets repeat. Few columns are no reason to pack all rows, even if they share one.
SAME_SET = 8
SAME_SET_BESIDE_PANELS = 5
SET_PERIOD = 4096
MANY_COLUMNS = 256
# A last tile that is not full gets code of its own where its missing rows are more than one in so many.
LITTLE_WASTE = 32
# Multiplications from which there should be enough tasks for several threads, and how many are enough.
SHARED_WORK = 1 << 20
ENOUGH_TASKS = 16
# Multiplications that two threads are soon done with.
SOON_DONE = 1 << 25
# Tiles along m up to which a block is not cut for more tasks.
LEAST_TILES = 4
# A sum is split over tasks where results are so few; and the products that each share has, at least, so that adding up the shares
# costs little. They may be more where tasks pack both operands, or walk lhs along m: smaller blocks would pack and read again.
FEW_RESULTS = 1 << 16
FEW_RESULTS_OF_BOTH = 1 << 18
LONG = 512
# Where tasks pack both operands, many results should use what they pack: sums may take so many times the share of the second-level
# cache that a block of lhs takes.
SUMS_OF_BOTH = 2


@frozen
class Tiling:
    """Sizes in elements.

    Attributes:
        lanes: elements in a vector.
        mr, nr: the register tile: mr rows of nr columns, nr a multiple of lanes.
        tail: rows of a lower last tile, exact; 0 where all tiles have mr rows (some perhaps beyond the matrix).
        low: rows of the lower tiles that end a block where its height is known in a run only; 0 where it is known before.
        mb, rb, nb: the results one task computes: mb along m (at most, see `block_height`) at each of rb points of the axes
            `rows`, nb columns.
        kb, sb: what is summed between two visits of a tile: kb along k at each of sb points of the segments;
            with sb above 1, kb is all of k.
        splits: into how many shares, at most, a sum is split over tasks.
        lhs_in_place: the tile reads lhs where it lies.
        rhs_in_place: the tile reads rhs where it lies: `never`, `always`, or with `few rows`, decided in each run; `panels` where
            it is packed already; `panel by panel` where each task packs a panel for its tiles.
        few_rows: how many rows are few.
        ahead: cache lines of the next panel of rhs that a tile fetches with every `UNROLL` products, or rows of it where it is read
            in place; 0 where all of it is near.
        chain: products that are added up one after the other before they join the sum of all; segments of k for a tile that reads
            segments in place.
        later: bytes of lhs that a tile which reads segments in place fetches with every product for one that comes later; 0 where
            all of lhs is near, or the hardware fetches it.
        panels: how many a task packs at once, where it does.
    """

    lanes: int
    mr: int
    nr: int
    tail: int
    low: int
    mb: int
    rb: int
    nb: int
    kb: int
    sb: int
    splits: int
    lhs_in_place: bool
    rhs_in_place: str
    few_rows: int
    ahead: int
    chain: int
    later: int = 0
    panels: int = 1

    @property
    def has_rows_ahead(self) -> bool:
        """Whether what is read next lies in rows as far apart as those of rhs."""
        return self.ahead > 0 and self.rhs_in_place in ("always", "few rows", "panel by panel")

    @property
    def part(self) -> int:
        """Products summed between two visits of a tile, at most."""
        return self.kb * self.sb

    @property
    def lhs_stride(self) -> int:
        """Distance of packed lhs rows: one for many blocks, so that they share code, and off a power of two, so that rows
        do not share cache sets."""
        return -(-self.part // 256) * 256 + self.lanes


def choose_tiling(roles: Roles, target: Target) -> Tiling:
    """Register tile and blocks for a target; known sizes get tiles that waste little."""
    bits = roles.reduce.value.dtype.bits
    itemsize = bits // 8
    lanes = target.lanes(bits)
    m, n = roles.m.extent, roles.n.extent
    # Vectors of one lane are never stored in part.
    vectors = 1 if lanes == 1 or (isinstance(n, int) and n <= lanes) else 2
    nr = vectors * lanes
    # Accumulators, one row of rhs, and one value of lhs must fit the registers.
    most = min(14, max(1, (target.vector_registers - vectors - 1) // vectors))
    mr = _best_rows(m, most, vectors) if isinstance(m, int) else most
    near = target.l2 // NEAR_SHARE // itemsize
    is_narrow = _fits_first_level(target, nr, itemsize)
    deepest = max(CHAIN, min(DEEPEST, near // (FEW_TILES * mr)))
    held = _rows_kept(roles, target, nr, itemsize)
    along_m = _walks_lhs_along_m(roles)
    near_along_k = along_m and _is_near_along_k(roles, itemsize)
    panel_by_panel = near_along_k or _packs_panel_by_panel(roles, target, mr, nr, itemsize)
    if near_along_k:
        deepest = min(CHAIN, _lines_beside_panel(roles, target, nr, itemsize))
    elif along_m or panel_by_panel:
        deepest = CHAIN
    elif _has_few_rows(roles) and held >= CHAIN:
        deepest = min(deepest, held) if is_narrow else CHAIN
    kb, sb = _depth_blocks(roles, deepest)
    lhs_in_place = _reads_lhs_in_place(roles, target, mr, nr, kb, itemsize)
    tail = m % mr if isinstance(m, int) else 0
    if isinstance(m, int) and tail and not lhs_in_place and (mr - tail) * LITTLE_WASTE <= m:
        tail = 0  # rows beyond the packed matrix cost less than code of their own
    most_rows = min(TASK_ROWS, near // (kb * sb))
    if along_m:
        most_rows = near // (PANELS_ALONG_M * nr) if near_along_k else target.l2 // 2 // (kb * sb * itemsize)
    mb, rb = _row_blocks(roles, mr, most_rows)
    packs_both = panel_by_panel and not (lhs_in_place or along_m)
    most_columns = SUMS_OF_BOTH * near // (min(mb, m) * rb) if packs_both and isinstance(m, int) else near // (mb * rb)
    if not isinstance(m, int):
        most_columns = 1 << max(most_columns, 1).bit_length() - 1
    nb = max(nr, min(TASK_COLUMNS if isinstance(m, int) else OPEN_COLUMNS, most_columns) // nr * nr)
    if isinstance(n, int):
        nb = even_blocks(max(n, 1), nb, nr)
    splits = _splits(roles, mb, rb, nb, FEW_RESULTS_OF_BOTH if packs_both or along_m else FEW_RESULTS)
    if splits > 1:
        share = -(-roles.depth // splits) if isinstance(roles.depth, int) else LONG
        kb, sb = _depth_blocks(roles, even_blocks(share, deepest, 1))
    mb, rb, nb = _enough_tasks(roles, mr, nr, mb, rb, nb, splits, lhs_in_place or packs_both)
    few_rows = FEW_ROWS if kb <= held else FEW_ROWS_IN_FEW_SETS if roles.rhs_step is not None else 0
    if not is_narrow:
        few_rows = min(few_rows, FEW_TILES * mr)
    stays_near = _stays_near(roles, target, nr, held, itemsize)
    rhs_in_place = "panel by panel" if panel_by_panel else _reads_rhs_in_place(roles, few_rows, stays_near)
    panels = PIECE // (nr * itemsize) if panel_by_panel and _share_few_sets(roles, target, itemsize) else 1
    ahead = _ahead(roles, target, itemsize, nr, rb * -(-mb // mr), rhs_in_place) if panels == 1 else 0
    chain = max(1, CHAIN // kb) if lhs_in_place and sb > 1 else even_blocks(kb * sb, CHAIN, UNROLL)
    later = _bytes_later(roles, target, mr, kb, itemsize) if lhs_in_place and sb > 1 else 0
    low = mr // 2 + 1 if mr > 2 and not isinstance(m, int) and (lhs_in_place or roles.rows_contiguous) else 0
    return Tiling(
        lanes, mr, nr, tail, low, mb, rb, nb, kb, sb, splits, lhs_in_place, rhs_in_place, few_rows, ahead, chain, later,
        panels,
    )  # fmt: skip


def block_height(roles: Roles, tiling: Tiling) -> Dim:
    """Rows of a block: as many as the tiling says, and even shares of an extent that is known in a run only."""
    m = roles.m.extent
    if isinstance(m, int):
        return tiling.mb
    blocks = maximum(ceildiv(m, tiling.mb), 1)
    return floordiv(m + blocks - 1, blocks)


def _ahead(roles: Roles, target: Target, itemsize: int, nr: int, tiles: int, in_place: str) -> int:
    """Lines or rows each of the tiles of a column fetches, so that together they fetch the panel of the next column."""
    size = _rhs_bytes(roles, itemsize)
    if isinstance(size, int) and size <= target.l2 // 2:
        return 0
    if in_place == "panel by panel" and roles.rhs_step is None:
        return 0
    lines = nr * itemsize * UNROLL // CACHE_LINE if in_place in ("never", "panels") else UNROLL
    return -(-lines // tiles)


def _bytes_later(roles: Roles, target: Target, mr: int, kb: int, itemsize: int) -> int:
    """Bytes of lhs to fetch with each product of a tile that walks segments of `kb` products: the hardware does not see where the
    next segment begins, and waits for every line of the first tile that reads it. Tiles along k fetch what one at the next point of
    the axes `rows` reads, where their rows are windows that overlap or adjoin; tiles along m the line beside theirs."""
    assert roles.lhs_steps is not None and roles.lhs_size is not None
    size = roles.lhs_size * itemsize
    along_m, along_k = roles.lhs_steps
    if isinstance(size, int) and size <= target.l2 // 2:
        return 0
    if along_k != 1:
        return max(along_k, 0) * itemsize
    # Of a line, windows narrower than it read little, and it is near once one of them has read it.
    if not roles.rows or not 0 < along_m <= kb or kb * itemsize < CACHE_LINE:
        return 0
    each = CACHE_LINE // UNROLL
    return -(-mr * along_m * itemsize // (kb * each)) * each


def _best_rows(m: int, most: int, vectors: int) -> int:
    """The tile height for m rows: low last tiles keep fewer sums under way, so the fewest tiles, evenly filled."""
    tiles = -(-max(m, 1) // most)
    even = -(-max(m, 1) // tiles)
    exact = [rows for rows in range(most, max(1, even - 3) - 1, -1) if max(m, 1) % rows == 0]
    return exact[0] if exact and exact[0] * vectors >= ENOUGH_SUMS else even


def even_blocks(size: int, most: int, multiple: int) -> int:
    """Blocks of at most `most`, as even as multiples of `multiple` allow."""
    blocks = -(-size // most)
    return -(-(-(-size // blocks)) // multiple) * multiple


def _depth_blocks(roles: Roles, most: int) -> tuple[int, int]:
    depth = roles.k.extent
    count = roles.segment_count
    if not isinstance(depth, int):
        return most, 1
    if roles.segments and depth <= most // 2:
        sb = most // max(depth, 1)
        if isinstance(count, int):
            sb = even_blocks(max(count, 1), sb, 1)
        if sb > 1:
            return max(depth, 1), sb
    return even_blocks(max(depth, 1), most, 8), 1


def _row_blocks(roles: Roles, mr: int, most: int) -> tuple[int, int]:
    m, count = roles.m.extent, roles.row_count
    mb = mr * max(1, most // mr)
    if not isinstance(m, int):
        return mb, 1
    mb = even_blocks(max(m, 1), mb, mr)
    if mb < m or not roles.rows:
        return mb, 1
    rb = max(1, most // mb)
    return mb, even_blocks(max(count, 1), rb, 1) if isinstance(count, int) else rb


def _splits(roles: Roles, mb: int, rb: int, nb: int, few: int) -> int:
    """Into how many shares each sum is split, at most, where blocks alone would be too few tasks and results are at most `few`."""
    m, n, count, batch, depth = roles.m.extent, roles.n.extent, roles.row_count, roles.batch_count, roles.depth
    if not (isinstance(m, int) and isinstance(n, int) and isinstance(count, int) and isinstance(batch, int)):
        return 1
    if not 0 < batch * count * m * n <= few:
        return 1
    tasks = batch * -(-count // rb) * -(-m // mb) * -(-n // nb)
    shares = ENOUGH_TASKS // tasks
    if isinstance(depth, int):
        shares = min(shares, depth // LONG) if batch * count * m * n * depth >= SHARED_WORK else 1
    return max(1, shares)


def _enough_tasks(
    roles: Roles, mr: int, nr: int, mb: int, rb: int, nb: int, splits: int, lhs_in_place: bool
) -> tuple[int, int, int]:
    """Smaller blocks where all sizes are known and there would be too few tasks to share out: of fewer columns first, but of fewer
    rows where each task packs those it reads."""
    m, n, count = roles.m.extent, roles.n.extent, roles.row_count
    batch, depth = roles.batch_count, roles.depth
    if not (isinstance(m, int) and isinstance(n, int) and isinstance(count, int)):
        return mb, rb, nb
    if not (isinstance(batch, int) and isinstance(depth, int)) or batch * count * m * n * depth < SHARED_WORK:
        return mb, rb, nb

    def tasks() -> int:
        return splits * batch * -(-count // rb) * -(-m // mb) * -(-n // nb)

    while tasks() < ENOUGH_TASKS:
        if mb > LEAST_TILES * mr and not lhs_in_place:
            mb = even_blocks(m, mb // 2, mr)
        elif nb > 2 * nr:
            nb = even_blocks(n, max(nr, nb // 2), nr)
        elif rb > 1:
            rb = -(-rb // 2)
        elif mb > LEAST_TILES * mr:
            mb = even_blocks(m, mb // 2, mr)
        else:
            break
    return mb, rb, nb


def _reads_lhs_in_place(roles: Roles, target: Target, mr: int, nr: int, kb: int, itemsize: int) -> bool:
    """Where packing would gain nothing: rows known exactly, and in different sets of the first-level cache, where they stay while k
    goes on. Of values that lie along m a tile leaves a part of each line to the next one, so lines must stay in that cache. Many
    rows are better packed beside panels that come from the second level, which are read again for each tile (0.88 of the time with
    784 rows, 1.1 to 1.2 with 64 to 128; Emerald Rapids)."""
    if roles.lhs_steps is None or not isinstance(roles.m.extent, int):
        return False
    along_m, along_k = roles.lhs_steps
    if along_k == 1:
        sets = SET_PERIOD // math.gcd(SET_PERIOD, max(along_m, 1) * itemsize)
        return -(-mr // sets) <= (SAME_SET_BESIDE_PANELS if _is_read_often(roles, target, nr, itemsize) else SAME_SET)
    if along_m != 1:
        return False
    if roles.segments:
        return _is_near_along_k(roles, itemsize)
    if not _fits_first_level(target, nr, itemsize) and roles.m.extent > TASK_ROWS:
        return False
    return kb * CACHE_LINE <= target.l1 // 4 and kb <= PATIENCE * _rows_held(along_k, target.l1, itemsize)


def _is_read_often(roles: Roles, target: Target, nr: int, itemsize: int) -> bool:
    """Whether a row of lhs passes by many panels that are to stay in the first-level cache: six rows in one set, as of 1024 floats,
    are packed (0.89 to 0.96 of the time of 512 rows and more by 512 columns and more, Zen 3), but not for fewer columns (64: 1.1 to
    1.2) nor fewer rows (96 and 128: 1.1)."""
    m, n = roles.m.extent, roles.n.extent
    many = isinstance(m, int) and m > TASK_ROWS and isinstance(n, int) and n >= MANY_COLUMNS
    return many and not roles.segments and _fits_first_level(target, nr, itemsize)


def _rhs_bytes(roles: Roles, itemsize: int) -> Dim:
    """Bytes of the right operand at one point of the batch."""
    return roles.n.extent * roles.depth * itemsize


def _fits_first_level(target: Target, nr: int, itemsize: int) -> bool:
    """Whether panels are such that they are to be read from the first-level cache."""
    return CHAIN * nr * itemsize <= PANEL_SHARE * target.l1


def _walks_lhs_along_m(roles: Roles) -> bool:
    """Whether lhs lies along m and is walked in segments of a long sum: tasks have so many rows that each uses all of a line, and
    few products at a time, so that what tiles share, in place or packed, stays near."""
    steps, depth = roles.lhs_steps, roles.depth
    if steps is None or steps[0] != 1 or steps[1] == 1 or roles.packed:
        return False
    is_long = not isinstance(depth, int) or depth >= 2 * LONG
    return bool(roles.segments) and isinstance(roles.m.extent, int) and is_long


def _is_near_along_k(roles: Roles, itemsize: int) -> bool:
    """Whether the values of lhs that follow each other along k, in segments, are so near that it is read in place."""
    assert roles.lhs_steps is not None
    return roles.lhs_steps[1] * itemsize <= FAR_IN_SEGMENTS


def _lines_beside_panel(roles: Roles, target: Target, nr: int, itemsize: int) -> int:
    """Products of which the lines of lhs, one for each and all in few sets, stay in the first-level cache beside their panel."""
    assert roles.lhs_steps is not None
    held = _rows_held(roles.lhs_steps[1], target.l1, itemsize)
    return held * target.l1 // (target.l1 + held * nr * itemsize)


def _packs_panel_by_panel(roles: Roles, target: Target, mr: int, nr: int, itemsize: int) -> bool:
    """Whether tasks pack for themselves: panels that several of their tiles use and few other tasks, and that do not stay where
    they should be read from. Panels of wide vectors come from the second-level cache, into which the hardware fetches no rows that
    lie apart: packed by tasks that have all rows, two tiles of them where rhs is more than half of that cache, products of 28 to
    168 rows take 0.5 to 0.8 of the time of reading in place, and those of more rows that pack first 0.45 to 0.9 (Emerald Rapids).
    Where the first tile packs, 192 and 256 rows take 0.93 to 0.98 of the time of packing first, up to 0.78 in float64 with two
    threads, 512 rows 0.97 to 1.12 (Zen 4)."""
    m = roles.m.extent * roles.row_count
    if roles.packed:
        return False
    least = mr + 1 if _share_few_sets(roles, target, itemsize) else FEW_TILES * mr
    is_cheap = roles.rhs_step is not None or not roles.rows_contiguous
    most = FEW_ROWS_PACKED_CHEAPLY if is_cheap else FEW_ROWS_OF_PANELS
    if _fits_first_level(target, nr, itemsize):
        if roles.rhs_step is not None:
            least = max(mr + 1, LEAST_ROWS_OF_PANELS)  # two tiles, unless they are very low
        if _lies_across_lines(roles, itemsize):
            most = FEW_ROWS
    else:
        most = FEW_ROWS if roles.rhs_step is not None else TASK_ROWS
        size = _rhs_bytes(roles, itemsize)
        if isinstance(size, int) and size <= target.l2 // NEAR_SHARE:
            return False
        if isinstance(size, int) and size > target.l2 // 2:
            least = mr + 1
    if isinstance(m, int) and not least <= m <= most:
        return False
    return not isinstance(roles.depth, int) or roles.depth > min(_rows_kept(roles, target, nr, itemsize), CHAIN)


def _has_few_rows(roles: Roles) -> bool:
    """Whether the number of rows, open perhaps, is such that packing rhs is too dear."""
    m = roles.m.extent * roles.row_count
    return not isinstance(m, int) or m <= FEW_ROWS


def _reads_rhs_in_place(roles: Roles, few_rows: int, stays_near: bool) -> str:
    if roles.packed:
        return "panels"
    if roles.rhs_step is None:
        return "never"
    m = roles.m.extent * roles.row_count
    if isinstance(m, int):
        return "always" if m <= few_rows or stays_near else "never"
    return "always" if few_rows == FEW_ROWS else "few rows"


def _stays_near(roles: Roles, target: Target, nr: int, held: int, itemsize: int) -> bool:
    """Whether rhs stays in the cache where it lies: all of it in the second level, its rows not in too few sets. Panels of wide
    vectors come from there, and packing them saves a tenth where rows share sets of the first level; but other cores have to read
    what one has packed, which takes two threads longer where all is soon done (256 cubed: 0.9 of the time with one thread, 1.2
    with two, 128 cubed: 0.9 and 1.5, 8 x 256 x 64 x 256: 0.89 and 0.97; Emerald Rapids)."""
    size, depth = _rhs_bytes(roles, itemsize), roles.depth
    if not (isinstance(size, int) and isinstance(depth, int) and size <= target.l2 and depth <= held):
        return False
    if _fits_first_level(target, nr, itemsize):
        return depth <= CHAIN or not _lies_across_lines(roles, itemsize)
    near = isinstance(roles.rhs_step, int) and depth <= _rows_held(roles.rhs_step, target.l1, itemsize)
    work = roles.batch_count * roles.row_count * roles.m.extent * roles.n.extent * depth
    return near or (size <= target.l2 // NEAR_SHARE and isinstance(work, int) and work < SOON_DONE)


def _share_few_sets(roles: Roles, target: Target, itemsize: int) -> bool:
    """Whether the rows of a panel, where they lie, drive each other even from the second-level cache."""
    return isinstance(roles.rhs_step, int) and _rows_held(roles.rhs_step, target.l2, itemsize) < CHAIN


def _lies_across_lines(roles: Roles, itemsize: int) -> bool:
    """Whether rows of rhs begin within cache lines, so that those of a panel lie in one more than they fill."""
    return isinstance(roles.rhs_step, int) and roles.rhs_step * itemsize % CACHE_LINE != 0


def _rows_kept(roles: Roles, target: Target, nr: int, itemsize: int) -> int:
    """How many rows of a panel stay in the cache it is to be read from; 0 where that is not known."""
    if not isinstance(roles.rhs_step, int):
        return 0
    if _fits_first_level(target, nr, itemsize):
        return PATIENCE * _rows_held(roles.rhs_step, target.l1, itemsize)
    return _rows_held(roles.rhs_step, target.l2, itemsize)


def _rows_held(distance: int, cache: int, itemsize: int) -> int:
    """How many rows, so many elements apart, have sets of a cache to stay in."""
    period = 1 << (cache // WAYS).bit_length() - 1
    return cache // math.gcd(period, max(distance, 1) * itemsize)
