"""Rows that are picked out of a large array by indices in memory: asked for some rows before they are copied.

No prefetcher of a machine finds such a row, but the indices of later rows are known. Without this only as many rows are under way as
a processor looks ahead, four or five of 256 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.codegen.evaluate import Scope
from pierian.compiler.codegen.writer import Value, i64
from pierian.compiler.dim import product
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.access import address, step
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Axis, Kernel
from pierian.compiler.kernel.scalar import Scalar, load_parts
from pierian.compiler.target.features import CACHE_LINE, Target

# Rows between the one that is asked for and the one that is copied. Measured on Zen 3 with rows of 256 bytes from 25 MB: 8192 of
# them take 0.8 of the time with 8 or 16, and 0.9 with 4 or 32; 65536 of them 0.4 to 0.5. Machines of wide vectors have more on their
# way from memory at once (Emerald Rapids: 12 and 32 are no better than none, 48 to 256 take 0.8 to 0.87 of the time).
_AHEAD = 12
_AHEAD_OF_WIDE = 64
# Bytes of the longest row that is asked for whole: of longer ones prefetchers find what follows.
_LONGEST = 1024


def gathered_rows(kernel: Kernel, row: Axis, along: Axis, target: Target, dependencies: Dependencies) -> list[Scalar]:
    """The loads that read, for each point of `row`, consecutive elements along `along` from where an index in memory says, out of an
    array that is larger than the near caches. Where a row begins must be known from its number alone: not from another axis that is
    summed over, nor from what was reduced before."""
    if not isinstance(along.extent, int):
        return []
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    found = []
    for node in ir.postorder(statement.value for statement in kernel.body):
        if node.op != "load":
            continue
        name, indices = load_parts(node)
        where, size = address(buffers[name], indices), product(list(buffers[name].shape))
        near = isinstance(size, int) and size * node.dtype.itemsize <= target.l2
        if (
            near
            or not where.computed
            or along.extent * node.dtype.itemsize > _LONGEST
            or step(where.known, along.name) != 1
        ):
            continue
        depends = frozenset().union(*(dependencies.of(index) for index, _ in where.computed))
        needs_more = any(name.startswith(("%", "=")) for name in dependencies.of(node) - {row.name, along.name})
        if row.name in depends and along.name not in depends and not needs_more:
            found.append(node)
    return found


def ask_for_rows(
    scope: Scope, loads: Sequence[Scalar], row: Axis, along: Axis, number: Value, last: Value, target: Target
) -> None:
    """Have the rows that `loads` read some points after `number`, at `last` at most, brought near."""
    writer = scope.writer
    distance = _AHEAD_OF_WIDE if target.is_wide else _AHEAD
    ahead = writer.minimum(writer.add(number, i64(distance)), last)
    there = Scope(scope.frame, scope, {row.name: ahead, along.name: i64(0)})
    for load in loads:
        first = there.place(*load_parts(load))
        assert isinstance(along.extent, int)
        for line in range(0, along.extent * load.dtype.itemsize, CACHE_LINE):
            writer.prefetch(writer.gep(first, "i8", i64(line)))
