"""Schedule steps on row kernels, kernel -> kernel: each is legal or leaves the kernel as it is."""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.dim import Dim, substitute, symbol
from pierian.compiler.frozen import replace
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.nodes import Axis, Kernel, Reduce, Statement, Store
from pierian.compiler.kernel.scalar import Scalar

# Expressions of at least this many operations are worth a store and a load instead of a second computation.
WORTH_KEEPING = 4
_ELEMENTARY_COST = 12
_WEIGHTS = dict.fromkeys(ir.ELEMENTARY, _ELEMENTARY_COST) | dict.fromkeys(ir.LEAVES, 0)


def cost(root: Scalar) -> int:
    """Scalar operations in an expression, an elementary function counted with its expansion."""
    return sum(cost_of(node) for node in ir.postorder([root]))


def cost_of(node: Scalar) -> int:
    """Scalar operations of one node of an expression."""
    return _WEIGHTS.get(node.op, 1)


def keep_rows(kernel: Kernel) -> Kernel:
    """Write what a reduction computes for each element into the result row, where a later store needs it again.

    before:  s = sum over %k of exp(x[%i, %k] - m)           after:  y[%i, %k] = exp(x[%i, %k] - m)    for %k
             y[%i, %l] = exp(x[%i, %l] - m) / s  for %l              s = sum over %k of y[%i, %k]
                                                                     y[%i, %l] = y[%i, %l] / s  for %l

    The first two run in one pass, and the row is still in cache when the last one reads it.
    """
    if not kernel.body or not isinstance(kernel.body[-1], Store):
        return kernel
    last = kernel.body[-1]
    assert isinstance(last, Store)
    stores = [s for s in kernel.body if isinstance(s, Store)]
    if len(stores) != 1 or not last.axes or any(ir.load_parts(n)[0] == last.buffer for n in _loads(kernel)):
        return kernel
    dtype = next(b.dtype for b in kernel.buffers if b.name == last.buffer)
    for position in reversed(range(len(kernel.body) - 1)):
        reduce = kernel.body[position]
        if not isinstance(reduce, Reduce) or reduce.value.dtype is not dtype:
            continue
        if [a.extent for a in reduce.axes] != [a.extent for a in last.axes] or cost(reduce.value) < WORTH_KEEPING:
            continue
        renaming = dict(zip((a.name for a in reduce.axes), (symbol(a.name) for a in last.axes), strict=True))
        wanted = ir.rename_axes(reduce.value, renaming)
        if wanted not in set(ir.postorder([last.value])):
            continue
        back = dict(zip((a.name for a in last.axes), (symbol(a.name) for a in reduce.axes), strict=True))
        row = tuple(entry if isinstance(entry, Scalar) else substitute(entry, back) for entry in last.indices)
        kept = Store(last.buffer, row, reduce.value, reduce.axes)
        final = replace_expression(last.value, wanted, ir.load(last.buffer, last.indices, dtype))
        body: tuple[Statement, ...] = (
            *kernel.body[:position],
            kept,
            reduce,
            *kernel.body[position + 1 : -1],
            replace(last, value=final),
        )
        return replace(kernel, body=body)
    return kernel


def _loads(kernel: Kernel) -> list[Scalar]:
    return [node for node in ir.postorder(s.value for s in kernel.body) if node.op == "load"]


def replace_expression(root: Scalar, old: Scalar, new: Scalar) -> Scalar:
    """The expression with a part replaced wherever it stands."""
    done: dict[Scalar, Scalar] = {old: new}
    for node in ir.postorder([root]):
        if node not in done:
            args = tuple(done[arg] for arg in node.args)
            done[node] = node if args == node.args else ir.scalar(node.op, node.dtype, args, node.attribute)
    return done[root]


def groups(body: Sequence[Statement]) -> list[list[Statement]]:
    """Consecutive statements that can share one pass over their inner axes: equal extents, and none needs a
    reduction's result, or another point's store, of the same pass. At a point of the pass all values are computed before any
    is stored: a result may lie in the memory of what is loaded (see `pierian.compiler.lowering.in_place`)."""
    found: list[list[Statement]] = []
    for statement in body:
        if found and _may_follow(found[-1], statement):
            found[-1].append(statement)
        else:
            found.append([statement])
    return found


def _may_follow(group: list[Statement], statement: Statement) -> bool:
    if _extents(group[0].axes) != _extents(statement.axes) or not statement.axes:
        return False
    names = {s.name for s in group if isinstance(s, Reduce)}
    written = {s.buffer for s in group if isinstance(s, Store)}
    for node in ir.postorder([statement.value]):
        if node.op == "reduced" and node.attribute in names:
            return False
        if node.op == "load" and ir.load_parts(node)[0] in written:
            return False
    return not (isinstance(statement, Store) and statement.buffer in written)


def _extents(axes: tuple[Axis, ...]) -> list[Dim]:
    return [axis.extent for axis in axes]
