"""Rows that come from memory and are walked several times: the next ones are asked for while the costliest pass computes.

The first pass over a row waits for memory, and a later one for arithmetic: one after the other they take the sum of both. A
processor looks a few hundred instructions ahead, far less than a pass, and its prefetchers stop where a page ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pierian.compiler.codegen.evaluate import Scope
from pierian.compiler.codegen.writer import Value, i64
from pierian.compiler.cost import kernel_bytes
from pierian.compiler.dim import product
from pierian.compiler.frozen import frozen
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.access import address, step
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Axis, Kernel, Statement, Store
from pierian.compiler.kernel.scalar import Index, load_parts
from pierian.compiler.schedule.rows import cost_of, groups
from pierian.compiler.target.features import CACHE_LINE, Target

# Bytes of an array from the row that is walked to the one that is asked for, at least. Measured on Zen 3 with rows of 1 KB: 2 to
# 8 KB save 10 to 20 % of the time, 1 KB nothing.
_AHEAD = 4 << 10
# Vectors in rows that end so often that it pays to walk them side by side even where lines to store have to be read first: with the
# lines asked for, a softmax of rows of 8 takes 0.8 of the time side by side, one of 16 as long, one of 32 1.1.
_SHORT = 8


@frozen
class Access:
    """Elements one after the other along the last axis of a row: of which buffer, where, the axes, and whether they are written."""

    buffer: str
    indices: tuple[Index, ...]
    axes: tuple[Axis, ...]
    is_store: bool


@frozen
class NextRows:
    """What is asked for.

    Attributes:
        accesses: what is read or written of a row.
        outer: the axis that numbers the rows.
        ahead: rows from the one that is walked to the one that is asked for.
        asking: the first statement of the pass that asks.
    """

    accesses: tuple[Access, ...]
    outer: str
    ahead: int
    asking: Statement

    def ask(self, row: Scope, begin: Value, count: int) -> None:
        """Have `count` elements from `begin` on brought near, of the row that lies ahead of that which `row` stands at."""
        writer = row.writer
        later = writer.add(row.values[self.outer], i64(self.ahead))
        for access in self.accesses:
            # The pass that asks has names of its own for the axes of a row.
            pairs = zip(access.axes[:-1], self.asking.axes[:-1], strict=True)
            slower = {axis.name: row.values[own.name] for axis, own in pairs}
            for first in range(0, count, CACHE_LINE // row.frame.buffers[access.buffer].dtype.itemsize):
                at = {self.outer: later, **slower, access.axes[-1].name: writer.add(begin, i64(first))}
                Scope(row.frame, row, at).prefetch_at(access.buffer, access.indices, access.is_store)


def accesses_worth_asking(kernel: Kernel, target: Target, streamed: frozenset[str]) -> tuple[Access, ...]:
    """What is read and written of each row; nothing but in a kernel whose arrays are known to be larger than the second cache, and
    whose rows are walked at least twice and lie in that cache meanwhile.

    Measured on Zen 3: softmax, its gradient and log softmax of 4096 rows of 1024 take 0.6 to 0.7 of the time, with one thread and
    with two. On Emerald Rapids the gradient and log-sum-exp take 0.8 to 0.85, softmax and layer norm 0.93 to 1.
    """
    size = kernel_bytes(kernel)
    passes = [group for group in groups(kernel.body) if group[0].axes]
    if not isinstance(size, int) or size <= target.l2:
        return ()
    if len(passes) < 2 or not kernel.axes:
        return ()
    row = product([axis.extent for axis in passes[0][0].axes])
    accesses = tuple(_accesses(kernel, passes, streamed))
    width = sum(kernel.buffer(access.buffer).dtype.itemsize for access in accesses)
    return accesses if isinstance(row, int) and 2 * row * width <= target.l2 else ()


def has_short_rows(kernel: Kernel, lanes: int) -> bool:
    """Whether rows are known to be short enough to be walked side by side once they are asked for."""
    row = product([axis.extent for axis in next(s.axes for s in kernel.body if s.axes)])
    return isinstance(row, int) and row <= _SHORT * lanes


def next_rows(kernel: Kernel, accesses: Sequence[Access], together: int, dependencies: Dependencies) -> NextRows | None:
    """How a kernel that walks `together` rows side by side asks for `accesses`; None where there are none."""
    if not accesses:
        return None
    passes = [group for group in groups(kernel.body) if group[0].axes]
    row = product([axis.extent for axis in passes[0][0].axes])
    assert isinstance(row, int)
    turn = max(1, together * row * max(kernel.buffer(access.buffer).dtype.itemsize for access in accesses))
    ahead = together * -(-_AHEAD // turn)
    asking = max(passes[1:], key=lambda group: _work(group, dependencies))[0]
    extents = [axis.extent for axis in asking.axes]
    asked = tuple(access for access in accesses if [axis.extent for axis in access.axes] == extents)
    return NextRows(asked, kernel.axes[-1].name, ahead, asking) if asked else None


def _accesses(kernel: Kernel, passes: Sequence[Sequence[Statement]], streamed: frozenset[str]) -> Iterator[Access]:
    """What the passes read and write of each row, once for each buffer, but for stores past the caches."""
    seen = set(streamed)
    for statement in (one for group in passes for one in group):
        loads = (load_parts(node) for node in ir.postorder([statement.value]) if node.op == "load")
        found = [(*parts, False) for parts in loads]
        if isinstance(statement, Store):
            found.append((statement.buffer, statement.indices, True))
        for name, indices, is_store in found:
            where, along = address(kernel.buffer(name), indices), statement.axes[-1].name
            moves = step(where.known, kernel.axes[-1].name) != 0
            if name not in seen and not where.computed and moves and step(where.known, along) == 1:
                seen.add(name)
                yield Access(name, indices, statement.axes, is_store)


def _work(group: Sequence[Statement], dependencies: Dependencies) -> int:
    """Operations of a pass for each element of a row."""
    along = {axis.name for statement in group for axis in statement.axes}
    nodes = ir.postorder(statement.value for statement in group)
    return sum(cost_of(node) for node in nodes if dependencies.of(node) & along)
