"""Results of kernels that walk more than the caches keep: whole lines of them go past the caches, without being read first.

An ordinary store to a line that is in no cache first reads the line; a non-temporal one does not, which saves a third of the traffic
of a copy (25 GB/s become 42 on Zen 4, one core). It pays only where the line would leave the caches before anyone reads it, and it
demands addresses that are multiples of the vector, which is known of a caller's array when the kernel runs.
"""

from __future__ import annotations

from collections.abc import Callable

from pierian.compiler.codegen.evaluate import Frame
from pierian.compiler.codegen.writer import i64
from pierian.compiler.cost import kernel_bytes
from pierian.compiler.dim import Dim, symbol, symbols
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.access import address, step
from pierian.compiler.kernel.nodes import Kernel, Store
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.schedule.rows import cost
from pierian.compiler.target.features import Target

_ISAS = ("sse2", "avx2", "avx512")
# Scalar operations per element above which a kernel waits for arithmetic: there lines read in vain cost nothing.
_LIGHT = 24
# The part of the last cache, in thirds, that a kernel's arrays may take before what it writes leaves it unread. Measured on Zen 4
# (32 MB) with a layer norm and a sum that reads its result: from two thirds on both together are no slower with stores past the
# cache, and the norm alone takes 0.6 to 0.9 of the time; at half of the cache both together are 25 % slower.
_FULL_THIRDS = 2
# The same where several threads write in vectors as wide as a line. Past the caches they write no faster than one does, 28 GB/s on
# Zen 4, and what is left in the last cache serves both: with two threads an array twice its own size, or its layer norm, takes
# 0.5 to 0.85 of the time with plain stores up to the size of the cache, 0.7 to 1 at 1.15 of it, 1 to 1.25 at 1.5 of it. On Zen 3,
# whose vectors are half as wide, two threads write past the caches faster than one: there plain stores take 1.14 to 1.57.
_SHARED_THIRDS = 4
# Bytes of the widest vector: what begins at a multiple of it does so for all.
_VECTOR = 64


def streamed_buffers(kernel: Kernel, lanes: int, vector_axes: frozenset[str], target: Target) -> frozenset[str]:
    """Buffers that a kernel whose arrays overflow the last cache only writes, in vectors that begin at multiples of their size where
    the buffer does."""
    if target.isa not in _ISAS or lanes == 1 or sum(cost(s.value) for s in kernel.body) > _LIGHT:
        return frozenset()
    if not overflows(kernel, target):
        return frozenset()
    read = {ir.load_parts(node)[0] for node in ir.postorder(s.value for s in kernel.body) if node.op == "load"}
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    found = set()
    for statement in kernel.body:
        if not isinstance(statement, Store) or statement.buffer in read:
            continue
        buffer = buffers[statement.buffer]
        whole = buffer.dtype.itemsize * lanes == target.vector_bytes
        if whole and _in_step(address(buffer, statement.indices).known, statement, lanes, vector_axes):
            found.add(statement.buffer)
    return frozenset(found)


def overflows(kernel: Kernel, target: Target, is_shared: bool = False) -> bool:
    """Whether a kernel's arrays are known to be too large for the last cache: lines that it writes have left it before it ends, or,
    where threads share it, it is not worth keeping them."""
    together = kernel_bytes(kernel)
    thirds = _SHARED_THIRDS if is_shared and target.is_wide else _FULL_THIRDS
    return isinstance(together, int) and 3 * together > thirds * target.l3


def _in_step(known: object, store: Store, lanes: int, vector_axes: frozenset[str]) -> bool:
    """Whether vectors along an axis of `vector_axes` lie at multiples of their size wherever the other axes stand."""
    if any(isinstance(index, Scalar) for index in store.indices):
        return False
    rest = known
    along = 0
    for name in symbols(known):  # type: ignore[arg-type]
        factor = step(known, name)  # type: ignore[arg-type]
        if not isinstance(factor, int):
            return False
        if name in vector_axes:
            if factor != 1:
                return False
            along += 1
        elif factor % lanes:
            return False
        rest = rest - factor * symbol(name)  # type: ignore[operator]
    return along == 1 and isinstance(rest, int) and rest % lanes == 0


def write_both_ways(
    frame: Frame, target: Target, tasks: Dim, streamed: frozenset[str], write: Callable[[], None]
) -> None:
    """The body of the function of a phase of so many tasks twice: with stores past the caches, for where the buffers begin at
    multiples of a vector, and one call does all tasks or the arrays are too large for the last cache anyway; and plain.
    Other threads may read what was written once the function has returned, hence the fence."""
    writer = frame.writer
    if not streamed:
        write()
        return
    together = i64(0)
    for name in sorted(streamed):
        together = writer.op("or", together, writer.cast("ptrtoint", frame.parameters.buffers[name], "i64"))
    odd = writer.op("and", together, i64(_VECTOR - 1))
    aligned, plain, done = (writer.label(hint) for hint in ("aligned", "plain", "written"))
    passes_by = writer.cmp("icmp eq", odd, i64(0))
    if isinstance(tasks, int) and not overflows(frame.kernel, target, is_shared=True):
        done_here = writer.sub(writer.arg("end"), writer.arg("begin"))
        passes_by = writer.both(passes_by, writer.cmp("icmp eq", done_here, i64(tasks)))
    writer.cond_br(passes_by, aligned, plain)
    writer.start(aligned)
    frame.streamed = streamed
    write()
    writer.call("llvm.x86.sse.sfence", "void", [])
    writer.br(done)
    writer.start(plain)
    frame.streamed = frozenset()
    write()
    writer.br(done)
    writer.start(done)
