"""The C99 header of a compiled library."""

from __future__ import annotations

from pierian.compiler.kernel.program import Program, ProgramBuffer

_C_TYPES = {"float32": "float", "float64": "double", "int32": "int32_t", "int64": "int64_t", "bool": "uint8_t"}


def header_text(program: Program, name: str) -> str:
    """Declarations and documentation of the library's functions."""
    guard = f"{name.upper()}_H"
    sizes = [f"int64_t size_{dim}" for dim in program.dims]
    arguments = [*sizes]
    arguments += [f"const {_c_type(program.buffers[n])} *in_{n}" for n in program.inputs]
    arguments += [f"{_c_type(program.buffers[n])} *out_{n}" for n in program.outputs]
    arguments += ["void *workspace", f"{name}_pool *pool"]
    lines = [
        f"/* {name}: a compiled graph. All arrays are dense and row-major. */",
        f"#ifndef {guard}", f"#define {guard}", "#include <stdint.h>",
        "#ifdef __cplusplus", 'extern "C" {', "#endif", "",
        f"typedef struct {name}_pool {name}_pool;", "",
        "/* What run returns. */",
        f"enum {{ {name.upper()}_OK = 0, {name.upper()}_NULL_POINTER = 1, {name.upper()}_BAD_SIZE = 2,",
        f"       {name.upper()}_SIZES_DIFFER = 3 }};", "",
        "/* Bytes of workspace that run needs for these sizes and this many threads. */",
        f"int64_t {name}_workspace({', '.join([*sizes, 'int64_t threads'])});", "",
        "/* Threads for run, the caller's included; NULL when memory is short. One pool serves any number of callers. */",
        f"{name}_pool *{name}_pool_create(int64_t threads);",
        f"void {name}_pool_destroy({name}_pool *pool);", "",
        "/* Runs the graph. Inputs are only read; outputs do not overlap with anything, except where said.",
    ]  # fmt: skip
    for kind, names in (("in", program.inputs), ("out", program.outputs)):
        for key in names:
            buffer = program.buffers[key]
            old = program.in_place.get(key) if kind == "out" else None
            shared = f", may be the same memory as in_{old}" if old else ""
            lines.append(f"     {kind}_{key}: {buffer.dtype}[{', '.join(map(str, buffer.shape))}]{shared}")
    for first, second, reason in program.checks:
        lines.append(f"   Needs {first} = {second} ({reason.partition(' at ')[0]}).")
    lines += [
        "   workspace: as many bytes as workspace() says, at a multiple of 64.",
        "   pool: NULL runs on the calling thread alone; results are the same bits either way. */",
        f"int32_t {name}_run({', '.join(arguments)});", "",
        "#ifdef __cplusplus", "}", "#endif", "#endif", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _c_type(buffer: ProgramBuffer) -> str:
    return _C_TYPES[buffer.dtype.name]
