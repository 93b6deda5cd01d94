"""Native code of a loop kernel."""

from __future__ import annotations

from pierian.compiler.codegen.abi import KernelCode
from pierian.compiler.codegen.loops.blocks import BlockEmitter
from pierian.compiler.codegen.loops.plan import (
    choose_plan,
    vector_axis_last,
)
from pierian.compiler.elementary import expand_kernel
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.schedule.collapse import collapse
from pierian.compiler.schedule.rows import keep_rows
from pierian.compiler.schedule.windows import choose_windows
from pierian.compiler.target.features import Target


def emit_loop(kernel: Kernel, name: str, target: Target, runs: int = 1) -> KernelCode:
    """Native code of a loop kernel that is launched `runs` times."""
    kernel = expand_kernel(collapse(keep_rows(kernel)), target.isa)
    windows = choose_windows(kernel, target)
    if windows is not None:
        from pierian.compiler.codegen.loops.windows import WindowEmitter  # only here: takes a while to import

        return WindowEmitter(kernel, name, windows, target).emit()
    plan = choose_plan(kernel, target, runs)
    return BlockEmitter(vector_axis_last(kernel, plan), name, plan, target).emit()
