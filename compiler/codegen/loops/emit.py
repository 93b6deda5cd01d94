"""Native code of a loop kernel."""

from __future__ import annotations

from pierian.compiler.codegen.abi import KernelCode
from pierian.compiler.codegen.loops.blocks import BlockEmitter
from pierian.compiler.codegen.loops.plan import Plan, choose_plan, vector_axis_last
from pierian.compiler.elementary import expand_kernel
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.schedule.collapse import collapse
from pierian.compiler.schedule.rows import keep_rows
from pierian.compiler.schedule.spans import cut_kernel, spans
from pierian.compiler.schedule.windows import choose_windows
from pierian.compiler.target.features import Target


def emit_loop(kernel: Kernel, name: str, target: Target, runs: int = 1) -> KernelCode:
    """Native code of a loop kernel that is launched `runs` times."""
    parts = cut_kernel(kernel)
    if len(parts) == 1:
        return _emit_part(parts[0], name, target, runs)
    codes = [_emit_part(part, f"{name}_{number}", target, runs) for number, part in enumerate(parts)]
    return KernelCode.joined(codes, [phase for code in codes for phase in code.phases])


def _emit_part(kernel: Kernel, name: str, target: Target, runs: int) -> KernelCode:
    kernel = expand_kernel(collapse(keep_rows(kernel)), target.isa)
    plan = choose_plan(kernel, target, runs)
    windows = None if _is_plain(kernel, plan) else choose_windows(kernel, target)
    if windows is not None:
        from pierian.compiler.codegen.loops.windows import WindowEmitter  # only here: takes a while to import

        return WindowEmitter(kernel, name, windows, target).emit()
    return BlockEmitter(vector_axis_last(kernel, plan), name, plan, target).emit()


def _is_plain(kernel: Kernel, plan: Plan) -> bool:
    """Whether a kernel without windows reads neighbours: rows in whole, or span by span."""
    if plan.kind != "pointwise":
        return plan.kind == "short rows"
    values = [statement.value for statement in kernel.body]
    return any(axis.name == plan.vector_axis and spans(values, [axis] * len(values)) for axis in kernel.axes)
