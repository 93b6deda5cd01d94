"""A graph as a C library: object file, header, and a shared library where a linker is present.

The library holds the same kernels and entry point that a Session runs, the thread pool, and the constants. It needs libc alone,
allocates nothing but the pool a caller asks for, and is reentrant: all state is in the caller's arguments.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from pierian.compiler.aot.header import header_text
from pierian.compiler.codegen.abi import emit_dim
from pierian.compiler.codegen.entry import read_dims
from pierian.compiler.codegen.module import program_text, to_object
from pierian.compiler.codegen.threads import pool_text
from pierian.compiler.codegen.writer import NULL, FunctionWriter, Value, i32, i64
from pierian.compiler.compile import plan_closed
from pierian.compiler.errors import ArgumentError
from pierian.compiler.graph.files import write_atomically
from pierian.compiler.graph.graph import Graph
from pierian.compiler.kernel.program import Program
from pierian.compiler.options import CompileOptions
from pierian.compiler.state import close_for_compilation
from pierian.compiler.target.features import Target, host

# What NAME_run returns.
OK, NULL_POINTER, BAD_SIZE, SIZES_DIFFER = 0, 1, 2, 3


def compile_library(
    graph: Graph,
    prefix: str | Path,
    name: str | None = None,
    target: Target | None = None,
    options: CompileOptions | None = None,
) -> list[Path]:
    """Write PREFIX.o, PREFIX.h, and PREFIX.so where a C compiler or linker is found; the paths written.

    Args:
        graph: what to compile; its inputs are the placeholders, then the variables read, its outputs the declared ones, then
            the new values of variables assigned.
        prefix: path without suffix.
        name: prefix of the C names, by default from `prefix`.
        target: the machine to compile for; default this one.

    Raises:
        ArgumentError: a name that is no C identifier.
    """
    base = Path(prefix)
    symbol = name or re.sub(r"\W", "_", base.name)
    if not symbol.isidentifier() or not symbol.isascii():
        raise ArgumentError("the name must be a C identifier", got=symbol, advice="give one with --name")
    target = target or host()
    closed, signature = close_for_compilation(graph)
    options = options or CompileOptions()
    _, program = plan_closed(closed, signature, options, target)
    pool = pool_text(target.triple.partition("-")[0], linkage="internal ")
    interface = _constants(program) + _interface(program, symbol)
    text = program_text(program, target, f"{symbol}_program", extra=pool + interface)
    base.parent.mkdir(parents=True, exist_ok=True)
    written = [Path(f"{base}.o"), Path(f"{base}.h")]
    write_atomically(written[0], to_object(text, target))
    write_atomically(written[1], header_text(program, symbol).encode())
    shared = _link(written[0], Path(f"{base}.so"))
    return [*written, *([shared] if shared is not None else [])]


def _link(object_file: Path, shared: Path) -> Path | None:
    """A shared library, by whichever of cc, gcc, clang and ld is there; None without any."""
    for tool in ("cc", "gcc", "clang", "ld"):
        found = shutil.which(tool)
        if found is not None:
            command = [found, "-shared", "-o", str(shared), str(object_file), *([] if tool == "ld" else ["-pthread"])]
            if subprocess.run(command, capture_output=True).returncode == 0:
                return shared
    return None


def _constants(program: Program) -> str:
    """The program's data, and the table of its addresses."""
    lines = []
    for position, name in enumerate(program.constants):
        raw = np.ascontiguousarray(program.buffers[name].data).tobytes()
        escaped = "".join(f"\\{byte:02X}" for byte in raw)
        lines.append(f'@pierian_constant_{position} = internal constant [{len(raw)} x i8] c"{escaped}", align 64')
    count = len(program.constants)
    entries = ", ".join(f"ptr @pierian_constant_{i}" for i in range(count))
    value = f"[{entries}]" if count else "zeroinitializer"
    lines.append(f"@pierian_constants = internal constant [{count} x ptr] {value}")
    return "\n".join(lines) + "\n"


def _interface(program: Program, name: str) -> str:
    """The functions the header declares."""
    parts = [_run(program, name), _workspace(program, name)]
    create = FunctionWriter(f"{name}_pool_create", "ptr", [("threads", "i64")], "")
    create.ret(create.call("pierian_pool_create", "ptr", [create.arg("threads")]))
    destroy = FunctionWriter(f"{name}_pool_destroy", "void", [("pool", "ptr")], "")
    destroy.call("pierian_pool_destroy", "void", [destroy.arg("pool")])
    destroy.ret()
    return "\n".join([*parts, create.finish(), destroy.finish()])


def parameters(program: Program) -> list[tuple[str, str]]:
    """The parameters of NAME_run: sizes, inputs, outputs, workspace, pool; names and LLVM types."""
    sizes = [(f"size_{dim}", "i64") for dim in program.dims]
    inputs = [(f"in_{name}", "ptr") for name in program.inputs]
    outputs = [(f"out_{name}", "ptr") for name in program.outputs]
    return [*sizes, *inputs, *outputs, ("workspace", "ptr"), ("pool", "ptr")]


def _run(program: Program, name: str) -> str:
    f = FunctionWriter(f"{name}_run", "i32", parameters(program), "")

    def require(condition: Value, code: int) -> None:
        good, bad = f.label("good"), f.label("bad")
        f.cond_br(condition, good, bad)
        f.start(bad)
        f.ret(i32(code))
        f.start(good)

    pointers = [(f"in_{n}", program.buffers[n]) for n in program.inputs]
    pointers += [(f"out_{n}", program.buffers[n]) for n in program.outputs]
    dims = f.alloca("i64", max(1, len(program.dims)), 8)
    for position, dim in enumerate(program.dims):
        size = f.arg(f"size_{dim}")
        require(f.cmp("icmp sge", size, i64(0)), BAD_SIZE)
        f.store(size, f.gep(dims, "i64", i64(position)), 8)
    values = {dim: f.arg(f"size_{dim}") for dim in program.dims}
    for first, second, _ in program.checks:
        equal = f.cmp("icmp eq", emit_dim(f, first, values), emit_dim(f, second, values))
        require(equal, SIZES_DIFFER)
    for key, buffer in pointers:
        # A pointer may be null only where there is nothing to point at.
        size = emit_dim(f, _product(buffer.shape), values)
        present = f.cmp("icmp ne", f.arg(key), NULL)
        require(f.op("or", present, f.cmp("icmp eq", size, i64(0))), NULL_POINTER)
    needed = f.call(f"{name}_program_workspace", "i64", [dims, i64(1)])
    have = f.cmp("icmp ne", f.arg("workspace"), NULL)
    require(f.op("or", have, f.cmp("icmp eq", needed, i64(0))), NULL_POINTER)
    inputs = _table(f, [f"in_{n}" for n in program.inputs])
    outputs = _table(f, [f"out_{n}" for n in program.outputs])
    result = f.call(
        f"{name}_program_run", "i32",
        [f.arg("pool"), inputs, outputs, Value("@pierian_constants", "ptr"), dims, f.arg("workspace")],
    )  # fmt: skip
    f.ret(result)
    return f.finish() + "\n".join(sorted(f.declarations)) + "\n"


def _product(shape: Any) -> Any:
    total: Any = 1
    for dim in shape:
        total = dim * total
    return total


def _table(f: FunctionWriter, names: list[str]) -> Value:
    table = f.alloca("ptr", max(1, len(names)), 8)
    for position, key in enumerate(names):
        f.store(f.arg(key), f.gep(table, "ptr", i64(position)), 8)
    return table


def _workspace(program: Program, name: str) -> str:
    sizes = [(f"size_{dim}", "i64") for dim in program.dims]
    f = FunctionWriter(f"{name}_workspace", "i64", [*sizes, ("threads", "i64")], "")
    dims = f.alloca("i64", max(1, len(program.dims)), 8)
    for position, (key, _) in enumerate(sizes):
        f.store(f.arg(key), f.gep(dims, "i64", i64(position)), 8)
    f.ret(f.call(f"{name}_program_workspace", "i64", [dims, f.arg("threads")]))
    return f.finish() + "\n".join(sorted(f.declarations)) + "\n"


__all__ = ["compile_library", "parameters", "read_dims"]
