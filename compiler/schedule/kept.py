"""Values that several passes over a row compute: the first of them keeps them in a row of scratch memory for the others."""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.dim import symbol
from pierian.compiler.frozen import replace
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Buffer, Kernel, Statement, Store
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.schedule.rows import cost_of, groups, replace_expression

# The number of a row among those walked side by side, each of which has scratch memory of its own.
SIDE = "%side"
# Operations from which on a value is kept: a store and its loads take about as long as half as many, and displace rows.
_WORTH = 14
# Rows kept at most, and bytes of the longest: what is kept should stay in the near caches.
_MOST = 2
_LONGEST = 32 << 10
# What every inner axis is called while values of several passes are compared.
_PLACE = "%place"


def keep_between_passes(kernel: Kernel, together: int, lanes: int) -> tuple[Kernel, tuple[Buffer, ...]]:
    """The kernel with its most expensive common values kept, and the scratch rows: each `[together, row]`, read and written at
    SIDE and the place in the row.

    before:  s = sum over %k of exp(x[%i, %k])              after:  t[%side, %k] = exp(x[%i, %k])   for %k
             r = sum over %l of f(exp(x[%i, %l]), s)                s = sum over %k of exp(x[%i, %k])
                                                                    r = sum over %l of f(t[%side, %l], s)
    """
    passes = groups(kernel.body)
    kept: list[Buffer] = []
    while len(kept) < _MOST:
        found = _most_expensive(passes)
        if found is None:
            break
        value, extent = found
        row = -(-extent // lanes) * lanes
        kept.append(Buffer(f"kept{len(kept)}", value.dtype, (together, row)))
        passes = _with_kept(passes, value, extent, kept[-1])
    return replace(kernel, body=tuple(statement for one in passes for statement in one)), tuple(kept)


def _rows(passes: Sequence[Sequence[Statement]], extent: int | None = None) -> list[int]:
    """The passes over one inner axis of known extent."""
    return [
        number
        for number, (first, *_) in enumerate(passes)
        if len(first.axes) == 1 and isinstance(first.axes[0].extent, int) and extent in (None, first.axes[0].extent)
    ]


def _at_place(statement: Statement) -> Scalar:
    return ir.rename_axes(statement.value, {statement.axes[0].name: symbol(_PLACE)})


def _most_expensive(passes: Sequence[Sequence[Statement]]) -> tuple[Scalar, int] | None:
    """The value at a place that costs most to compute again in all later passes that do so, and the extent of their axis."""
    where: dict[tuple[Scalar, int], dict[int, None]] = {}
    for number in _rows(passes):
        extent = passes[number][0].axes[0].extent
        assert isinstance(extent, int)
        for node in ir.postorder(_at_place(statement) for statement in passes[number]):
            where.setdefault((node, extent), {})[number] = None
    depends = Dependencies()
    weights = {}
    for (node, extent), numbers in where.items():
        small = extent * node.dtype.itemsize <= _LONGEST
        if len(numbers) < 2 or not small or node.dtype.is_bool or not node.args or _PLACE not in depends.of(node):
            continue
        operations = sum(cost_of(one) for one in ir.postorder([node]) if _PLACE in depends.of(one))
        if operations >= _WORTH:
            weights[node, extent] = (operations * (len(numbers) - 1), operations)
    return max(weights, key=weights.__getitem__, default=None)


def _with_kept(
    passes: Sequence[Sequence[Statement]], value: Scalar, extent: int, buffer: Buffer
) -> list[list[Statement]]:
    """The passes with `value` stored by the first that computes it, and loaded by all others."""
    found: list[list[Statement]] = [list(one) for one in passes]
    numbers = [n for n in _rows(passes, extent) if value in set(ir.postorder(map(_at_place, passes[n])))]
    axis = passes[numbers[0]][0].axes[0]
    first = ir.rename_axes(value, {_PLACE: symbol(axis.name)})
    found[numbers[0]].insert(0, Store(buffer.name, (symbol(SIDE), symbol(axis.name)), first, (axis,)))
    for number in numbers[1:]:
        found[number] = [_loaded(statement, value, buffer) for statement in passes[number]]
    return found


def _loaded(statement: Statement, value: Scalar, buffer: Buffer) -> Statement:
    """A statement that reads the kept value at its own place."""
    name = statement.axes[0].name
    own = ir.rename_axes(value, {_PLACE: symbol(name)})
    load = ir.load(buffer.name, (symbol(SIDE), symbol(name)), value.dtype)
    return replace(statement, value=replace_expression(statement.value, own, load))
