"""Grid kernels: a phase that walks blocks of the matrices, and one that adds up the shares of sums over columns."""

from __future__ import annotations

from pierian.compiler.codegen.abi import KernelCode, Phase
from pierian.compiler.codegen.grids.blocks import GridEmitter, GridFinisher
from pierian.compiler.errors import LoweringError
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.schedule.grids import Blocks, Grid, choose_blocks, take_apart
from pierian.compiler.target.features import Target


def emit_grid(kernel: Kernel, name: str, target: Target) -> KernelCode:
    """Native code of a grid kernel.

    Raises:
        LoweringError: the kernel is no grid that blocks can be made for.
    """
    grid = take_apart(kernel)
    if grid is None:
        raise LoweringError("a grid kernel must be products, work on the matrices they fill, and sums over those")
    blocks = choose_blocks(grid, target)
    emitter, finisher = GridEmitter(f"{name}_f", grid, blocks, target), GridFinisher(f"{name}_s", grid, blocks, target)
    functions, phases = [emitter.emit()], [Phase(f"{name}_f", emitter.tasks)]
    if finisher.tasks != 0:
        functions.append(finisher.emit())
        phases.append(Phase(f"{name}_s", finisher.tasks))
    return KernelCode.of(functions, phases, _note(grid, blocks), emitter.shared, emitter.scratch, emitter.helpers())


def _note(grid: Grid, blocks: Blocks) -> str:
    """The choices, for people."""
    b = blocks
    depths = " and ".join(f"{roles.k.extent}" for _, roles in grid.scores)
    rows, columns = len(grid.over_rows), len(grid.over_columns)
    masked = ", masked blocks left out" if grid.vanishing is not None else ""
    shares = f", columns in {b.shares} shares" if b.shares > 1 else ""
    return (
        f"grid {grid.row.extent} x {grid.column.extent}, {len(grid.scores)} products of {depths} for each block, then {rows} sums "
        f"over rows and {columns} over columns, tile {b.mr} x {b.nr}, block {b.rows} x {b.columns}{shares}{masked}; no matrix in "
        "memory"
    )
