"""Chain kernels: two phases that pack the right operands, and one that computes blocks of rows from scores to results."""

from __future__ import annotations

from pierian.compiler.codegen.abi import KernelCode, Phase
from pierian.compiler.codegen.chains.blocks import ChainEmitter
from pierian.compiler.codegen.contraction.rhs import RhsPacker
from pierian.compiler.dim import ceildiv, product
from pierian.compiler.errors import LoweringError
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.schedule.chains import Blocks, Chain, chain_length, choose_blocks, take_apart
from pierian.compiler.schedule.contraction import Tiling
from pierian.compiler.schedule.roles import Roles
from pierian.compiler.target.features import Target

# Products of one task of packing along the reduced axis.
DEPTH = 128


def emit_chain(kernel: Kernel, name: str, target: Target) -> KernelCode:
    """Native code of a chain kernel.

    Raises:
        LoweringError: the kernel is no chain that blocks can be made for.
    """
    chain = take_apart(kernel)
    if chain is None:
        raise LoweringError("a chain kernel must be two products with work on rows between them")
    blocks = choose_blocks(chain, target)
    itemsize = chain.scores.value.dtype.itemsize
    scores = _packer(f"{name}_s", kernel, chain.first, blocks, blocks.nr, target)
    offset = ceildiv(scores.elements * itemsize, 64) * 64
    values = _packer(f"{name}_v", kernel, chain.second, blocks, blocks.nv, target, offset)
    emitter = ChainEmitter(f"{name}_f", chain, blocks, target, offset)
    functions = [scores.emit(), values.emit(), emitter.emit()]
    parts = [*emitter.microkernels(), *scores.helpers(), *values.helpers()]
    phases = [Phase(f"{name}_s", scores.tasks), Phase(f"{name}_v", values.tasks), Phase(f"{name}_f", emitter.tasks)]
    shared = offset + values.elements * itemsize
    return KernelCode.of(functions, phases, _note(chain, blocks), shared, emitter.scratch, parts)


def _packer(
    name: str, kernel: Kernel, roles: Roles, blocks: Blocks, nr: int, target: Target, offset: object = 0
) -> RhsPacker:
    """The phase that packs a right operand into panels of `nr` columns."""
    tiling = Tiling(
        blocks.lanes, blocks.mr, nr, tail=0, low=0, mb=blocks.mr, rb=1, nb=nr, kb=DEPTH, sb=1, splits=1, lhs_in_place=False,
        rhs_in_place="never", few_rows=0, ahead=0, chain=chain_length(roles.depth),
    )  # fmt: skip
    return RhsPacker(name, kernel, roles, tiling, target.isa, offset)  # type: ignore[arg-type]


def _note(chain: Chain, blocks: Blocks) -> str:
    """The choices, for people."""
    b = blocks
    columns, n, depth = chain.column.extent, chain.second.n.extent, chain.first.depth
    scores = product([axis.extent for axis in (*chain.kernel.axes, chain.column)])
    how = "whole rows" if not b.online else f"softmax carried over blocks of {b.columns}"
    if chain.softmax is not None and chain.softmax.masked is not None:
        how += ", masked columns left out"
    where = "weights stored for others" if chain.kept else f"no matrix of {scores} scores in memory"
    return (
        f"chain {chain.m.extent} x {columns} x {depth}, then {chain.m.extent} x {n} x {columns}, tile {b.mr} x {b.nr}, "
        f"{b.rows} rows of scores at a time, {how}; {where}"
    )
