"""The passes in the order they run, and why they run there."""

from __future__ import annotations

from pierian.compiler.errors import ArgumentError
from pierian.compiler.graph.graph import Graph
from pierian.compiler.options import CompileOptions
from pierian.compiler.passes.base import Pass
from pierian.compiler.passes.cse import CommonSubexpressions
from pierian.compiler.passes.dce import DeadCode
from pierian.compiler.passes.expand import Expand
from pierian.compiler.passes.fold import Fold
from pierian.compiler.passes.layout import ChannelsLast
from pierian.compiler.passes.pads import SharePads
from pierian.compiler.passes.scans import Scans
from pierian.compiler.passes.simplify import Simplify
from pierian.compiler.passes.sink import SinkProducts
from pierian.compiler.passes.trim import TrimScans


def pipeline(options: CompileOptions) -> list[tuple[Pass, str]]:
    """The list. After it come fusion and lowering (`pierian.compiler.lowering`), then code generation."""
    return [
        (DeadCode(), "nothing below spends time on what nobody needs"),
        (Expand(), "all that follows sees primitives only"),
        (CommonSubexpressions(), "expansions of neighbours share their parts, which lets rules see through them"),
        (Scans(), "the way forward that a gradient repeats is the same steps once expanded and shared"),
        (SinkProducts(), "only now is it known whether one scan alone walks a product"),
        (TrimScans(), "merged scans stack some results twice, gradients walk what repeats itself"),
        (Simplify(), "local algebra, before folding so that constants stand on the right"),
        (ChannelsLast(), "rules have cancelled turns that adjoin; what it turns itself may fold"),
        (Fold(options.fold_limit), "simplified constants fold; larger results are left to native code"),
        (Simplify("simplify-again"), "folded constants make identities visible"),
        (SharePads(), "only now is it known how much of each padding is wanted"),
        (CommonSubexpressions("cse-again"), "what became equal is computed once"),
        (DeadCode("dce-again"), "fusion decides by who reads a value, so no dead reader may be left"),
    ]


def run_passes(graph: Graph, options: CompileOptions, stop_after: str | None = None) -> Graph:
    """The portable graph: a copy of `graph` after the passes, up to and with `stop_after`.

    Raises:
        ArgumentError: no pass has that name.
    """
    steps = pipeline(options)
    names = [step.name for step, _ in steps]
    unknown = [name for name in (*options.disable, *([stop_after] if stop_after else [])) if name not in names]
    if unknown:
        raise ArgumentError(f"there is no pass named {unknown[0]!r}", expected=", ".join(names))
    current = graph.clone()
    for step, _ in steps:
        if step.name not in options.disable:
            step.run(current)
            if options.verify:
                from pierian.compiler.graph.verify import verify

                verify(current, where=f"after pass {step.name}")
        if step.name == stop_after:
            break
    return current
