"""One kernel to native code, by its kind."""

from __future__ import annotations

from pierian.compiler.codegen.abi import KernelCode
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.target.features import Target


def emit_kernel(kernel: Kernel, name: str, target: Target, runs: int = 1) -> KernelCode:
    """The LLVM functions of a kernel that a run of the program launches `runs` times; their names begin with `name`."""
    if kernel.kind == "contraction":
        from pierian.compiler.codegen.contraction.driver import emit_contraction

        return emit_contraction(kernel, name, target)
    if kernel.kind == "serial":
        from pierian.compiler.codegen.serial import emit_serial

        return emit_serial(kernel, name, target)
    if kernel.kind == "scan":
        from pierian.compiler.codegen.loops.scans import emit_scan

        return emit_scan(kernel, name, target)
    if kernel.kind == "chain":
        from pierian.compiler.codegen.chains.driver import emit_chain

        return emit_chain(kernel, name, target)
    if kernel.kind == "grid":
        from pierian.compiler.codegen.grids.driver import emit_grid

        return emit_grid(kernel, name, target)
    from pierian.compiler.codegen.loops.emit import emit_loop

    return emit_loop(kernel, name, target, runs)
