"""When each lane of a vector computes the whole small product of one point: rows against a tiny matrix, batches of tiny matrices.

Lanes along a product's own rows or columns stay empty where those are few. Lanes along another axis are always full, and nothing is
added across them. What lies one point after the other is read in whole vectors and separated in registers; where the axis is the
last one of memory already, nothing has to be separated, and products may be of any size.
"""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.dim import Dim, constant_part, product
from pierian.compiler.frozen import frozen
from pierian.compiler.kernel.access import address, step, without
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Axis, Buffer, Kernel, Store
from pierian.compiler.kernel.scalar import Index, Scalar, load_parts, postorder
from pierian.compiler.schedule.dots import FOLD, guess
from pierian.compiler.schedule.roles import Roles
from pierian.compiler.schedule.rows import cost
from pierian.compiler.schedule.shuffles import shuffle_count
from pierian.compiler.target.features import Target

# Products of one point that are written out, shuffles of vectors, and operations on the results, at most: more would be a wall of
# code.
MOST_PRODUCTS = 160
MOST_SHUFFLES = 420
MOST_OPERATIONS = 320
# Vectors of results of which other ways have less code and are fast enough.
FEW_VECTORS = 16
# What other ways take, in the time of one multiplication of vectors, measured on Zen 4: a tile called; a vector of results that does
# not fill its lanes, stored from the tile that waits; a row that is summed across lanes in a loop.
CALL = 60.0
EDGE = 8.0
ROW = 8.0
# A vector loaded, stored, or shuffled, in the same measure.
MOVE = 0.5
SHUFFLE = 0.75


@frozen
class Block:
    """What one access touches at a point of the axis: `count` neighbouring elements from `start` on, of which those of each point
    follow those of the one before; `places` of them, at most, are used."""

    buffer: str
    start: Dim
    count: int
    places: int


@frozen
class Lanewise:
    """The pieces of such a product.

    Attributes:
        axis: whose points are lanes.
        around: outer axes walked point by point.
        inner: outer axes whose points, and so results, are written out for each vector of points; else the tile's two axes.
        lanes: elements in a vector.
        tile: rows and columns of the register tile where lanes are neighbours in memory; None where products are written out.
    """

    axis: Axis
    around: tuple[Axis, ...]
    inner: tuple[Axis, ...]
    lanes: int
    tile: tuple[int, int] | None = None


def choose_lanewise(kernel: Kernel, roles: Roles, target: Target) -> Lanewise | None:
    """The pieces; None where another way is faster, or an access is of another form."""
    dtype = roles.reduce.value.dtype
    lanes = target.lanes(dtype.bits)
    points = product([axis.extent for axis in kernel.axes])
    if lanes == 1 or roles.packed or (isinstance(points, int) and points < FEW_VECTORS * lanes):
        return None
    for axis in kernel.axes:
        if isinstance(axis.extent, int) and axis.extent < lanes:
            continue
        found = _neighbours(kernel, roles, axis, lanes, target) or _written_out(kernel, roles, axis, lanes)
        if found is not None:
            return found
    return None


# --- lanes that are neighbours in memory ------------------------------------------------------------------------------


def _neighbours(kernel: Kernel, roles: Roles, axis: Axis, lanes: int, target: Target) -> Lanewise | None:
    """For a batch axis that is the last one in memory of both operands and all results."""
    depends = Dependencies()
    both = axis.name in depends.of(roles.lhs) and axis.name in depends.of(roles.rhs)
    if not both or axis not in roles.batch or (roles.m.extent == 1 and roles.n.extent == 1):
        return None
    if len(roles.reduce.axes) > 1:  # a tile walks one run along k; windows have several
        return None
    if any(step(known, axis.name) not in (0, 1) for known in _places(kernel)):
        return None
    if any(computed for _, _, computed in _accesses(kernel)):
        return None
    around = tuple(one for one in kernel.axes if one not in (axis, roles.m, roles.n))
    most = (4, 4) if target.vector_registers >= 32 else (2, 4)
    tile = tuple(_even(one.extent, limit) for one, limit in zip((roles.m, roles.n), most, strict=True))
    return Lanewise(axis, around, (roles.m, roles.n), lanes, (tile[0], tile[1]))


def _even(extent: Dim, most: int) -> int:
    if not isinstance(extent, int) or extent == 0:
        return most
    exact = [size for size in (most, most - 1) if extent % size == 0]
    return exact[0] if exact else -(-extent // -(-extent // most))


# --- lanes that lie apart ---------------------------------------------------------------------------------------------


def _written_out(kernel: Kernel, roles: Roles, axis: Axis, lanes: int) -> Lanewise | None:
    """For an axis along which elements lie apart, the few places of a point between."""
    inner = _inner(kernel, axis)
    share = _share(kernel, roles, axis, inner, lanes)
    if share is None or share >= 1:
        return None
    return Lanewise(axis, tuple(one for one in kernel.axes if one is not axis and one not in inner), inner, lanes)


def lanewise_share(kernel: Kernel, roles: Roles, target: Target) -> float | None:
    """The time predicted for it where elements lie apart, as a share of what other ways take; None where it is not possible."""
    lanes = target.lanes(roles.reduce.value.dtype.bits)
    if lanes == 1 or roles.packed:
        return None
    wide = [axis for axis in kernel.axes if not isinstance(axis.extent, int) or axis.extent >= lanes]
    shares = [_share(kernel, roles, axis, _inner(kernel, axis), lanes) for axis in wide]
    return min((share for share in shares if share is not None), default=None)


def _share(kernel: Kernel, roles: Roles, axis: Axis, inner: Sequence[Axis], lanes: int) -> float | None:
    """Predicted time of products written out in the lanes of an axis, as a share of what other ways take; None where they would be
    too much code, or an access is of another form."""
    results = product([one.extent for one in inner])
    products = product([one.extent for one in roles.reduce.axes]) * results
    if not isinstance(products, int) or not isinstance(results, int) or not 0 < products <= MOST_PRODUCTS:
        return None
    if results * sum(cost(one.value) for one in kernel.body if isinstance(one, Store)) > MOST_OPERATIONS:
        return None
    found = find_blocks(kernel, axis, (*inner, *roles.reduce.axes), roles)
    if found is None:
        return None
    shuffles = sum(shuffle_count(block.count, lanes) for block in set(found.values()))
    moves = sum(block.count for block in set(found.values()))
    if not 0 < shuffles <= MOST_SHUFFLES:
        return None
    return (products + MOVE * moves + SHUFFLE * shuffles) / (lanes * _usual(roles, inner, axis, lanes))


def _inner(kernel: Kernel, axis: Axis) -> tuple[Axis, ...]:
    """The outer axes that some access walks between two points of `axis`."""
    found = []
    for one in kernel.axes:
        for known in _places(kernel):
            near, far = step(known, one.name), step(known, axis.name)
            if isinstance(near, int) and isinstance(far, int) and 0 < near < far and one is not axis:
                found.append(one)
                break
    return tuple(found)


def find_blocks(kernel: Kernel, axis: Axis, inside: Sequence[Axis], roles: Roles) -> dict[Scalar | Store, Block] | None:
    """For each access that is neither the same for all lanes nor of neighbours, what it touches. None where one is of no such form,
    or a result would leave gaps."""
    found: dict[Scalar | Store, Block] = {}
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    points = product([one.extent for one in inside if one not in roles.reduce.axes])
    for access, known, computed in _accesses(kernel):
        distance = step(known, axis.name)
        if computed or not isinstance(distance, int) or distance < 0:
            return None
        if distance <= 1:
            if isinstance(access, Store) and distance == 0:
                return None
            continue
        steps = [step(known, one.name) for one in inside]
        if any(not isinstance(one, int) or one < 0 for one in steps):
            return None
        rest = without(known, [axis.name, *(one.name for one in inside)])
        first = constant_part(rest) % distance
        reach = sum(near * (one.extent - 1) for near, one in zip(steps, inside, strict=True))  # type: ignore[operator, misc, arg-type]
        name = access.buffer if isinstance(access, Store) else load_parts(access)[0]
        dtype, used = buffers[name].dtype, roles.reduce.value.dtype
        if not isinstance(reach, int) or first + reach >= distance or dtype.bits != used.bits or dtype.is_bool:
            return None
        # Results of a point fill its block, each place once.
        if isinstance(access, Store) and (first or reach != distance - 1 or points != distance):
            return None
        found[access] = Block(name, rest - first, distance, first + reach + 1)
    return found


def _usual(roles: Roles, inner: Sequence[Axis], axis: Axis, lanes: int) -> float:
    """What other ways take for one point."""
    m, n, k = (guess(size) for size in (roles.m.extent, roles.n.extent, roles.depth))
    results = product([one.extent for one in inner])
    assert isinstance(results, int)
    if 1 in (m, n, k):
        return results * (k / lanes if roles.rhs_step is not None and n != 1 else -(-k // lanes) + ROW)
    vectors = -(-n // lanes)
    edge = EDGE if n % (lanes * min(vectors, 2)) else 1.0
    time = results / n * vectors * (k + edge) + (0.0 if axis in (roles.m, roles.n) else CALL)
    return min(time, results * (-(-k // lanes) + FOLD)) if k >= lanes else time


# --- what both look at ------------------------------------------------------------------------------------------------


def _accesses(kernel: Kernel) -> list[tuple[Scalar | Store, Dim, bool]]:
    """Loads and stores with their places, and whether part of a place is computed in a run."""
    buffers: dict[str, Buffer] = {buffer.name: buffer for buffer in kernel.buffers}
    found: list[tuple[Scalar | Store, Dim, bool]] = []

    def add(access: Scalar | Store, name: str, indices: Sequence[Index]) -> None:
        where = address(buffers[name], indices)
        found.append((access, where.known, bool(where.computed)))

    for node in postorder(statement.value for statement in kernel.body):
        if node.op == "load":
            add(node, *load_parts(node))
    for statement in kernel.body:
        if isinstance(statement, Store):
            add(statement, statement.buffer, statement.indices)
    return found


def _places(kernel: Kernel) -> list[Dim]:
    return [known for _, known, _ in _accesses(kernel)]
