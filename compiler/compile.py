"""The room's door: a graph and options in, native code out."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pierian.compiler.codegen.abi import KernelCode
from pierian.compiler.codegen.module import Image, compile_program, emit_kernels
from pierian.compiler.frozen import frozen
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Value
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.kernel.program import Launch, Loop, Program, walk
from pierian.compiler.lowering import lower
from pierian.compiler.lowering.buffers import drop_unused
from pierian.compiler.lowering.record import Record
from pierian.compiler.options import CompileOptions
from pierian.compiler.pipeline import run_passes
from pierian.compiler.state import Signature, close_for_compilation
from pierian.compiler.target.features import Target, host

if TYPE_CHECKING:
    from pierian.compiler.footprint import Footprint


@frozen
class Compiled:
    """A compiled graph and every stage on the way to it.

    Attributes:
        signature: what goes in and comes out, by name.
        graph: the portable graph, after all passes.
        program: kernels, buffers and memory plan.
        image: native code.
    """

    signature: Signature
    graph: Graph
    program: Program
    image: Image


def compile_graph(
    graph: Graph,
    options: CompileOptions | None = None,
    *,
    feeds: Sequence[Value] | None = None,
    fetches: Sequence[Value] | None = None,
    effects: Sequence[Value] = (),
    target: Target | None = None,
) -> Compiled:
    """Compile what `fetches` need of a graph to native code; the graph is not changed.

    Args:
        graph: any graph; variables become inputs and outputs (see `pierian.compiler.state`).
        options: what passes do; the default optimizes.
        feeds: the values the caller hands in; default the graph's inputs.
        fetches: the values handed back; default the graph's outputs.
        effects: values computed for the variables they assign; not handed back.
        target: the machine to compile for; default this one.

    Raises:
        FeedError: a placeholder is needed that is not fed.
        LoweringError: an operator without native code.
    """
    closed, signature = close_for_compilation(graph, feeds, fetches, effects)
    return compile_closed(closed, signature, options, target)


def compile_closed(
    closed: Graph, signature: Signature, options: CompileOptions | None = None, target: Target | None = None
) -> Compiled:
    """`compile_graph` for a graph that has been closed over its state (see `pierian.compiler.state`)."""
    options = options or CompileOptions()
    target = target or host()
    with _without_collections():
        portable, program = plan_closed(closed, signature, options, target)
        image = compile_program(program, target, profile=options.profile)
    return Compiled(signature, portable, program, image)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Python's search for cycles of garbage waits: graphs and kernels are many objects that stay, and looking through them again
    and again takes a tenth of a compilation."""
    if not gc.isenabled():  # by the caller's choice, or another thread is compiling
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def plan_closed(
    closed: Graph, signature: Signature, options: CompileOptions, target: Target, record: Record | None = None
) -> tuple[Graph, Program]:
    """The portable graph and the program of a closed graph, ready for code generation. `record` takes notes on the way."""
    portable = run_passes(closed, options)
    program = lower(portable, options, signature.updates(), record)
    if any(
        one.kernel.kind == "contraction" if isinstance(one, Launch) else isinstance(one, Loop)
        for one in walk(program.steps)
    ):
        from pierian.compiler.lowering.operands import lay_out_operands  # only here: takes a while to import

        lay_out_operands(program, target, options)
    else:
        drop_unused(program)
    return portable, program


@frozen
class Plan:
    """A graph compiled up to LLVM IR, for people: what would run, and why so.

    Attributes:
        signature, graph, program: as of `Compiled`.
        kernels: each distinct kernel with its name and emitted code.
        record: which operators became which launch, and why not more.
        target: the machine.
    """

    signature: Signature
    graph: Graph
    program: Program
    kernels: dict[Kernel, tuple[str, KernelCode]]
    record: Record
    target: Target

    @property
    def footprint(self) -> Footprint:
        """The memory it takes."""
        from pierian.compiler.footprint import footprint

        return footprint(self.program, self.signature, {kernel: code for kernel, (_, code) in self.kernels.items()})


def plan_graph(graph: Graph, options: CompileOptions | None = None, target: Target | None = None) -> Plan:
    """What `compile_graph` would make of a graph with its own inputs and outputs, without generating machine code."""
    options = options or CompileOptions()
    target = target or host()
    closed, signature = close_for_compilation(graph)
    record = Record()
    portable, program = plan_closed(closed, signature, options, target, record)
    return Plan(signature, portable, program, emit_kernels(program, target), record, target)
