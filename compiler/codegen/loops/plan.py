"""Which axis of a loop kernel becomes lanes, and how much work a task has."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pierian.compiler.cost import kernel_bytes
from pierian.compiler.dim import Dim, constant_part, divide_exactly, product, symbols
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.access import Address, address, lane_step, step, without
from pierian.compiler.kernel.nodes import Axis, Kernel, Reduce, Store
from pierian.compiler.kernel.scalar import Scalar, load_parts
from pierian.compiler.schedule.rows import cost, cost_of, groups
from pierian.compiler.target.features import Target

# Elements of work in one task; smaller kernels stay on the calling thread. Measured on two Zen 4 cores: with two threads 2 us of
# work take 2.2 us, 4 us take 3.6, 8 us take 5.2; two tasks are 3.1 us of additions in cache, 6.7 us of exponentials.
GRAIN = 16384
# Scalar operations per element from which arithmetic, not the caches, sets the time: with more of them a task has fewer elements.
LIGHT_WORK = 16
# Tasks so many that one more or less makes no difference to threads that share them.
FEW_TASKS = 16
# Elements in one block of a reduction that is cut up because it has too few outer points to share out; of one that is known to be
# long more, so that the streams of a block run far, as long as there are so many blocks. Measured on Zen 4: sums of 64 MB take 0.83
# of the time with one thread, 0.9 with two, against blocks of the first size.
BLOCK = 32768
LONG_BLOCK = 1 << 18
MANY_BLOCKS = 64
# Additions one after the other in each lane of a row's sum; longer sums are sums of such stretches. With 32 the error stays within a
# quarter of NumPy's, which adds in pairs from 16 on; a stretch costs some ten instructions beside at least 32 vectors.
STRETCH = 32
# Outer points below which a long reduction is cut into blocks.
FEW_OUTER = 16
# Long rows are read ROWS at a time in stripes of so many columns, sums waiting in the first cache: memory is fastest when few
# streams run far.
ROWS = 8
STRIPE = 2048
# Vectors in the shortest rows that are worth reading so; sums over shorter ones stay in registers.
NARROWEST = 16
# Elements in the longest rows that are sorted in registers, of which every place is written out.
SHORT_ROWS = 8
# Scalar operations per element up to which a kernel is written out for every row of a square.
SQUARE_WORK = 24
# Scalar operations per element below which a pass over rows waits for memory and nothing else.
STREAMING_WORK = 4
# Vectors of sums that wait in registers together.
FEW_VECTORS = 8
# Elements of a stretch of memory that is worth a partial result of its own.
LONG_STRETCH = 1024
# Rows in a block of columns, at least: what it leaves is then little beside what it reads.
FEW_ROWS = 64
# Vectors in rows that end too seldom to be walked side by side, and in those that are mostly end.
LONG_ROW = 160
SHORT_ROW = 4
# Scalar operations per element that hide the wait for a row's end by themselves, and would be code once more for each row.
HEAVY_WORK = 40
# What an open size is taken for where arrays are compared by how much of them is read.
OPEN_SIZE = 1024
# Elements from which on a kernel of much work saves more in some runs than it takes to compile in a longer form.
MIDDLING_ARRAY = 1 << 13
LONG_ARRAY = 1 << 18
# Parts of a row that comes from memory which are read side by side, and elements in the shortest row that is. Measured on Zen 3: one
# stream brings 22.6 GB/s, four of them in 64 KB or more 26.5 to 28.
STREAMS = 4
LONG_STREAM = 1 << 12
# Vectors up to which short reductions of known size, such as windows, are written out point by point.
UNROLLED = 160


_BOOL = 8  # bits of a stored boolean


@frozen
class Plan:
    """The choices for one kernel.

    Attributes:
        kind: pointwise, squares, short rows, rows or columns.
        vector_axis: name of the vectorized outer axis (pointwise, squares, short rows, columns); rows vectorize their own last axis.
        across: for squares, the outer axis that what is read lies along; for short rows, the one along a row.
        lanes: elements in a vector.
        unroll: vectors in flight.
        grain: for pointwise, elements worth a task.
        together: for rows, outer points walked side by side.
        abreast: for rows, whether these points are far apart: rows that come from memory are then streams that run far.
    """

    kind: str
    vector_axis: str
    lanes: int
    unroll: int
    across: str = ""
    grain: int = GRAIN
    together: int = 1
    abreast: bool = False


def choose_plan(kernel: Kernel, target: Target, runs: int = 1) -> Plan:
    """Which axis becomes lanes, how many lanes, how many vectors at once, for a kernel that is launched `runs` times."""
    floats = [b.dtype.bits for b in kernel.buffers if b.dtype.is_float]
    is_pointwise = not any(statement.axes for statement in kernel.body)
    others = [b.dtype.bits for b in kernel.buffers if not b.dtype.is_bool]
    # Booleans are reduced in whole registers; elsewhere so many lanes would be gathered one by one.
    lanes = target.lanes(max(floats or others or [32 if is_pointwise else _BOOL]))
    work = sum(cost(statement.value) for statement in kernel.body)
    if is_pointwise:
        axis = _contiguous_axis(kernel, [a.name for a in kernel.axes])
        across = _transposed_axis(kernel, axis, lanes) if lanes > 1 and work <= SQUARE_WORK else ""
        if across:
            return Plan("squares", axis, lanes, 1, across)
        grain = GRAIN * LIGHT_WORK // max(work, LIGHT_WORK)
        along = _axis_of_rows(kernel, axis, lanes)
        if along and work * SHORT_ROWS <= UNROLLED:
            return Plan("short rows", along, lanes, 1, axis, grain)
        lanes = _no_wider(kernel, axis, lanes)
        return Plan("pointwise", axis, lanes, fitting(kernel, axis, lanes, _in_flight(kernel, runs)), grain=grain)
    inner = _last_inner(kernel)
    outer = kernel.axes[-1].name if kernel.axes else ""
    names = [axis.name for statement in kernel.body for axis in statement.axes[-1:]]
    reduces_only = all(isinstance(s, Reduce) or not s.axes for s in kernel.body)
    if outer and reduces_only and inner and _fitness(kernel, [outer]) > _fitness(kernel, names):
        # Long stretches of each row keep the hardware's prefetching busy.
        wanted = 16 if work < 6 else 4 if work < 24 else 2
        return Plan("columns", outer, lanes, fitting(kernel, outer, lanes, wanted))
    if outer and reduces_only and _reduces_short_rows(kernel, lanes):
        return Plan("columns", outer, lanes, 1)
    lanes = _row_lanes(kernel, target) if reduces_only else lanes
    if reduces_only and _reads_rows_once(kernel, target):
        return Plan("rows", "", lanes, 4, together=STREAMS, abreast=True)
    return Plan("rows", "", lanes, 4, together=_rows_together(kernel, lanes, target))


def _in_flight(kernel: Kernel, runs: int) -> int:
    """Vectors in flight. With AVX2 (Zen 3) long chains of operations take 0.82 of the time two by two, and 0.75 four by four, with
    AVX-512 (Emerald Rapids) 0.89 and 0.82; that is 10 and 20 ms more to compile, which large arrays, and small ones in a long loop,
    soon pay for. Elementary functions that are called are code of one operation: a chain of many takes 0.55 of the time two by
    two."""
    points = product([axis.extent for axis in kernel.axes])
    known = points * runs if isinstance(points, int) else 0
    written = sum(min(cost_of(node), 1) for node in ir.postorder(s.value for s in kernel.body))
    if written < 24 or known >= LONG_ARRAY:
        return 4
    return 2 if written < 80 or known >= MIDDLING_ARRAY else 1


def _reads_rows_once(kernel: Kernel, target: Target) -> bool:
    """Whether a kernel of many points does little but read rows, once each, out of arrays known to be larger than the near caches.
    Measured on Zen 3, one thread and two: 64 MB in rows of 16 to 4096 elements take 0.65 to 0.85 of the time if four rows are read
    at once that lie 16 KB or more apart; four rows of 1 KB one behind the other take 1.7. On Emerald Rapids rows of 64 to 256 take
    0.45 to 0.95, longer ones as long as before. Several arrays are several streams anyway (see `may_read_in_streams`)."""
    passes = [group for group in groups(kernel.body) if group[0].axes]
    points, size = product([axis.extent for axis in kernel.axes]), kernel_bytes(kernel)
    return (
        len(passes) == 1
        and isinstance(size, int)
        and size > target.l2
        and isinstance(points, int)
        and points >= STREAMS * FEW_OUTER
        and sum(cost(statement.value) for statement in passes[0]) < STREAMING_WORK
        and may_read_in_streams(kernel, target)
    )


def may_read_in_streams(kernel: Kernel, target: Target) -> bool:
    """Whether a kernel may read what it reads in several streams side by side: one array it may. Those of two drive each other out
    where vectors are as wide as a line: sums of products of rows of two arrays take 0.75 to 1 of the time one row after the other,
    products of two vectors 0.7 to 0.9 in one stream of each (Zen 4); with narrower vectors 0.97 to 1.3 and 0.96 to 1.3 (Zen 3)."""
    return not target.is_wide or reads_one_array(kernel)


def reads_one_array(kernel: Kernel) -> bool:
    """Whether of the arrays that a kernel reads one is larger than all others. The places where two arrays are read lie in the same
    sets of the caches more often than not, and many streams of each drive each other out."""
    loads = {load_parts(node)[0] for node in ir.postorder(s.value for s in kernel.body) if node.op == "load"}
    # What a kernel keeps between its passes is no buffer of it, and in the caches.
    sizes = [product(buffer.shape) for buffer in kernel.buffers if buffer.name in loads]
    known = [size for size in sizes if isinstance(size, int)]
    return len(sizes) == 1 or (len(known) == len(sizes) > 0 and known.count(max(known)) == 1)


def _rows_together(kernel: Kernel, lanes: int, target: Target) -> int:
    """How many rows are walked side by side: two, of very short ones four, as long as what they read and write stays in the first
    cache between passes. Long rows hardly wait for their ends."""
    passes = [group for group in groups(kernel.body) if group[0].axes]
    points, row = (product([axis.extent for axis in axes]) for axes in (kernel.axes, passes[0][0].axes))
    heavy = sum(cost(s.value) for s in passes[0]) >= HEAVY_WORK
    if points == 1 or not kernel.axes or (len(passes) == 1 and heavy):
        return 1
    if not isinstance(row, int):
        return 2
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    loads = {load_parts(node)[0] for node in ir.postorder(s.value for s in kernel.body) if node.op == "load"}
    touched = loads | {s.buffer for s in kernel.body if isinstance(s, Store) and s.axes}
    width = sum(buffers[name].dtype.itemsize for name in touched)
    if row > LONG_ROW * lanes or (len(passes) > 1 and 4 * 2 * row * width > 3 * target.l1):
        return 1
    return 4 if row <= SHORT_ROW * lanes and target.vector_registers >= 32 else 2


def _row_lanes(kernel: Kernel, target: Target) -> int:
    """Lanes for kernels that only reduce rows: by what they compute, whatever the type of their results. Rows read once, with
    little work, from beyond the second cache are read in half registers where registers are as wide as a cache line: memory
    delivers 10 to 20 % more that way (measured on Zen 4, wherever the array begins), and half as much arithmetic suffices."""
    nodes = list(ir.postorder(s.value for s in kernel.body if s.axes))
    kinds = [node.dtype for node in nodes if not node.dtype.is_bool]
    floats = [kind.bits for kind in kinds if kind.is_float]
    lanes = target.lanes(max(floats or [kind.bits for kind in kinds] or [_BOOL]))
    passes = [group for group in groups(kernel.body) if group[0].axes]
    elements = product([axis.extent for axis in (*kernel.axes, *passes[0][0].axes)])
    width = max((node.dtype.itemsize for node in nodes if node.op == "load"), default=0)
    streams = not isinstance(elements, int) or elements * width > target.l2
    light = sum(cost(s.value) for s in passes[0]) < STREAMING_WORK
    if len(passes) == 1 and streams and light and target.is_wide:
        return max(1, lanes // 2)
    return lanes


def even_share(total: Dim, most: int, multiple: int = 1) -> int:
    """Elements of one task, at most about `most`: equal shares where the total is known, in multiples of `multiple`, and an even
    number of them where they are few: three take two threads as long as four."""
    if isinstance(total, int):
        tasks = max(1, -(-total // most))
        if 1 < tasks < FEW_TASKS:
            tasks += tasks % 2
        most = -(-total // tasks)
    return max(1, -(-most // multiple)) * multiple


def fitting(kernel: Kernel, axis: str, lanes: int, unroll: int) -> int:
    """Vectors in flight such that a short axis of known size has none left over, or few."""
    extent = next((a.extent for a in kernel.axes if a.name == axis), 0)
    if not isinstance(extent, int) or extent >= 4 * lanes * unroll or extent < lanes:
        return unroll
    vectors = extent // lanes
    return max(range(1, min(unroll, vectors) + 1), key=lambda count: (vectors // count * count, count))


def transposed_loads(kernel: Kernel, along: str, across: str) -> list[Scalar]:
    """The loads that lie along `across` while results lie along `along`."""
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    found = []
    for node in ir.postorder(s.value for s in kernel.body):
        if node.op != "load" or node.dtype.is_bool:
            continue
        name, indices = load_parts(node)
        where = address(buffers[name], indices)
        if not where.computed and step(where.known, across) == 1 and step(where.known, along) not in (0, 1, None):
            found.append(node)
    return found


def _transposed_axis(kernel: Kernel, along: str, lanes: int) -> str:
    """The axis that most loads which would gather lie along; none where squares would not fit."""
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    stores = [s for s in kernel.body if isinstance(s, Store)]
    if any(step(address(buffers[s.buffer], s.indices).known, along) != 1 for s in stores):
        return ""
    extents = {axis.name: axis.extent for axis in kernel.axes}
    wide = [name for name, extent in extents.items() if not isinstance(extent, int) or extent >= lanes]
    if along not in wide:
        return ""
    counts = {name: len(transposed_loads(kernel, along, name)) for name in wide if name != along}
    best = max(counts, key=lambda name: counts[name], default="")
    return best if best and counts[best] else ""


def _axis_of_rows(kernel: Kernel, short: str, lanes: int) -> str:
    """The axis that numbers rows of a few elements, which lie one behind the other in all results; none where something would still
    be read element by element."""
    axes = {axis.name: axis for axis in kernel.axes}
    row = axes[short].extent if short else 0
    if not isinstance(row, int) or not 2 <= row <= min(SHORT_ROWS, lanes // 2):
        return ""
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    stores = [address(buffers[s.buffer], s.indices).known for s in kernel.body if isinstance(s, Store)]
    for name, axis in axes.items():
        long = not isinstance(axis.extent, int) or axis.extent >= lanes
        if name == short or not long or any((step(at, short), step(at, name)) != (1, row) for at in stores):
            continue
        values = [s.value for s in kernel.body]
        whole = set(loads_of_rows(kernel, values, name, axes[short]))
        rest = [node for node in ir.postorder(values) if node.op == "load" and node not in whole]
        if all(_is_plain(address(buffers[load_parts(n)[0]], load_parts(n)[1]), name) for n in rest):
            return name
    return ""


def _reduces_short_rows(kernel: Kernel, lanes: int) -> bool:
    """Whether what is reduced are rows of a few elements, one behind the other along the last outer axis, and nothing else has to be
    read element by element."""
    outer = kernel.axes[-1]
    if isinstance(outer.extent, int) and outer.extent < lanes:
        return False
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    work = 0
    for statement in kernel.body:
        if len(statement.axes) > 1:
            return False
        rest = [node for node in ir.postorder([statement.value]) if node.op == "load"]
        if statement.axes:
            (inner,) = statement.axes
            if not isinstance(inner.extent, int) or not 2 <= inner.extent <= min(SHORT_ROWS, lanes // 2):
                return False
            work += inner.extent * cost(statement.value)
            whole = loads_of_rows(kernel, [statement.value], outer.name, inner)
            rest = [node for node in rest if node not in whole]
        if not all(_is_plain(address(buffers[load_parts(n)[0]], load_parts(n)[1]), outer.name) for n in rest):
            return False
    return work <= 2 * UNROLLED


def _is_plain(where: Address, axis: str) -> bool:
    """Whether lanes along an axis read neighbours, or one element."""
    return not where.computed and step(where.known, axis) in (0, 1)


@frozen
class RowPart:
    """What a load reads of rows of `length` elements, one behind the other: from place `first` on every `step`-th."""

    length: int
    first: int
    step: int


def loads_of_rows(kernel: Kernel, values: Sequence[Scalar], along: str, short: Axis) -> dict[Scalar, RowPart]:
    """The loads that walk rows of `short`, or parts of rows of a few elements, one behind the other along an axis."""
    found = {}
    for node in ir.postorder(values):
        if node.op == "load":
            name, indices = load_parts(node)
            buffer = kernel.buffer(name)
            part = _row_part(address(buffer, indices), along, short, product(buffer.shape))
            if part is not None:
                found[node] = part
    return found


def _row_part(where: Address, along: str, short: Axis, size: Dim) -> RowPart | None:
    length, near = step(where.known, along), step(where.known, short.name)
    if where.computed or not isinstance(length, int) or not isinstance(near, int) or not isinstance(short.extent, int):
        return None
    if (near, length) == (1, short.extent):
        return RowPart(length, 0, 1)
    # Rows are read as a whole: that no element of them lies outside of the array has to be certain.
    rest = without(where.known, (along, short.name))
    first = constant_part(rest) % max(length, 1)
    ends = (first, first + near * (short.extent - 1))
    if not 2 <= length <= SHORT_ROWS or near == 0 or min(ends) < 0 or max(ends) >= length:
        return None
    whole = all(divide_exactly(one, length) is not None for one in (size, rest - first))
    return RowPart(length, first, near) if whole else None


def _no_wider(kernel: Kernel, axis: str, lanes: int) -> int:
    """Lanes no more than a short axis fills: narrow vectors instead of masked ones."""
    extent = next((a.extent for a in kernel.axes if a.name == axis), 0)
    if not isinstance(extent, int) or not 2 <= extent < lanes:
        return lanes
    return 1 << (extent - 1).bit_length()


def _last_inner(kernel: Kernel) -> str:
    return next((s.axes[-1].name for s in kernel.body if s.axes), "")


def _accesses(kernel: Kernel) -> list[tuple[Dim, int]]:
    """Address expressions of all loads and stores, with a weight."""
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    found = []
    for node in ir.postorder(s.value for s in kernel.body):
        if node.op == "load":
            name, indices = load_parts(node)
            found.append((address(buffers[name], indices).known, 1))
    for statement in kernel.body:
        if isinstance(statement, Store):
            found.append((address(buffers[statement.buffer], statement.indices).known, 2))
    return found


def _elements_in_order(kernel: Kernel, axis: str) -> int:
    """How many elements are read and written one after the other if lanes lie along an axis; stores count twice. An access moves
    one element for each point of the axes it depends on: what the others do not change is read once for all of them."""
    sizes = {one.name: one.extent if isinstance(one.extent, int) else OPEN_SIZE for one in kernel.axes}
    found = 0
    for expression, weight in _accesses(kernel):
        if step(expression, axis) == 1:
            found += weight * math.prod(sizes.get(name, 1) for name in symbols(expression))
    return found


def _fitness(kernel: Kernel, axes: Sequence[str]) -> tuple[int, int]:
    """How well lanes along these axes suit the loads: first few that would gather, then many consecutive ones."""
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    loads = [load_parts(node) for node in ir.postorder(s.value for s in kernel.body) if node.op == "load"]
    steps = [lane_step(address(buffers[name], indices).known, axis) for name, indices in loads for axis in set(axes)]
    return -sum(one not in (0, 1) for one in steps), sum(one == 1 for one in steps)


def _contiguous_axis(kernel: Kernel, names: Sequence[str]) -> str:
    """The axis along which most accesses are consecutive; the last one for a tie."""
    if not names:
        return ""
    return max(reversed(names), key=lambda name: _elements_in_order(kernel, name))


def vector_axis_last(kernel: Kernel, plan: Plan) -> Kernel:
    """Outer points are independent, so the vector axis may be the innermost, before it the one that squares are read along."""
    if not plan.vector_axis or (kernel.axes[-1].name == plan.vector_axis and not plan.across):
        return kernel
    last = [plan.across, plan.vector_axis] if plan.across else [plan.vector_axis]
    chosen = [axis for name in last for axis in kernel.axes if axis.name == name]
    return replace(kernel, axes=(*(a for a in kernel.axes if a.name not in last), *chosen))
