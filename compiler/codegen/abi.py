"""How emitted kernels are called: the one convention between kernel emission, the entry point and the pool.

A kernel becomes one or more *phases*, functions of the form

    void phase(ptr args, i64 begin, i64 end, ptr scratch)

run in order, each over its tasks 0 <= t < tasks cut into ranges [begin, end) that any thread may take in any
order. `args` is an array of 8-byte words: one pointer per kernel buffer, one i64 per kernel dim, then one pointer
to the launch's *shared* memory (partial results, packed panels). `scratch` is memory of the calling worker alone.
How much work a task holds depends on sizes only, so results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.codegen.writer import FunctionWriter, Value, i64
from pierian.compiler.dim import Atom, Dim, maximum
from pierian.compiler.frozen import frozen
from pierian.compiler.kernel.nodes import Kernel

PHASE_PARAMETERS = (("args", "ptr"), ("begin", "i64"), ("end", "i64"), ("scratch", "ptr"))


@frozen
class Phase:
    """One function of a kernel and how many tasks it has, an expression in the kernel's dims.

    `serial` phases never use more than the calling thread (their work is too small to share, or ordered). They are not called where
    a run has no tasks for them, so a function of one task need not look at its range.
    """

    function: str
    tasks: Dim
    serial: bool = False


@frozen
class KernelCode:
    """An emitted kernel.

    Attributes:
        text: LLVM IR of its functions and module-level constants (names begin with the kernel's name).
        declarations: `declare` lines the text needs.
        phases: what to run, in order.
        shared: bytes of shared memory a launch needs, an expression in the kernel's dims (64-byte aligned start).
        scratch: bytes of scratch per worker.
        schedule: one line per choice made, for people (`--emit kernels`).
        functions: functions it calls that other kernels may call too, as (name, text); equal names have equal texts.
    """

    text: str
    declarations: frozenset[str]
    phases: tuple[Phase, ...]
    shared: Dim = 0
    scratch: Dim = 0
    schedule: tuple[str, ...] = ()
    functions: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(
        functions: Sequence[FunctionWriter], phases: Sequence[Phase], note: str, shared: Dim = 0, scratch: Dim = 0,
        helpers: Sequence[FunctionWriter] = (),
    ) -> KernelCode:  # fmt: skip
        """A kernel of written functions, and of helpers that they call, with one note on its schedule."""
        declarations = frozenset().union(*(function.declarations for function in (*functions, *helpers)))
        text = "".join(function.finish() for function in functions)
        called = tuple((helper.name, helper.finish()) for helper in helpers)
        return KernelCode(text, declarations, tuple(phases), shared, scratch, (note,), called)

    @staticmethod
    def joined(codes: Sequence[KernelCode], phases: Sequence[Phase]) -> KernelCode:
        """A kernel of the functions of several, which run one after the other in the same memory."""
        shared: Dim = 0
        scratch: Dim = 0
        for code in codes:
            shared, scratch = maximum(shared, code.shared), maximum(scratch, code.scratch)
        return KernelCode(
            "\n".join(code.text for code in codes), frozenset().union(*(code.declarations for code in codes)),
            tuple(phases), shared, scratch, tuple(line for code in codes for line in code.schedule),
            tuple({name: (name, text) for code in codes for name, text in code.functions}.values()),
        )  # fmt: skip


class Parameters:
    """Reads the words of `args` inside a phase, each once."""

    def __init__(self, writer: FunctionWriter, kernel: Kernel) -> None:
        """Loads every parameter at once; call at the start of the function."""
        self.buffers: dict[str, Value] = {}
        self.dims: dict[str, Value] = {}
        args = writer.arg("args")
        for position, buffer in enumerate(kernel.buffers):
            address = writer.gep(args, "ptr", i64(position))
            self.buffers[buffer.name] = writer.load(address, "ptr", 8, ", !invariant.load !{}")
        first = len(kernel.buffers)
        for position, name in enumerate(kernel.dims, first):
            self.dims[name] = writer.load(writer.gep(args, "i64", i64(position)), "i64", 8, ", !invariant.load !{}")
        address = writer.gep(args, "ptr", i64(first + len(kernel.dims)))
        self.shared = writer.load(address, "ptr", 8, ", !invariant.load !{}")


def emit_dim(writer: FunctionWriter, expression: Dim, values: dict[str, Value]) -> Value:
    """Instructions that compute a size or index as i64 from the values of its symbols."""
    if isinstance(expression, int):
        return i64(expression)
    total = i64(0)
    for monomial, factor in expression.terms:
        term = i64(abs(factor))
        for atom in monomial:
            term = writer.mul(term, _emit_atom(writer, atom, values))
        total = writer.sub(total, term) if factor < 0 else writer.add(total, term)
    return total


def _emit_atom(writer: FunctionWriter, atom: Atom, values: dict[str, Value]) -> Value:
    if atom.kind == "symbol":
        return values[atom.name]
    x, y = (emit_dim(writer, arg, values) for arg in atom.args)
    if atom.kind == "max":
        return writer.intrinsic("llvm.smax", x, y)
    # Numerators and denominators of sizes and indices are never negative, so truncation is the floor.
    return writer.op("sdiv" if atom.kind == "div" else "srem", x, y)
