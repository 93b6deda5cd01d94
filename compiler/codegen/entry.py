"""The one native entry point of a program: all its steps, without returning to the caller in between.

    i32 NAME_run(ptr pool, ptr inputs, ptr outputs, ptr constants, ptr dims, ptr workspace)
    i64 NAME_workspace(ptr dims, i64 threads)       bytes the workspace must have; it starts at a multiple of 64

`inputs`, `outputs` and `constants` are arrays of pointers and `dims` an array of i64, all in the program's order.

A program that is measured has `ptr NAME_profile()` too: for each launch, in the order of `launches`, three i64: nanoseconds in all,
how many times it ran, and when it began for the first time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from pierian.compiler.codegen.abi import KernelCode, emit_dim
from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, i32, i64
from pierian.compiler.dim import Dim, ceildiv, maximum, substitute
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.kernel.program import Branch, Copy, Launch, Loop, Program, ProgramBuffer, Step, launches
from pierian.compiler.lowering.in_place import copied_buffers

ALIGNMENT = 64

RUN_PARAMETERS = [
    ("pool", "ptr"), ("inputs", "ptr"), ("outputs", "ptr"), ("constants", "ptr"), ("dims", "ptr"), ("workspace", "ptr"),
]  # fmt: skip


COUNTERS = 3


def emit_entry(
    program: Program, name: str, codes: dict[Kernel, KernelCode], linkage: str = "", profile: bool = False
) -> str:
    """The text of the functions; with `profile` every launch is measured."""
    return _EntryEmitter(program, name, codes, linkage, profile).emit()


class _EntryEmitter:
    def __init__(
        self, program: Program, name: str, codes: dict[Kernel, KernelCode], linkage: str, profile: bool
    ) -> None:
        self.program = program
        self.numbers = {id(launch): i for i, launch in enumerate(launches(program.steps))} if profile else {}
        self.name = name
        self.codes = codes
        self.linkage = linkage
        self.f = FunctionWriter(f"{name}_run", "i32", RUN_PARAMETERS, linkage)
        self.values: dict[str, Value] = {}
        self.addresses: dict[str, Value] = {}
        self.dims: dict[Dim, Value] = {}

    def emit(self) -> str:
        f = self.f
        self.values = read_dims(f, self.program.dims, f.arg("dims"))
        shared, scratch = workspace_parts(self.program, self.codes)
        self.shared_offset = self.program.workspace
        self.scratch_offset = self.shared_offset + shared
        self.scratch_stride = scratch
        for step_buffers in (self.program.inputs, self.program.outputs, self.program.constants):
            for name in step_buffers:
                self._address(name)
        for buffer in self.program.buffers.values():
            if buffer.kind == "temporary":
                self._address(buffer.name)
        self._steps(self.program.steps)
        f.ret(i32(0))
        declarations = set(f.declarations)
        counters = self._counters() if self.numbers else ""
        return f.finish() + counters + self._workspace(declarations) + "\n".join(sorted(declarations)) + "\n"

    def _counters(self) -> str:
        """The memory of the measurements, and the function that says where it is."""
        size = len(self.numbers) * COUNTERS
        f = FunctionWriter(f"{self.name}_profile", "ptr", [], self.linkage)
        f.ret(Value(f"@{self.name}_counters", "ptr"))
        return f"@{self.name}_counters = internal global [{size} x i64] zeroinitializer, align 64\n" + f.finish()

    def _now(self, clock: Value) -> Value:
        """Nanoseconds of the monotonic clock."""
        f = self.f
        f.declarations.add("declare i32 @clock_gettime(i32, ptr)")
        f.call("clock_gettime", "i32", [i32(1), clock])
        seconds, rest = f.load(clock, "i64", 8), f.load(f.gep(clock, "i64", i64(1)), "i64", 8)
        return f.add(f.mul(seconds, i64(1_000_000_000)), rest)

    def _measured(self, launch: Launch) -> None:
        """A launch, its time added to its counters."""
        f = self.f
        clock = f.alloca("i64", 2, 8)
        before = self._now(clock)
        self._launch(launch)
        after = self._now(clock)
        base = Value(f"@{self.name}_counters", "ptr")
        at = [f.gep(base, "i64", i64(self.numbers[id(launch)] * COUNTERS + i)) for i in range(COUNTERS)]
        f.store(f.add(f.load(at[0], "i64", 8), f.sub(after, before)), at[0], 8)
        count = f.load(at[1], "i64", 8)
        f.store(f.add(count, i64(1)), at[1], 8)
        with f.when(f.cmp("icmp eq", count, i64(0))):
            f.store(before, at[2], 8)

    def _workspace(self, declarations: set[str]) -> str:
        f = FunctionWriter(f"{self.name}_workspace", "i64", [("dims", "ptr"), ("threads", "i64")], self.linkage)
        values = read_dims(f, self.program.dims, f.arg("dims"))
        fixed = emit_dim(f, self.scratch_offset, values)
        each = emit_dim(f, self.scratch_stride, values)
        f.ret(f.add(fixed, f.mul(each, f.arg("threads"))))
        declarations |= f.declarations
        return f.finish()

    # --- addresses -----------------------------------------------------------------------------------------------

    def _dim(self, expression: Dim) -> Value:
        return emit_dim(self.f, expression, self.values)

    def _address(self, name: str) -> Value:
        """The address of a buffer; of an alias inside a loop it depends on the loop's counter."""
        found = self.addresses.get(name)
        if found is not None:
            return found
        buffer = self.program.buffers[name]
        if buffer.kind == "alias":
            base = self._address(buffer.base)
            if buffer.start == 0:
                return base
            return self.f.gep(base, buffer.dtype.llvm, self._dim(buffer.start))
        address = self._fixed_address(buffer)
        self.addresses[name] = address
        return address

    def _fixed_address(self, buffer: ProgramBuffer) -> Value:
        f = self.f
        if buffer.host:
            return self._address(buffer.host)
        if buffer.kind == "temporary":
            return f.gep(f.arg("workspace"), "i8", self._dim(buffer.offset))
        table = f.arg({"input": "inputs", "output": "outputs", "constant": "constants"}[buffer.kind])
        return f.load(f.gep(table, "ptr", i64(buffer.position)), "ptr", 8)

    # --- steps ---------------------------------------------------------------------------------------------------

    def _steps(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, (Launch, Copy)):
                pair = copied_buffers(step)
                if pair is None:
                    self._work(step)
                elif not self._are_same(*pair):
                    with self._where_apart(*pair):
                        self._work(step)
            elif isinstance(step, Branch):
                self._branch(step)
            else:
                self._loop(step)

    def _work(self, step: Launch | Copy) -> None:
        if isinstance(step, Copy):
            self._copy(step)
        elif self.numbers:
            self._measured(step)
        else:
            self._launch(step)

    def _are_same(self, source: str, target: str) -> bool:
        """Whether two arrays are the same memory by the memory plan: a copy has nothing to do."""

        def place(name: str) -> tuple[str, Dim] | None:
            buffer = self.program.buffers[self.program.base(name)]
            return {"temporary": (buffer.host, buffer.offset), "output": (buffer.name, 0)}.get(buffer.kind)

        return place(source) is not None and place(source) == place(target)

    @contextmanager
    def _where_apart(self, source: str, target: str) -> Iterator[None]:
        """Around a copy: nothing is to be done where the caller has given the same memory, as for a variable updated in place."""
        if self.program.in_place.get(self.program.base(target)) != self.program.base(source):
            yield
            return
        with self.f.when(self.f.cmp("icmp ne", self._address(source), self._address(target))):
            yield

    def _launch(self, launch: Launch) -> None:
        f = self.f
        code = self.codes[launch.kernel]
        actual = dict(zip(launch.kernel.dims, launch.dims, strict=True))
        words = [self._address(name) for name in launch.buffers]
        words += [self._dim(expression) for expression in launch.dims]
        words.append(f.gep(f.arg("workspace"), "i8", self._dim(self.shared_offset)))
        args = f.alloca("i64", len(words), 16)
        for position, word in enumerate(words):
            f.store(word, f.gep(args, "i64", i64(position)), 8)
        scratch = f.gep(f.arg("workspace"), "i8", self._dim(self.scratch_offset))
        for phase in code.phases:
            tasks = self._dim(substitute(phase.tasks, actual))
            if phase.serial or tasks.text == "1":
                f.call(phase.function, "void", [args, i64(0), tasks, scratch])
            else:
                self._parallel(phase.function, args, tasks, scratch)

    def _parallel(self, function: str, args: Value, tasks: Value, scratch: Value) -> None:
        """Through the pool where there is one and the work has more than one task."""
        f = self.f
        alone, several, pooled, done = (f.label(hint) for hint in ("alone", "several", "pooled", "done"))
        f.cond_br(f.cmp("icmp sgt", tasks, i64(1)), several, alone)
        f.start(several)
        f.cond_br(f.cmp("icmp ne", f.arg("pool"), Value("null", "ptr")), pooled, alone)
        f.start(pooled)
        parallel = f.load(f.arg("pool"), "ptr", 8)
        stride = self._dim(self.scratch_stride)
        f.line(f"call void {parallel.text}({f.arg('pool')}, ptr @{function}, {args}, {tasks}, {scratch}, {stride})")
        f.br(done)
        f.start(alone)
        f.call(function, "void", [args, i64(0), tasks, scratch])
        f.br(done)
        f.start(done)

    def _copy(self, step: Copy) -> None:
        f = self.f
        buffer = self.program.buffers[step.target]
        size: Dim = buffer.dtype.itemsize
        for dim in buffer.shape:
            size = dim * size
        f.call(
            "llvm.memmove.p0.p0.i64", "void",
            [self._address(step.target), self._address(step.source), self._dim(size), constant(0, "i1")],
        )  # fmt: skip

    def _flag(self, name: str) -> Value:
        return self.f.cmp("icmp ne", self.f.load(self._address(name), "i8", 1), constant(0, "i8"))

    def _branch(self, step: Branch) -> None:
        f = self.f
        then, otherwise, done = f.label("then"), f.label("else"), f.label("joined")
        f.cond_br(self._flag(step.condition), then, otherwise)
        f.start(then)
        self._steps(step.then)
        f.br(done)
        f.start(otherwise)
        self._steps(step.otherwise)
        f.br(done)
        f.start(done)

    def _loop(self, step: Loop) -> None:
        f = self.f
        head, test, body, done = (f.label(hint) for hint in ("head", "test", "body", "done"))
        counter = f.alloca("i64", 1, 8)
        f.store(i64(0), counter, 8)
        limit = self._dim(step.count) if step.count is not None else None
        f.br(head)
        f.start(head)
        now = f.load(counter, "i64", 8)
        if limit is not None:
            f.cond_br(f.cmp("icmp slt", now, limit), test, done)
            f.start(test)
        self.values[step.counter] = now
        self._steps(step.header)
        if step.condition:
            f.cond_br(self._flag(step.condition), body, done)
            f.start(body)
        self._steps(step.steps)
        f.store(f.op("add", now, i64(1)), counter, 8)
        f.br(head)
        f.start(done)
        del self.values[step.counter]


def workspace_parts(program: Program, codes: Mapping[Kernel, KernelCode]) -> tuple[Dim, Dim]:
    """Shared and scratch bytes that suffice for every launch of a program, multiples of the alignment. Its workspace holds the
    temporaries, the shared bytes, and the scratch bytes once for each thread."""
    shared: Dim = 0
    scratch: Dim = 0
    for launch in launches(program.steps):
        code = codes[launch.kernel]
        actual = dict(zip(launch.kernel.dims, launch.dims, strict=True))
        shared = _larger(shared, substitute(code.shared, actual))
        scratch = _larger(scratch, substitute(code.scratch, actual))
    return ceildiv(shared, ALIGNMENT) * ALIGNMENT, ceildiv(scratch, ALIGNMENT) * ALIGNMENT


def read_dims(f: FunctionWriter, names: Sequence[str], table: Value) -> dict[str, Value]:
    """The values of size symbols from an array of i64."""
    return {name: f.load(f.gep(table, "i64", i64(i)), "i64", 8) for i, name in enumerate(names)}


def _larger(first: Dim, second: Dim) -> Dim:
    if first == 0:
        return second
    return first if second == 0 else maximum(first, second)
