"""How a scan walks memory: what lies one after the other there is one run, whatever axes it has."""

from __future__ import annotations

import math

from pierian.compiler.dim import Dim, product, substitute, symbol
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.kernel.access import address, step
from pierian.compiler.kernel.nodes import Axis, Kernel, Scan
from pierian.compiler.kernel.scalar import Scalar, rename_axes
from pierian.compiler.schedule.collapse import index_expressions

# Vectors in the longest pattern of segments that is written out.
MOST_VECTORS = 16
# Vectors in the longest segments that share vectors with their neighbours: of longer ones the ends are little beside the rest.
LONGEST_SEGMENT = 4


@frozen
class Run:
    """Axes of a scan whose points lie one after the other in every array, walked as one.

    Attributes:
        kernel: the kernel, of which one axis may be counted from its other end, so that all of the run go the same way.
        points: axes of points that are walked each for itself.
        axes: the axes of the run, slowest first; lanes lie along the last.
        apart: how far apart elements lie that are combined: 1, or the width of rows that are scanned downwards.
        segment: after so many elements of the run a scan ends and the next one begins; 0 where the run is one scan.
    """

    kernel: Kernel
    points: tuple[Axis, ...]
    axes: tuple[Axis, ...]
    apart: int
    segment: int


def across_lanes(kernel: Kernel) -> Axis | None:
    """The axis beside the scanned one along which elements of the result are neighbours."""
    known = _stored_at(kernel)
    return next((axis for axis in reversed(kernel.axes) if step(known, axis.name) == 1 and axis.extent != 1), None)


def choose_run(kernel: Kernel, lanes: int) -> Run | None:
    """The run that vectors of so many lanes walk; None where lanes lie better along an axis that is not scanned."""
    (scan,) = kernel.body
    (scanned,) = scan.axes
    across = across_lanes(kernel)
    axes, apart = scan.axes, 1
    if across is not None and step(_stored_at(kernel), scanned.name) not in (1, -1):
        if not isinstance(across.extent, int) or across.extent > lanes:
            return None
        turned = _walked_as_one(kernel, scanned, across, across)
        if turned is None:
            return None
        kernel, axes, apart = turned, (scanned, across), across.extent
    points = tuple(axis for axis in kernel.axes if axis not in axes)
    segment = product([axis.extent for axis in axes])
    if lanes > 1 and points and isinstance(segment, int) and _is_short(segment, lanes):
        turned = _walked_as_one(kernel, points[-1], scanned, points[-1])
        if turned is not None:
            return Run(turned, points[:-1], (points[-1], *axes), apart, segment)
    return Run(kernel, points, axes, apart, 0)


def _stored_at(kernel: Kernel) -> Dim:
    """Where results lie, by axes."""
    (scan,) = kernel.body
    assert isinstance(scan, Scan)
    return address(kernel.buffer(scan.buffer), scan.indices).known


def _is_short(segment: int, lanes: int) -> bool:
    return 0 < segment <= LONGEST_SEGMENT * lanes and segment // math.gcd(segment, lanes) <= MOST_VECTORS


def _walked_as_one(kernel: Kernel, slow: Axis, fast: Axis, other: Axis) -> Kernel | None:
    """The kernel, or the same with `other` counted from its end, in which every access moves as far for one point of `slow` as for
    all of `fast`; None where neither does."""
    for seen in (kernel, _from_the_end(kernel, other)):
        pairs = [(step(expression, slow.name), step(expression, fast.name)) for expression in index_expressions(seen)]
        if all(far is not None and near is not None and far == near * fast.extent for far, near in pairs):
            return seen
    return None


def _from_the_end(kernel: Kernel, axis: Axis) -> Kernel:
    (scan,) = kernel.body
    assert isinstance(scan, Scan)
    names = {axis.name: axis.extent - 1 - symbol(axis.name)}
    indices = tuple(rename_axes(i, names) if isinstance(i, Scalar) else substitute(i, names) for i in scan.indices)
    return replace(kernel, body=(replace(scan, indices=indices, value=rename_axes(scan.value, names)),))
