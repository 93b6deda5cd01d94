"""Binding NumPy arrays to a program natively: types, ranks, sizes and layout are checked and addresses taken in one call.

    i32 NAME_bind(ptr arguments, ptr table, ptr dims, ptr inputs)      0 where an array does not fit, 1 where the sizes are those in
                                                                       `dims`, 2 where they were others
    void NAME_place(ptr results, ptr outputs)                          addresses of a list's arrays
    i64 NAME_width(ptr dims)                                           how many threads could work at once at most

`arguments` is a Python tuple of arrays, `results` a Python list of arrays. `table` holds the address of the ndarray type and,
input by input, of the dtype object an array must have. How these objects lie in memory says `pierian.compiler.codegen.layout`.

Python calls these as functions of its own, with a bytes object as `self` that holds the address of a frame:

    fits(arguments)             what bind says
    launch(results)             place and run
    call(arguments, results)    for programs of fixed sizes: 1, or 0 where an array does not fit

A frame holds pointers: pool, constants, table, dims, inputs, outputs, workspace, and Python's functions that let other threads run
meanwhile (null where that does not pay), that go on, and that make a number.
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
    BYTES_ITEMS,
    CONTIGUOUS_AND_ALIGNED,
    LIST_ITEMS,
    OBJECT_TYPE,
    TUPLE_ITEMS,
    TUPLE_SIZE,
)
from pierian.compiler.codegen.writer import FALSE, NULL, TRUE, FunctionWriter, Value, i32, i64
from pierian.compiler.dim import Dim, substitute, symbols
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.kernel.program import Loop, Program, shared_out

_UNKNOWN_WIDTH = 1 << 30
FRAME = (
    "pool", "constants", "table", "dims", "inputs", "outputs", "workspace", "let others", "go on", "number",
)  # fmt: skip


def emit_binding(program: Program, name: str, codes: Mapping[Kernel, KernelCode]) -> str:
    """The text of all functions."""
    bind, width = _bind(program, name), _width(program, name, codes)
    declarations = bind.declarations | width.declarations
    python = [_fits(name), _launch(name), _call(name)]
    return "\n".join([bind.finish(), width.finish(), _place(program, name), *python, *sorted(declarations), ""])


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
    changed = FALSE
    for position, symbol_name in enumerate(program.dims):
        place = f.gep(f.arg("dims"), "i64", i64(position))
        other = f.cmp("icmp ne", f.load(place, "i64", 8), values[symbol_name])
        changed = other if changed == FALSE else f.op("or", changed, other)
        f.store(values[symbol_name], place, 8)
    f.ret(f.select(changed, i32(2), i32(1)))
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


class _PythonFunction:
    """Writes a function that Python calls."""

    def __init__(self, name: str) -> None:
        self.name = name

    def begin(self, function: str) -> FunctionWriter:
        parameters = [("self", "ptr"), ("arguments", "ptr"), ("count", "i64")]
        f = self.f = FunctionWriter(f"{self.name}_{function}", "ptr", parameters, "")
        frame = f.load(f.gep(f.arg("self"), "i8", i64(BYTES_ITEMS)), "ptr", 8)
        fields = {key: f.load(f.gep(frame, "ptr", i64(position)), "ptr", 8) for position, key in enumerate(FRAME)}
        self.field = fields
        return f

    def argument(self, position: int) -> Value:
        return self.f.load(self.f.gep(self.f.arg("arguments"), "ptr", i64(position)), "ptr", 8)

    def bind(self, arguments: Value) -> Value:
        field = self.field
        return self.f.call(f"{self.name}_bind", "i32", [arguments, field["table"], field["dims"], field["inputs"]])

    def run(self, results: Value) -> None:
        f, field = self.f, self.field
        f.call(f"{self.name}_place", "void", [results, field["outputs"]])
        is_long = f.cmp("icmp ne", field["let others"], NULL)
        state = f.alloca("ptr", 1, 8)
        with f.when(is_long):
            f.store(f.emit(f"call ptr {field['let others'].text}()", "ptr"), state, 8)
        names = ("pool", "inputs", "outputs", "constants", "dims", "workspace")
        f.call(f"{self.name}_run", "i32", [field[key] for key in names])
        with f.when(is_long):
            f.line(f"call void {field['go on'].text}({f.load(state, 'ptr', 8)})")

    def finish(self, value: Value) -> str:
        """The function, which returns a number."""
        f = self.f
        f.ret(f.emit(f"call ptr {self.field['number'].text}({f.cast('sext', value, 'i64')})", "ptr"))
        return f.finish()


def _fits(name: str) -> str:
    function = _PythonFunction(name)
    function.begin("fits")
    return function.finish(function.bind(function.argument(0)))


def _launch(name: str) -> str:
    function = _PythonFunction(name)
    function.begin("launch")
    function.run(function.argument(0))
    return function.finish(i32(1))


def _call(name: str) -> str:
    function = _PythonFunction(name)
    f = function.begin("call")
    bound = function.bind(function.argument(0))
    with f.when(f.cmp("icmp ne", bound, i32(0))):
        function.run(function.argument(1))
    return function.finish(bound)
