"""How the reduced axes of a contraction are cut into parts, and where packed operands lie; shared by both of its phases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pierian.compiler.codegen.evaluate import Frame, Scope
from pierian.compiler.codegen.writer import Value, i64
from pierian.compiler.dim import Dim, ceildiv, floordiv, maximum
from pierian.compiler.frozen import frozen
from pierian.compiler.schedule.contraction import LONG, Tiling
from pierian.compiler.schedule.roles import Roles


@frozen
class Part:
    """A range of the reduced axes, as values in the function being written.

    Attributes:
        segment, segments: first point of the segment axes, and how many.
        start, count: first point of k, and how many, at each of them.
        row: how many products come before it in the whole sum.
        first, last: whether its task has summed nothing before, and whether nothing is left to its task after it.
    """

    segment: Value
    segments: Value
    start: Value
    count: Value
    row: Value
    first: Value
    last: Value


def outermost(frame: Frame, roles: Roles, tiling: Tiling) -> Scope:
    """The scope of a whole function, with every size that loops inside look up computed at its start."""
    scope = Scope(frame)
    axes = (*roles.batch, *roles.rows, roles.m, roles.n, *roles.segments, roles.k)
    for size in (
        *(axis.extent for axis in axes), roles.segment_count, _depth_blocks(roles, tiling),
        part_count(roles, tiling), parts_in_task(roles, tiling), split_count(roles, tiling),
        panel_elements(roles, tiling), panel_count(roles, tiling), roles.rhs_step or 0, roles.row_count,
    ):  # fmt: skip
        scope.dim(size)
    return scope


def part_count(roles: Roles, tiling: Tiling) -> Dim:
    """How many parts; an empty sum has one."""
    return maximum(ceildiv(roles.segment_count, tiling.sb), 1) * _depth_blocks(roles, tiling)


def _depth_blocks(roles: Roles, tiling: Tiling) -> Dim:
    """Into how many parts k is cut at each segment; an empty one into one."""
    return 1 if tiling.sb > 1 else maximum(ceildiv(roles.k.extent, tiling.kb), 1)


def parts_in_task(roles: Roles, tiling: Tiling) -> Dim:
    """How many parts a task sums, at most: all, or of a sum that is split a share worth a task of its own."""
    parts = part_count(roles, tiling)
    return parts if tiling.splits == 1 else maximum(ceildiv(parts, tiling.splits), ceildiv(LONG, tiling.part))


def split_count(roles: Roles, tiling: Tiling) -> Dim:
    """Into how many tasks a sum is split."""
    if tiling.splits == 1:
        return 1
    share = parts_in_task(roles, tiling)
    return floordiv(part_count(roles, tiling) + share - 1, share)


def parts_of_split(scope: Scope, roles: Roles, tiling: Tiling, split: Value) -> tuple[Value, Value]:
    """The first part of a split and the one after its last; `scope` is the outermost."""
    w = scope.writer
    parts = scope.dim(part_count(roles, tiling))
    if tiling.splits == 1:
        return i64(0), parts
    share = scope.dim(parts_in_task(roles, tiling))
    begin = w.mul(split, share)
    return begin, w.minimum(w.add(begin, share), parts)


def part_at(scope: Scope, roles: Roles, tiling: Tiling, index: Value, begin: Value, end: Value) -> Part:
    """The part of an index, of those from `begin` on and before `end` that a task sums; `scope` is the outermost."""
    w = scope.writer
    depth = scope.dim(roles.k.extent)
    total = scope.dim(roles.segment_count)
    if tiling.sb > 1:
        group, start, count = index, i64(0), depth
    else:
        blocks = scope.dim(_depth_blocks(roles, tiling))
        group = w.op("sdiv", index, blocks) if roles.segments else i64(0)
        block = w.sub(index, w.mul(group, blocks)) if roles.segments else index
        start = w.mul(block, i64(tiling.kb))
        count = w.minimum(w.sub(depth, start), i64(tiling.kb))
    segment = w.mul(group, i64(tiling.sb))
    segments = w.minimum(w.sub(total, segment), i64(tiling.sb)) if roles.segments else i64(1)
    row = w.add(w.mul(segment, depth), start)
    first = w.cmp("icmp eq", index, begin)
    last = w.cmp("icmp eq", w.add(index, i64(1)), end)
    return Part(segment, segments, start, count, row, first, last)


def panel_elements(roles: Roles, tiling: Tiling) -> Dim:
    """Elements of one packed panel of rhs: `nr` columns over all products."""
    return roles.depth * tiling.nr


def panel_count(roles: Roles, tiling: Tiling) -> Dim:
    """Panels of rhs at one point of the batch."""
    return ceildiv(roles.n.extent, tiling.nr)


def reads_rhs_in_place(scope: Scope, roles: Roles, tiling: Tiling) -> Value | None:
    """Whether full panels are read where they lie, decided in the run; None where it is known (see the tiling)."""
    if tiling.rhs_in_place != "few rows":
        return None
    return scope.writer.cmp("icmp sle", scope.dim(roles.m.extent * roles.row_count), i64(tiling.few_rows))


@contextmanager
def each(scope: Scope, count: Value) -> Iterator[Value]:
    """A loop over 0 <= i < count; no loop at all for one turn."""
    if count.text == "1":
        yield i64(0)
        return
    with scope.writer.loop(i64(0), count) as loop:
        yield loop.index
