"""Two small functions that find out what a processor can do at best: how fast it multiplies and adds, how fast it reads.

void pierian_probe_flops(i64 turns, ptr out)                    CHAINS * UNROLL vector multiply-adds of float32 a turn
void pierian_probe_read(ptr data, i64 bytes, i64 turns, ptr out)  every byte once a turn; `bytes` is a multiple of READ
"""

from __future__ import annotations

from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, i64, vector
from pierian.compiler.target.features import Target

# Sums that do not wait for each other: more than any processor's latency times its units, few enough for 16 registers.
CHAINS = 12
UNROLL = 8
# Bytes that one turn of the reading loop takes.
READ = 1024


def probe_text(target: Target) -> str:
    """LLVM IR of both functions."""
    flops, read = _flops(target), _read(target)
    declarations = sorted(flops.declarations | read.declarations)
    return "\n".join([flops.finish(), read.finish(), *declarations, ""])


def flops_per_turn(target: Target) -> int:
    """Operations of one turn, a multiply-add counted twice."""
    return 2 * CHAINS * UNROLL * target.lanes(32)


def _flops(target: Target) -> FunctionWriter:
    lanes = target.lanes(32)
    f = FunctionWriter("pierian_probe_flops", "void", [("turns", "i64"), ("out", "ptr")], "", isa=target.isa)
    factor = f.splat(f.load(f.arg("out"), "float", 4), lanes)
    with f.loop(i64(0), f.arg("turns"), 1, [constant(1.0, "float", lanes)] * CHAINS) as loop:
        current = list(loop.carried)
        for _ in range(UNROLL):
            for i, total in enumerate(current):
                if target.has_fma:
                    current[i] = f.intrinsic("llvm.fma", factor, total, factor)
                else:
                    current[i] = f.op("fadd", f.op("fmul", factor, total), factor)
        loop.next = current
    _keep(f, loop.results, lanes)
    return f


def _read(target: Target) -> FunctionWriter:
    lanes = target.lanes(32)
    type_, width = vector("float", lanes), 4 * lanes
    chains = min(8, READ // width)
    parameters = [("data", "ptr"), ("bytes", "i64"), ("turns", "i64"), ("out", "ptr")]
    f = FunctionWriter("pierian_probe_read", "void", parameters, "", isa=target.isa)
    zeros = [constant(0.0, "float", lanes)] * chains
    with f.loop(i64(0), f.arg("turns"), 1, zeros) as turn:
        with f.loop(i64(0), f.arg("bytes"), READ, turn.carried) as loop:
            current = list(loop.carried)
            base = f.gep(f.arg("data"), "i8", loop.index)
            for i, offset in enumerate(range(0, READ, width)):
                value = f.load(f.gep(base, "i8", i64(offset)), type_, 4)
                current[i % chains] = f.op("fadd", current[i % chains], value)
            loop.next = current
        turn.next = loop.results
    _keep(f, turn.results, lanes)
    return f


def _keep(f: FunctionWriter, values: list[Value], lanes: int) -> None:
    """Store a sum of all values, so that none is computed for nothing."""
    total = values[0]
    for value in values[1:]:
        total = f.op("fadd", total, value)
    f.store(f.extract(total, 0) if lanes > 1 else total, f.arg("out"), 4)
    f.ret()
