"""The work of a kernel as it is scheduled."""

from __future__ import annotations

from pierian.compiler.cost import kernel_flops
from pierian.compiler.dim import Dim
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.schedule.winograd import find_winograd
from pierian.compiler.target.features import Target


def scheduled_flops(kernel: Kernel, target: Target) -> Dim:
    """Floating-point operations: those of the kernel's text, or of Winograd's filtering where that takes its place."""
    winograd = find_winograd(kernel, target) if kernel.kind == "contraction" else None
    return winograd.flops if winograd is not None and winograd.pays else kernel_flops(kernel)
