"""Binding NumPy arrays to a program natively: types, ranks, sizes and layout are checked and addresses taken in one call.

    i32 NAME_bind(ptr arguments, ptr table, ptr dims, ptr inputs)     1 where every array fits, else 0
    void NAME_place(ptr results, ptr outputs)                          addresses of a list's arrays
    i32 NAME_call(ptr arguments, ptr results, ptr frame)               bind, place and run for programs of fixed sizes
    i64 NAME_width(ptr dims)                                           how many threads could work at once at most

`arguments` is a Python tuple of arrays, `results` a Python list of arrays. `table` holds the address of the ndarray type and,
input by input, of the dtype object an array must have. How these objects lie in memory says `pierian.compiler.codegen.layout`.

`frame` holds pointers: pool, constants, table, dims, inputs, outputs, workspace.
"""

from __future__ import annotations

from collections.abc import Mapping

from pierian.compiler.codegen.abi import KernelCode, emit_dim
from pierian.compiler.codegen.entry import read_dims
from pierian.compiler.codegen.layout import (
    ARRAY_DATA,
    ARRAY_DTYPE,
    ARRAY_FLAGS,
    ARRAY_RANK,
    ARRAY_SHAPE,
    CONTIGUOUS_AND_ALIGNED,
    LIST_ITEMS,
    OBJECT_TYPE,
    TUPLE_ITEMS,
    TUPLE_SIZE,
)
from pierian.compiler.codegen.writer import FALSE, TRUE, FunctionWriter, Value, i32, i64
from pierian.compiler.dim import Dim, substitute, symbols
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.kernel.program import Loop, Program, shared_out

_UNKNOWN_WIDTH = 1 << 30
FRAME = ("pool", "constants", "table", "dims", "inputs", "outputs", "workspace")


def emit_binding(program: Program, name: str, codes: Mapping[Kernel, KernelCode]) -> str:
    """The text of the four functions."""
    bind, width = _bind(program, name), _width(program, name, codes)
    declarations = bind.declarations | width.declarations
    return "\n".join([bind.finish(), width.finish(), _place(program, name), _call(name), *sorted(declarations), ""])


def _width(program: Program, name: str, codes: Mapping[Kernel, KernelCode]) -> FunctionWriter:
    """The largest number of tasks of any phase or parallel loop. Where none has two, these sizes need no pool."""
    f = FunctionWriter(f"{name}_width", "i64", [("dims", "ptr")], "")
    values = read_dims(f, program.dims, f.arg("dims"))
    widths: dict[Dim, None] = {1: None}
    for step in shared_out(program.steps):
        if isinstance(step, Loop):
            widths[step.count or 0] = None
            continue
        actual = dict(zip(step.kernel.dims, step.dims, strict=True))
        for phase in codes[step.kernel].phases:
            if not phase.serial:
                widths[substitute(phase.tasks, actual)] = None
    if any(not symbols(width) <= values.keys() for width in widths):  # the counter of a loop is in it
        f.ret(i64(_UNKNOWN_WIDTH))
        return f
    largest = i64(max(width for width in widths if isinstance(width, int)))
    for width in widths:
        if not isinstance(width, int):
            largest = f.intrinsic("llvm.smax", largest, emit_dim(f, width, values))
    f.ret(largest)
    return f


def _bind(program: Program, name: str) -> FunctionWriter:
    f = FunctionWriter(
        f"{name}_bind", "i32", [("arguments", "ptr"), ("table", "ptr"), ("dims", "ptr"), ("inputs", "ptr")], ""
    )
    fail = f.label("fail")

    def require(condition: Value) -> None:
        if condition.text == "true":
            return
        following = f.label("ok")
        f.cond_br(condition, following, fail)
        f.start(following)

    count = f.load(f.gep(f.arg("arguments"), "i8", i64(TUPLE_SIZE)), "i64", 8)
    require(f.cmp("icmp eq", count, i64(len(program.inputs))))
    array_type = f.load(f.arg("table"), "ptr", 8)
    values: dict[str, Value] = {}
    later: list[tuple[Dim, Value]] = []
    for position, buffer_name in enumerate(program.inputs):
        buffer = program.buffers[buffer_name]
        item = f.load(f.gep(f.arg("arguments"), "i8", i64(TUPLE_ITEMS + 8 * position)), "ptr", 8)
        require(f.cmp("icmp eq", f.load(f.gep(item, "i8", i64(OBJECT_TYPE)), "ptr", 8), array_type))
        dtype = f.load(f.gep(f.arg("table"), "ptr", i64(1 + position)), "ptr", 8)
        require(f.cmp("icmp eq", f.load(f.gep(item, "i8", i64(ARRAY_DTYPE)), "ptr", 8), dtype))
        rank = f.load(f.gep(item, "i8", i64(ARRAY_RANK)), "i32", 4)
        require(f.cmp("icmp eq", rank, i32(len(buffer.shape))))
        flags = f.load(f.gep(item, "i8", i64(ARRAY_FLAGS)), "i32", 4)
        wanted = f.op("and", flags, i32(CONTIGUOUS_AND_ALIGNED))
        require(f.cmp("icmp eq", wanted, i32(CONTIGUOUS_AND_ALIGNED)))
        shape = f.load(f.gep(item, "i8", i64(ARRAY_SHAPE)), "ptr", 8)
        for axis, dim in enumerate(buffer.shape):
            size = f.load(f.gep(shape, "i64", i64(axis)), "i64", 8)
            if isinstance(dim, int):
                require(f.cmp("icmp eq", size, i64(dim)))
            elif str(dim).isidentifier() and str(dim) not in values:
                values[str(dim)] = size
            else:
                later.append((dim, size))
        data = f.load(f.gep(item, "i8", i64(ARRAY_DATA)), "ptr", 8)
        f.store(data, f.gep(f.arg("inputs"), "ptr", i64(position)), 8)
    for dim, size in later:
        require(f.cmp("icmp eq", emit_dim(f, dim, values), size) if symbols(dim) <= values.keys() else FALSE)
    for first, second, _ in program.checks:
        known = symbols(first) | symbols(second) <= values.keys()
        require(f.cmp("icmp eq", emit_dim(f, first, values), emit_dim(f, second, values)) if known else TRUE)
    for position, symbol_name in enumerate(program.dims):
        f.store(values[symbol_name], f.gep(f.arg("dims"), "i64", i64(position)), 8)
    f.ret(i32(1))
    f.start(fail)
    f.ret(i32(0))
    return f


def _place(program: Program, name: str) -> str:
    f = FunctionWriter(f"{name}_place", "void", [("results", "ptr"), ("outputs", "ptr")], "")
    items = f.load(f.gep(f.arg("results"), "i8", i64(LIST_ITEMS)), "ptr", 8)
    for position in range(len(program.outputs)):
        item = f.load(f.gep(items, "ptr", i64(position)), "ptr", 8)
        data = f.load(f.gep(item, "i8", i64(ARRAY_DATA)), "ptr", 8)
        f.store(data, f.gep(f.arg("outputs"), "ptr", i64(position)), 8)
    f.ret()
    return f.finish()


def _call(name: str) -> str:
    f = FunctionWriter(f"{name}_call", "i32", [("arguments", "ptr"), ("results", "ptr"), ("frame", "ptr")], "")
    field = {key: f.load(f.gep(f.arg("frame"), "ptr", i64(position)), "ptr", 8) for position, key in enumerate(FRAME)}
    bound = f.call(f"{name}_bind", "i32", [f.arg("arguments"), field["table"], field["dims"], field["inputs"]])
    run, refuse = f.label("run"), f.label("refuse")
    f.cond_br(f.cmp("icmp ne", bound, i32(0)), run, refuse)
    f.start(refuse)
    f.ret(i32(0))
    f.start(run)
    f.call(f"{name}_place", "void", [f.arg("results"), field["outputs"]])
    f.call(
        f"{name}_run", "i32",
        [field["pool"], field["inputs"], field["outputs"], field["constants"], field["dims"], field["workspace"]],
    )  # fmt: skip
    f.ret(i32(1))
    return f.finish()
