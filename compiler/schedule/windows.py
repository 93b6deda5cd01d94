"""Choices for kernels over small windows: depthwise convolutions, pooling, and what else combines a few neighbours of each point.

Neighbouring points of one axis (the *slide*) read mostly the same elements: several of them are computed together, so that what is
loaded once serves all. Lanes lie along another axis, the one that results lie along. Elements around an array's edges, which a
kernel has as `select(inside, load at the nearest element, fill)`, are read by masked loads at their own place.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from pierian.compiler.dim import Dim, Symbolic, constant_part, product, symbol, symbols
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.access import address, step
from pierian.compiler.kernel.nodes import Axis, Buffer, Kernel, Reduce, Statement, Store
from pierian.compiler.kernel.scalar import Index, Scalar, load_parts, postorder
from pierian.compiler.schedule.rows import replace_expression
from pierian.compiler.target.features import Target

# Points of a window up to which it is written out; 11 x 11 is the largest that networks have.
MOST_TAPS = 128
# Points from which one line of a window is written out, in a loop over all: longer code would take LLVM longer than it saves.
LOOPED_TAPS = 16
# Points of the slide axis computed together, at most.
MOST_ROWS = 8
# Bytes after which lines fall into the same sets of the first cache, how many groups of sets neighbours must have at least, and how
# many lines of a set a tile may take. With channels last and a power of two of them all elements of a tile fall into few sets: of a
# larger tile lines are fetched again for the vector beside it, in twice the time where results happen to lie in those sets too.
SET_PERIOD = 4096
FEW_SETS = 2
NEAR_WAYS = 6
# Distances of lanes that are read as whole vectors and picked apart; farther ones would gather.
MOST_STEP = 4
# Registers that a tile's sums and elements leave to filters, masks and addresses.
SPARE = 5

Bound = tuple[Dim, Dim]


@frozen
class Access:
    """Elements that lie `stride` apart from lane to lane, perhaps around an array's edges.

    Attributes:
        node: the expression that is read: a load, or a select around one.
        load: the load at plain places, which may be outside where there are bounds.
        stride: distance of lanes.
        bounds: (place, extent): an element is there where 0 <= place < extent for all of them.
        lane_bound: the one of them that differs from lane to lane; also for lanes apart, which are read with what lies between.
        fill: the value elsewhere.
    """

    node: Scalar
    load: Scalar
    stride: int
    bounds: tuple[Bound, ...]
    lane_bound: Bound | None
    fill: Scalar | None

    @property
    def phase(self) -> int:
        """How many elements before the first one its vectors begin, so that neighbouring taps read the same vectors."""
        return constant_part(self.lane_bound[0]) % self.stride if self.lane_bound is not None else 0


@frozen
class WindowPlan:
    """The choices for one kernel.

    Attributes:
        reduces: combinations over the window, one after the other, all over the axes `taps`; none where each point is read once, as
            by padding and slices with steps.
        before: the other outer axes.
        slide, lane: the axes of points computed together and of lanes.
        lanes: elements in a vector.
        rows: points of the slide axis in a tile.
        looped: the axis of a large window that a loop walks around all others.
        taps: its other axes in the order they are walked: those that share elements along the slide last.
    """

    reduces: tuple[Reduce, ...]
    before: tuple[Axis, ...]
    slide: Axis
    lane: Axis
    lanes: int
    rows: int
    looped: Axis | None
    taps: tuple[Axis, ...]

    def points(self) -> Iterator[tuple[int, ...]]:
        """The window's points, or those of one line of it, in the order in which they are combined."""
        return itertools.product(*(range(_known(axis.extent)) for axis in self.taps))

    def at(self, expression: Scalar, row: int, point: Sequence[int] = ()) -> Scalar:
        """An expression at a point of the window, for the row of that number in a tile."""
        places: dict[str, Dim] = {axis.name: at for axis, at in zip(self.taps, point, strict=True)}
        places[self.slide.name] = symbol(self.slide.name) + row
        result = ir.rename_axes(expression, places)
        for reduce in self.reduces:
            dtype = reduce.value.dtype
            result = replace_expression(result, ir.reduced(reduce.name, dtype), self.combined(reduce, row))
        return result

    def combined(self, reduce: Reduce, row: int) -> Scalar:
        """What the result of a combination is called for a row of a tile."""
        return ir.reduced(f"{reduce.name}@{row}", reduce.value.dtype)


def _known(extent: Dim) -> int:
    assert isinstance(extent, int)
    return extent


def choose_windows(kernel: Kernel, target: Target) -> WindowPlan | None:
    """A plan where a kernel reads elements that other schedules would read badly: windows of known size that neighbours share, and
    what lies around edges, or apart, from lane to lane."""
    reduces = _only_reduces(kernel.body)
    lane = _lane(kernel)
    if lane is None or (not reduces and not _only_stores(kernel.body)):
        return None
    values = [statement.value for statement in reduces or kernel.body]
    lanes = target.lanes(values[0].dtype.bits)
    found = accesses(values, kernel.buffers, lane.name)
    others = [axis for axis in kernel.axes if axis is not lane]
    if lanes < 2 or not found or not others:
        return None
    before = tuple(others[:-1])
    if not reduces:
        is_plain = all(access.lane_bound is None for access in found)
        return None if is_plain else WindowPlan((), before, others[-1], lane, lanes, 1, None, ())
    sharing = {axis.name: _sharing(found, kernel.buffers, axis, reduces[0].axes) for axis in others}
    slide = max(reversed(others), key=lambda axis: bool(sharing[axis.name]))
    shared = sharing[slide.name]
    if not shared and not any(access.bounds or access.stride > 1 for access in found):
        return None
    taps = tuple(sorted(reduces[0].axes, key=lambda axis: axis.name in shared))
    kept = product([axis.extent for axis in taps]) if len(reduces) > 1 else 0
    sets = min(_sets(access, kernel.buffers, slide) for access in found)
    if sets <= FEW_SETS:
        return None
    looped = taps[0] if len(taps) > 1 and _known(product([axis.extent for axis in taps])) >= LOOPED_TAPS else None
    written = taps[1:] if looped else taps
    ratio = shared.get(taps[-1].name)
    rows = _rows(slide, taps[-1], ratio, _known(kept), _Lines(sets, written, ratio or 1), target)
    before = tuple(axis for axis in others if axis is not slide)
    return WindowPlan(reduces, before, slide, lane, lanes, rows, looped, written)


def _only_stores(body: Sequence[Statement]) -> bool:
    """Whether a kernel just stores a point of each result, in order, all of one width."""
    stores = [one for one in body if isinstance(one, Store) and not one.axes]
    computed = any(isinstance(index, Scalar) for one in stores for index in one.indices)
    return len(stores) == len(body) > 0 and not computed and len({one.value.dtype.bits for one in stores}) == 1


def _only_reduces(body: Sequence[Statement]) -> tuple[Reduce, ...]:
    """The reductions over one small window, seen over the same axes, of a kernel whose other statements store a point each."""
    found = tuple(one for one in body if isinstance(one, Reduce))
    stores = body[len(found) :]
    if not found or any(not isinstance(one, Store) or one.axes for one in stores):
        return ()
    extents = [axis.extent for axis in found[0].axes]
    taps = product(extents)
    if not isinstance(taps, int) or not 2 <= taps <= MOST_TAPS:
        return ()
    bits = found[0].value.dtype.bits
    for one in found:
        fits = one.combiner in ("sum", "prod", "max", "min") and not one.value.dtype.is_bool
        if not fits or [axis.extent for axis in one.axes] != extents or one.value.dtype.bits != bits:
            return ()
    return tuple(_over(one, found[0].axes) for one in found)


def _over(reduce: Reduce, axes: tuple[Axis, ...]) -> Reduce:
    """The reduction over axes of other names."""
    names: dict[str, Dim] = {old.name: symbol(new.name) for old, new in zip(reduce.axes, axes, strict=True)}
    return replace(reduce, axes=axes, value=ir.rename_axes(reduce.value, names))


def _lane(kernel: Kernel) -> Axis | None:
    """The outer axis that all results lie along."""
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    stores = [statement for statement in kernel.body if isinstance(statement, Store)]
    for axis in reversed(kernel.axes):
        if all(step(address(buffers[s.buffer], s.indices).known, axis.name) == 1 for s in stores):
            return axis
    return None


def _sharing(found: Sequence[Access], buffers: Sequence[Buffer], axis: Axis, taps: Sequence[Axis]) -> dict[str, int]:
    """The window's axes along which neighbours on an outer axis read the same elements, with how many points of the outer axis
    are as far as one of the window (at least one; the other way round never shares all)."""
    named = {buffer.name: buffer for buffer in buffers}
    shared = {}
    for access in found:
        name, indices = load_parts(access.load)
        where = address(named[name], indices).known
        along = step(where, axis.name)
        for tap in taps:
            far = step(where, tap.name)
            ratio = _ratio(along, far)
            if ratio is not None and 0 < ratio < _known(tap.extent):
                shared[tap.name] = ratio
    return shared


def _ratio(along: Dim | None, far: Dim | None) -> int | None:
    """How many steps of a window are one step of an outer axis, where that is known."""
    if along is None or far is None or along == 0 or far == 0:
        return None
    if isinstance(along, int) and isinstance(far, int):
        return along // math.gcd(along, far)
    if isinstance(along, Symbolic) and isinstance(far, Symbolic):
        for ratio in range(1, MOST_STEP + 1):
            if any(along * down == far * ratio for down in range(1, MOST_STEP + 1)):
                return ratio
    return None


def _sets(access: Access, buffers: Sequence[Buffer], slide: Axis) -> int:
    """How many groups of cache sets the elements of neighbours on the slide axis fall into."""
    name, indices = load_parts(access.load)
    buffer = next(buffer for buffer in buffers if buffer.name == name)
    far = step(address(buffer, indices).known, slide.name)
    return (
        SET_PERIOD // math.gcd(SET_PERIOD, far * buffer.dtype.itemsize) if isinstance(far, int) and far else SET_PERIOD
    )


@frozen
class _Lines:
    """The cache lines of a tile: in how many groups of sets, and the window that it reads, neighbours `ratio` taps apart."""

    sets: int
    taps: tuple[Axis, ...]
    ratio: int

    def fit(self, rows: int) -> bool:
        """Whether those of so many rows, read and written, stay in the first cache together."""
        *others, last = (_known(axis.extent) for axis in self.taps)
        return math.prod(others) * ((rows - 1) * self.ratio + last) + rows <= self.sets * NEAR_WAYS


def _rows(slide: Axis, tap: Axis, ratio: int | None, kept: int, lines: _Lines, target: Target) -> int:
    """Points of the slide axis in a tile: as many as registers hold sums and elements of, evenly filled; `kept` elements of each
    stay there for a second combination."""
    if ratio is None:
        return 1
    room = target.vector_registers - SPARE

    def fits(rows: int) -> bool:
        return rows == 1 or (lines.fit(rows) and max(2 * rows - 1 + _known(tap.extent), rows * kept) <= room)

    most = max(rows for rows in range(1, MOST_ROWS + 1) if fits(rows))
    if not isinstance(slide.extent, int):
        return most
    extent = max(slide.extent, 1)
    exact = [rows for rows in range(most, most // 2, -1) if extent % rows == 0]
    return exact[0] if exact else min(most, -(-extent // -(-extent // most)))


# --- what is read -----------------------------------------------------------------------------------------------------


def accesses(roots: Sequence[Scalar], buffers: Sequence[Buffer], lane: str) -> list[Access]:
    """Everything that differs from lane to lane, each as an access; none at all where something would gather."""
    named = {buffer.name: buffer for buffer in buffers}
    found: list[Access] = []
    stack = list(roots)
    seen: set[Scalar] = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op == "dim" and isinstance(node.attribute, Symbolic) and lane in symbols(node.attribute):
            return []
        guarded = _guarded(node, lane) if node.op == "select" else None
        if guarded is None and node.op != "load":
            stack += node.args
            continue
        load, bounds, fill = guarded or (node, (), None)
        access = _access(node, load, bounds, fill, named, lane)
        if access is None:
            return []
        if access.stride:
            found.append(access)
    return found


def _access(
    node: Scalar, load: Scalar, bounds: tuple[Bound, ...], fill: Scalar | None, buffers: dict[str, Buffer], lane: str
) -> Access | None:
    """One access; None where its lanes are neither near each other nor all at one place."""
    name, indices = load_parts(load)
    where = address(buffers[name], indices)
    stride = step(where.known, lane)
    if where.computed or not isinstance(stride, int) or not 0 <= stride <= MOST_STEP or (bounds and not stride):
        return None
    if stride and buffers[name].dtype.bits < 32:  # narrow types change on their way into registers
        return None
    varying = [bound for bound in bounds if lane in symbols(bound[0])]
    last, size = _innermost(buffers[name], indices)
    if stride and (len(varying) > 1 or any(step(place, lane) != stride for place, _ in varying)):
        return None
    if stride > 1 and not varying:
        if step(last, lane) != stride:
            return None
        varying = [(last, size)]
    return Access(node, load, stride, bounds, varying[0] if varying else None, fill)


def _innermost(buffer: Buffer, indices: Sequence[Index]) -> Bound:
    """The index along the last axis of several points, and how many they are."""
    for index, size in zip(reversed(indices), reversed(buffer.shape), strict=True):
        assert not isinstance(index, Scalar)
        if size != 1:
            return index, size
    return 0, 1


def _guarded(node: Scalar, lane: str) -> tuple[Scalar, tuple[Bound, ...], Scalar] | None:
    """The parts of `select(inside, load, fill)` where `inside` says just that no index was moved to the nearest element: the load
    at its own place, (place, extent) of each such index, and the fill."""
    condition, value, fill = node.args
    if value.op != "load" or any(one.op in ("load", "dim") for one in postorder([fill])):
        return None
    name, indices = load_parts(value)
    plain: list[Dim] = []
    bounds: list[Bound] = []
    wanted: set[Scalar] = set()
    for index in indices:
        if not isinstance(index, Scalar):
            plain.append(index)
            continue
        parts = _nearest(index)
        if parts is None:
            return None
        place, last = parts
        plain.append(_size(place))
        bounds.append((_size(place), _size(last) + 1))
        wanted |= {ir.compare("ge", place, ir.const(0, ir.int64)), ir.compare("le", place, last)}
    stated = {one for one in _conjunction(condition) if one.op != "const" or not one.attribute}
    return (ir.load(name, tuple(plain), value.dtype), tuple(bounds), fill) if stated == wanted else None


def _nearest(index: Scalar) -> tuple[Scalar, Scalar] | None:
    """(place, last) of `max(min(place, last), 0)`."""
    if index.op != "max" or index.args[0].op != "min" or index.args[1] is not ir.const(0, ir.int64):
        return None
    place, last = index.args[0].args
    return (place, last) if _is_size(place) and _is_size(last) else None


def _is_size(node: Scalar) -> bool:
    if node.op == "sub":
        return all(_is_size(arg) for arg in node.args)
    return node.op in ("dim", "const")


def _size(node: Scalar) -> Dim:
    """An integer expression of sizes and axes as one."""
    if node.op == "sub":
        return _size(node.args[0]) - _size(node.args[1])
    if node.op == "dim":
        assert isinstance(node.attribute, Symbolic)
        return node.attribute
    assert isinstance(node.attribute, int)
    return node.attribute


def _conjunction(node: Scalar) -> Iterator[Scalar]:
    if node.op == "and":
        for arg in node.args:
            yield from _conjunction(arg)
    else:
        yield node
