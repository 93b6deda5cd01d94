"""Expressions that ask where they stand, cut where the answers change.

    y[%i, %j] = select(%j >= 512, b[%i, max(min(%j - 512, 511), 0)], a[%i, max(min(%j, 511), 0)])    for %j:1024

is `a[%i, %j]` for the first 512 points of %j and `b[%i, %j - 512]` for the others (index-set splitting; Allen and Kennedy,
Optimizing Compilers for Modern Architectures, 5.7): neighbours are read where they lie, and nothing is asked in a loop.
"""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.dim import Dim, is_nonnegative, substitute, symbol, symbols
from pierian.compiler.dtype import bool_, int64
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.access import address, affine, step
from pierian.compiler.kernel.nodes import Axis, Kernel, Statement, Store
from pierian.compiler.kernel.scalar import Index, Scalar, load_parts, postorder
from pierian.compiler.schedule.rows import cost

# Spans that an axis is cut into at most, and operations of all of them together.
MOST_SPANS = 16
MOST_WORK = 160
_ORDERS = ("ge", "lt", "gt", "le")


@frozen
class Span:
    """Part of an axis, and what expressions are there."""

    begin: Dim
    end: Dim
    values: tuple[Scalar, ...]


def cut_kernel(kernel: Kernel) -> list[Kernel]:
    """Kernels that together do what this one does, one for each span of an outer axis that results do not lie along. Of an axis that
    they do lie along spans are loops of one kernel, so that lines of memory are written once; but where it is the only one."""
    values = [statement.value for statement in kernel.body]
    for axis in kernel.axes:
        if len(kernel.axes) == 1 or any(statement.axes for statement in kernel.body) or not _lies_along(kernel, axis):
            found = spans(values, [axis] * len(values))
            if found:
                return [part for span in found for part in cut_kernel(_part(kernel, axis, span))]
    return [kernel]


def _lies_along(kernel: Kernel, axis: Axis) -> bool:
    stores = [s for s in kernel.body if isinstance(s, Store)]
    return any(step(address(kernel.buffer(s.buffer), s.indices).known, axis.name) == 1 for s in stores)


def _part(kernel: Kernel, axis: Axis, span: Span) -> Kernel:
    """The kernel at the points of a span, counted from its begin."""
    known = _Known(axis.name, span.begin, span.end)
    moved: dict[str, Dim] = {axis.name: symbol(axis.name) + span.begin}

    def index(entry: Index) -> Index:
        if isinstance(entry, Scalar):
            return ir.rename_axes(known.simplified(entry), moved)
        return substitute(entry, moved)

    def placed(statement: Statement, value: Scalar) -> Statement:
        value = ir.rename_axes(value, moved)
        if isinstance(statement, Store):
            return replace(statement, indices=tuple(map(index, statement.indices)), value=value)
        return replace(statement, value=value)

    axes = tuple(replace(axis, extent=span.end - span.begin) if other is axis else other for other in kernel.axes)
    return replace(kernel, axes=axes, body=tuple(map(placed, kernel.body, span.values)))


def spans(values: Sequence[Scalar], axes: Sequence[Axis]) -> list[Span]:
    """The spans within which every answer is known, in order, of axes of one extent, one for each value; none where nothing is asked
    about them, where their order depends on open sizes, or where they would be too much code. A span may be empty in a run."""
    asked = [place for value, axis in zip(values, axes, strict=True) for place in _thresholds(value, axis.name)]
    cuts = _in_order([0, *asked, axes[0].extent]) if asked else None
    if cuts is None or not 2 < len(cuts) <= MOST_SPANS + 1:
        return []
    found = []
    for begin, end in zip(cuts, cuts[1:], strict=False):
        known = {axis.name: _Known(axis.name, begin, end) for axis in axes}
        simpler = tuple(known[axis.name].simplified(value) for value, axis in zip(values, axes, strict=True))
        found.append(Span(begin, end, simpler))
    work = sum(1 + cost(value) for span in found for value in span.values)
    return found if work <= MOST_WORK else []


def _thresholds(value: Scalar, axis: str) -> list[Dim]:
    """Where answers change: the first points of the axis at which they are others."""
    found: dict[Dim, None] = {}
    for node in postorder([value]):
        difference = _difference(node, axis) if node.op in _ORDERS else None
        if difference is None:
            continue
        factor, rest = difference
        beyond = node.op in ("gt", "le")
        if factor == 1:
            found[beyond - rest] = None
        elif factor == -1:
            found[rest + (not beyond)] = None
    return list(found)


def _difference(node: Scalar, axis: str) -> tuple[int, Dim] | None:
    """The difference of a node's two arguments as `factor * axis + rest`, where it depends on the axis and sizes only."""
    x, y = (affine(arg) for arg in node.args)
    if x is None or y is None:
        return None
    factor = step(x - y, axis)
    if not isinstance(factor, int):
        return None
    rest = substitute(x - y, {axis: 0})
    return None if any(name.startswith("%") for name in symbols(rest)) else (factor, rest)


def _in_order(places: Sequence[Dim]) -> list[Dim] | None:
    """Places between the first and the last one, each once; None where an open size decides which comes first."""
    low, *between, high = places
    kept: list[Dim] = [low, high]
    for place in between:
        if place in kept or is_nonnegative(low - place) or is_nonnegative(place - high):
            continue
        at = next((i for i, other in enumerate(kept) if is_nonnegative(other - place)), None)
        if at is None or not is_nonnegative(place - kept[at - 1]):
            return None
        kept.insert(at, place)
    return kept


class _Known:
    """Expressions at points begin <= axis < end, of which there is at least one."""

    def __init__(self, axis: str, begin: Dim, end: Dim) -> None:
        self.axis = axis
        self.begin, self.last = begin, end - 1
        self.done: dict[Scalar, Scalar] = {}

    def simplified(self, root: Scalar) -> Scalar:
        for node in postorder([root]):
            if node not in self.done:
                self.done[node] = self._node(node)
        return self.done[root]

    def _node(self, node: Scalar) -> Scalar:
        if node.op == "load":
            name, indices = load_parts(node)
            return ir.load(name, tuple(self._index(index) for index in indices), node.dtype)
        if not node.args:
            return node
        args = tuple(self.done[arg] for arg in node.args)
        made = node if args == node.args else ir.scalar(node.op, node.dtype, args, node.attribute)
        if node.op == "select":
            return _chosen(args[0], args[1], args[2]) or made
        if node.op in _ORDERS and args[0].dtype is int64:
            answer = self._is_order(made)
            return made if answer is None else ir.const(answer, bool_)
        if node.op in ("min", "max") and node.dtype is int64:
            is_first = self._is_order(ir.compare("le" if node.op == "min" else "ge", *args))
            return made if is_first is None else args[0] if is_first else args[1]
        if node.op in ("and", "or") and node.dtype is bool_:
            return _joined(node.op, *args) or made
        if node.op == "not" and args[0].op == "const" and node.dtype is bool_:
            return ir.const(not args[0].attribute, bool_)
        return made

    def _index(self, index: Index) -> Index:
        if not isinstance(index, Scalar):
            return index
        known = affine(self.done[index])
        return self.done[index] if known is None else known

    def _is_order(self, node: Scalar) -> bool | None:
        """The answer of a comparison where it is one at all points."""
        difference = _difference(node, self.axis)
        if difference is None:
            return None
        factor, rest = difference
        ends = (rest + factor * self.begin, rest + factor * self.last)
        least, most = ends if factor >= 0 else ends[::-1]
        margin = node.op in ("gt", "le")  # x > y is x - y >= 1
        if is_nonnegative(least - margin):
            return node.op in ("ge", "gt")
        return node.op in ("lt", "le") if is_nonnegative(margin - 1 - most) else None


def _chosen(condition: Scalar, x: Scalar, y: Scalar) -> Scalar | None:
    if condition.op != "const":
        return None
    return x if condition.attribute else y


def _joined(op: str, x: Scalar, y: Scalar) -> Scalar | None:
    """A conjunction or disjunction of which one side is known."""
    for one, other in ((x, y), (y, x)):
        if one.op == "const":
            return other if bool(one.attribute) == (op == "and") else one
    return None
