"""The one native entry point of a program: all its steps, without returning to the caller in between.

    i32 NAME_run(ptr pool, ptr inputs, ptr outputs, ptr constants, ptr dims, ptr workspace)
    i64 NAME_workspace(ptr dims, i64 threads)       bytes the workspace must have; it starts at a multiple of 64

`inputs`, `outputs` and `constants` are arrays of pointers and `dims` an array of i64, all in the program's order.

The turns of a parallel loop are tasks of one function, `NAME_loopN`, as those of a kernel's phase. Kernels inside run on the thread
that has the turn, and what they share lies in its scratch memory.

A program that is measured has `ptr NAME_profile()` too: for each launch, in the order of `launches`, then for each parallel loop,
three i64: nanoseconds in all, how many times it ran, and when it began for the first time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

from pierian.compiler.codegen.abi import PHASE_PARAMETERS, KernelCode, emit_dim
from pierian.compiler.codegen.writer import NULL, FunctionWriter, Value, constant, i32, i64
from pierian.compiler.dim import Dim, ceildiv, maximum, substitute
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.kernel.program import (
    Branch,
    Copy,
    Launch,
    Loop,
    Program,
    ProgramBuffer,
    Step,
    launches,
    shared_out,
    touched,
    walk,
)
from pierian.compiler.lowering.in_place import copied_buffers

ALIGNMENT = 64

RUN_PARAMETERS = [
    ("pool", "ptr"), ("inputs", "ptr"), ("outputs", "ptr"), ("constants", "ptr"), ("dims", "ptr"), ("workspace", "ptr"),
]  # fmt: skip

# What a parallel loop's function finds in its arguments.
LOOP_ARGUMENTS = ("inputs", "outputs", "constants", "dims", "workspace")

COUNTERS = 3


def emit_entry(
    program: Program, name: str, codes: dict[Kernel, KernelCode], linkage: str = "", profile: bool = False
) -> str:
    """The text of the functions; with `profile` every launch is measured."""
    return _EntryEmitter(program, name, codes, linkage, profile).emit()


class _EntryEmitter:
    """Writes all functions of a program.

    Attributes:
        shared, scratch, stride: where in the workspace the bytes lie that the tasks of a launch share, where the first thread's own,
            and how many each thread has.
        numbers: whose measurements come where, by identity.
        functions: the texts of parallel loops.
    """

    def __init__(
        self, program: Program, name: str, codes: dict[Kernel, KernelCode], linkage: str, profile: bool
    ) -> None:
        self.program = program
        measured = measured_steps(program.steps) if profile else []
        self.numbers = {id(step): i for i, step in enumerate(measured)}
        self.name = name
        self.codes = codes
        self.linkage = linkage
        shared, self.stride = workspace_parts(program, codes)
        self.shared = program.workspace
        self.scratch = self.shared + shared
        self.functions: list[str] = []
        self.declarations: set[str] = set()

    def emit(self) -> str:
        f = FunctionWriter(f"{self.name}_run", "i32", RUN_PARAMETERS, self.linkage)
        workspace = f.arg("workspace")
        steps = _StepEmitter(self, f, {name: f.arg(name) for name, _ in RUN_PARAMETERS})
        steps.shared = f.gep(workspace, "i8", emit_dim(f, self.shared, steps.values))
        steps.scratch = f.gep(workspace, "i8", emit_dim(f, self.scratch, steps.values))
        steps.emit(self.program.steps)
        f.ret(i32(0))
        self.declarations |= f.declarations
        counters = self._counters() if self.numbers else ""
        parts = [*self.functions, f.finish(), counters, self._workspace()]
        return "".join(parts) + "\n".join(sorted(self.declarations)) + "\n"

    def parallel(self, loop: Loop) -> str:
        """Write a function that runs some of the turns of a parallel loop; its name."""
        name = f"{self.name}_loop{len(self.functions)}"
        self.functions.append("")  # its place
        position = len(self.functions) - 1
        f = FunctionWriter(name, "void", PHASE_PARAMETERS)
        words = {
            key: f.load(f.gep(f.arg("args"), "ptr", i64(place)), "ptr", 8) for place, key in enumerate(LOOP_ARGUMENTS)
        }
        steps = _StepEmitter(self, f, {**words, "pool": NULL})
        _, own = _parts(self.program, loop.steps, self.codes)
        steps.scratch = f.arg("scratch")
        steps.shared = f.gep(f.arg("scratch"), "i8", emit_dim(f, substitute(own, {loop.counter: 0}), steps.values))
        steps.turns(loop, f.arg("begin"), f.arg("end"))
        f.ret()
        self.declarations |= f.declarations
        self.functions[position] = f.finish()
        return name

    def _counters(self) -> str:
        """The memory of the measurements, and the function that says where it is."""
        size = len(self.numbers) * COUNTERS
        f = FunctionWriter(f"{self.name}_profile", "ptr", [], self.linkage)
        f.ret(Value(f"@{self.name}_counters", "ptr"))
        return f"@{self.name}_counters = internal global [{size} x i64] zeroinitializer, align 64\n" + f.finish()

    def _workspace(self) -> str:
        f = FunctionWriter(f"{self.name}_workspace", "i64", [("dims", "ptr"), ("threads", "i64")], self.linkage)
        values = read_dims(f, self.program.dims, f.arg("dims"))
        fixed = emit_dim(f, self.scratch, values)
        each = emit_dim(f, self.stride, values)
        f.ret(f.add(fixed, f.mul(each, f.arg("threads"))))
        self.declarations |= f.declarations
        return f.finish()


class _StepEmitter:
    """Writes steps into one function.

    Args:
        entry: the whole.
        writer: the function.
        given: what it is given, by the names of the entry point's parameters.
    """

    def __init__(self, entry: _EntryEmitter, writer: FunctionWriter, given: dict[str, Value]) -> None:
        self.entry = entry
        self.program = entry.program
        self.codes = entry.codes
        self.f = writer
        self.given = given
        self.values = read_dims(writer, self.program.dims, given["dims"])
        self.addresses: dict[str, Value] = {}
        self.shared = self.scratch = NULL

    def emit(self, steps: Sequence[Step]) -> None:
        """Steps, behind the addresses of all that they touch."""
        self._prepare(steps)
        self._steps(steps)

    def turns(self, loop: Loop, begin: Value, end: Value) -> None:
        """Some turns of a loop with a count."""
        self._prepare(loop.steps)
        with self.f.loop(begin, end) as turn:
            self.values[loop.counter] = turn.index
            self._steps(loop.steps)

    def _prepare(self, steps: Sequence[Step]) -> None:
        names = dict.fromkeys(self.program.base(name) for step in walk(steps) for name in touched(step))
        for name in names:
            self._address(name)

    def _now(self, clock: Value) -> Value:
        """Nanoseconds of the monotonic clock."""
        f = self.f
        f.declarations.add("declare i32 @clock_gettime(i32, ptr)")
        f.call("clock_gettime", "i32", [i32(1), clock])
        seconds, rest = f.load(clock, "i64", 8), f.load(f.gep(clock, "i64", i64(1)), "i64", 8)
        return f.add(f.mul(seconds, i64(1_000_000_000)), rest)

    @contextmanager
    def _measured(self, step: Step) -> Iterator[None]:
        """Around a step whose time is added to its counters, by any thread."""
        number = self.entry.numbers.get(id(step))
        if number is None:
            yield
            return
        f = self.f
        clock = f.alloca("i64", 2, 8)
        before = self._now(clock)
        yield
        after = self._now(clock)
        base = Value(f"@{self.entry.name}_counters", "ptr")
        at = [f.gep(base, "i64", i64(number * COUNTERS + i)) for i in range(COUNTERS)]
        f.emit(f"atomicrmw add {at[0]}, {f.sub(after, before)} monotonic", "i64")
        count = f.emit(f"atomicrmw add {at[1]}, {i64(1)} monotonic", "i64")
        with f.when(f.cmp("icmp eq", count, i64(0))):
            f.store(before, at[2], 8)

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
            return f.gep(self.given["workspace"], "i8", self._dim(buffer.offset))
        table = self.given[{"input": "inputs", "output": "outputs", "constant": "constants"}[buffer.kind]]
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
            elif step.parallel:
                with self._measured(step):
                    self._parallel_loop(step)
            else:
                self._loop(step)

    def _work(self, step: Launch | Copy) -> None:
        if isinstance(step, Copy):
            self._copy(step)
            return
        with self._measured(step):
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
        words.append(self.shared)
        args = f.alloca("i64", len(words), 16)
        for position, word in enumerate(words):
            f.store(word, f.gep(args, "i64", i64(position)), 8)
        for phase in code.phases:
            count = substitute(phase.tasks, actual)
            tasks = self._dim(count)
            if phase.serial or count == 1:
                with nullcontext() if isinstance(count, int) else f.when(f.cmp("icmp sgt", tasks, i64(0))):
                    f.call(phase.function, "void", [args, i64(0), tasks, self.scratch])
            else:
                self._parallel(phase.function, args, tasks)

    def _parallel(self, function: str, args: Value, tasks: Value) -> None:
        """Through the pool where there is one and the work has more than one task."""
        f = self.f
        scratch, pool = self.scratch, self.given["pool"]
        if pool == NULL:
            f.call(function, "void", [args, i64(0), tasks, scratch])
            return
        alone, several, pooled, done = (f.label(hint) for hint in ("alone", "several", "pooled", "done"))
        f.cond_br(f.cmp("icmp sgt", tasks, i64(1)), several, alone)
        f.start(several)
        f.cond_br(f.cmp("icmp ne", pool, NULL), pooled, alone)
        f.start(pooled)
        parallel = f.load(pool, "ptr", 8)
        stride = self._dim(self.entry.stride)
        f.line(f"call void {parallel.text}({pool}, ptr @{function}, {args}, {tasks}, {scratch}, {stride})")
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

    def _parallel_loop(self, loop: Loop) -> None:
        f = self.f
        args = f.alloca("ptr", len(LOOP_ARGUMENTS), 16)
        for position, key in enumerate(LOOP_ARGUMENTS):
            f.store(self.given[key], f.gep(args, "ptr", i64(position)), 8)
        assert loop.count is not None
        self._parallel(self.entry.parallel(loop), args, self._dim(loop.count))

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


def measured_steps(steps: Sequence[Step]) -> list[Launch | Loop]:
    """The steps of a program that have counters: launches, then parallel loops."""
    return [*launches(steps), *(step for step in shared_out(steps) if isinstance(step, Loop))]


def workspace_parts(program: Program, codes: Mapping[Kernel, KernelCode]) -> tuple[Dim, Dim]:
    """Shared and scratch bytes that suffice for every launch of a program, multiples of the alignment. Its workspace holds the
    temporaries, the shared bytes, and the scratch bytes once for each thread."""
    return _parts(program, program.steps, codes)


def _parts(program: Program, steps: Sequence[Step], codes: Mapping[Kernel, KernelCode]) -> tuple[Dim, Dim]:
    shared: Dim = 0
    scratch: Dim = 0
    for step in shared_out(steps):
        if isinstance(step, Loop):
            inner, own = _parts(program, step.steps, codes)
            scratch = _larger(scratch, substitute(inner + own, {step.counter: 0}))  # no turn has more than the first
            continue
        code = codes[step.kernel]
        actual = dict(zip(step.kernel.dims, step.dims, strict=True))
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
