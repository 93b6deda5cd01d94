"""Loops over steps in time, cut into bands of rows that never meet: each thread walks all steps with rows of its own.

    loop %t 256 times {                       loop %b0 2 times, at once {
      launch k0(x_t, w, z)                      loop %t 256 times {
      launch k1(z, c, h)             ->           launch k0'(rows of x_t, w, rows of z)
    }                                             launch k1'(rows of z, rows of c, rows of h)
                                                }
                                              }

Where every kernel of a body works row by row (a batch of sequences), threads meet once for the loop, not once for each kernel of
each step, and what a step makes stays in the cache of the core that reads it in the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pierian.compiler.cost import kernel_flops
from pierian.compiler.dim import Dim, Symbolic, ceildiv, maximum, product, substitute, symbol, symbols
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.nodes import Axis, Kernel, Store
from pierian.compiler.kernel.program import Branch, Copy, Launch, Loop, Program, ProgramBuffer, Step, walk, written
from pierian.compiler.target.features import Target

# Rows of a band at least: so many results of a product share each load of its right operand.
FEWEST_ROWS = 8
# Bands at most where the number of rows is known, and rows of each where it is not.
MOST_BANDS = 16
ROWS_OF_MANY = 16
# Operations of one step in one band at least: about 0.5 us, many times what launching its kernels takes.
BAND_WORK = 1 << 15
# What all bands read may take so many second-level caches: each thread has it in its own. Where it just fills one, an LSTM's steps
# take 0.95 of the time with two threads (0.66 beside other work, when one is kept from their meetings), and 1.04 with one (Zen 3);
# where it fills two of them, bands no longer pay.
SHARED_PART = 1.125


def cut_into_bands(program: Program, target: Target) -> None:
    """Cut, in place, the loops of a program outside of other loops, where that may be done and pays."""
    program.steps = _cut(program, program.steps, target)


def _cut(program: Program, steps: Sequence[Step], target: Target) -> list[Step]:
    found: list[Step] = []
    for step in steps:
        if isinstance(step, Branch):
            step.then, step.otherwise = _cut(program, step.then, target), _cut(program, step.otherwise, target)
        bands = _bands(program, step, target) if isinstance(step, Loop) else None
        found.append(step if bands is None else bands.loop())
    return found


@frozen
class _Rows:
    """How a kernel works on rows.

    Attributes:
        axis: the outer axis that runs over them.
        banded: the parameters of which each point touches its own row only; the others it reads whole.
    """

    axis: Axis
    banded: frozenset[str]


@dataclass(slots=True)
class _Bands:
    """A loop that can be cut.

    Attributes:
        count: how many rows there are.
        height: rows of one band, less in the last one.
        launches: how each launch inside works on rows, in the order of `walk`.
    """

    program: Program
    whole: Loop
    count: Dim
    height: int
    launches: list[_Rows]
    counter: str = ""
    aliases: dict[str, str] = field(default_factory=dict)

    def loop(self) -> Loop:
        """The loop over bands around the loop, whose steps are changed to work on one."""
        self.counter = f"%b{sum(name.startswith('band') for name in self.program.buffers)}"
        rows = iter(self.launches)
        for step in walk(self.whole.steps):
            if isinstance(step, Launch):
                self._narrow(step, next(rows))
            elif isinstance(step, Copy):
                step.target, step.source = self._alias(step.target), self._alias(step.source)
        return Loop(self.counter, ceildiv(self.count, self.height), "", [], [self.whole], parallel=True)

    @property
    def _first(self) -> Dim:
        return symbol(self.counter) * self.height

    @property
    def _rows(self) -> Dim:
        """How many rows the band has: min(height, what is left)."""
        if isinstance(self.count, int):
            return self.height
        left = self.count - self._first
        return left + self.height - maximum(left, self.height)

    def _alias(self, name: str) -> str:
        """The rows of a buffer that belong to the band."""
        if name not in self.aliases:
            buffer = self.program.buffers[name]
            alias = f"band{sum(one.startswith('band') for one in self.program.buffers)}"
            start = self._first * product(list(buffer.shape[1:]))
            shape = (self._rows, *buffer.shape[1:])
            self.program.buffers[alias] = ProgramBuffer(alias, "alias", buffer.dtype, shape, base=name, start=start)
            self.aliases[name] = alias
        return self.aliases[name]

    def _narrow(self, launch: Launch, rows: _Rows) -> None:
        kernel = launch.kernel
        names = zip(launch.buffers, kernel.buffers, strict=True)
        launch.buffers = tuple(self._alias(one) if buffer.name in rows.banded else one for one, buffer in names)
        extent = rows.axis.extent
        if isinstance(extent, Symbolic):
            actual = zip(kernel.dims, launch.dims, strict=True)
            launch.dims = tuple(self._rows if name == str(extent) else dim for name, dim in actual)
            return
        launch.kernel = replace(
            kernel,
            axes=tuple(Axis(one.name, self.height) if one == rows.axis else one for one in kernel.axes),
            buffers=tuple(
                replace(one, shape=(self.height, *one.shape[1:])) if one.name in rows.banded else one
                for one in kernel.buffers
            ),
        )


# --- whether a loop can be cut ---------------------------------------------------------------------------------------


def _bands(program: Program, loop: Loop, target: Target) -> _Bands | None:
    """How to cut a loop; None where rows meet inside, or where it would not pay."""
    inside = list(walk(loop.steps))
    if loop.condition or any(isinstance(one, Branch) or (isinstance(one, Loop) and one.condition) for one in inside):
        return None
    work = [one for one in inside if isinstance(one, (Launch, Copy))]
    stored = [name for step in work for name in written(step)]
    bases = set(map(program.base, stored))
    count = _row_count(program, stored[0]) if stored else None
    if count is None or (isinstance(count, Symbolic) and not str(count).isidentifier()):
        return None
    found: list[_Rows] = []
    banded: list[str] = []
    shared: dict[str, None] = {}
    for step in work:
        if isinstance(step, Copy):
            banded += [step.target, step.source]
            continue
        rows = _rows_of(step, count)
        if rows is None:
            return None
        found.append(rows)
        for name, buffer in zip(step.buffers, step.kernel.buffers, strict=True):
            if buffer.name in rows.banded:
                banded.append(name)
            else:
                shared[name] = None
    if any(program.base(name) in bases for name in shared) or not _are_rows(program, banded, bases, count):
        return None
    launches = [step for step in work if isinstance(step, Launch)]
    height = _height(launches, count)
    if height is None or not _stays_near(program, shared, target):
        return None
    return _Bands(program, loop, count, height, found)


def _row_count(program: Program, name: str) -> Dim | None:
    shape = program.buffers[name].shape
    return shape[0] if shape else None


def _are_rows(program: Program, names: Sequence[str], written: set[str], count: Dim) -> bool:
    """Whether the buffers have a row for each of `count`, and those of one array that is written are all the same piece of it."""
    pieces: dict[str, tuple[Dim, Dim]] = {}
    for name in names:
        if _row_count(program, name) != count:
            return False
        start: Dim = 0
        for buffer in program.chain(name):
            start = buffer.start + start if buffer.kind == "alias" else start
        base = program.base(name)
        piece = start, product(list(program.buffers[name].shape))
        if base in written and pieces.setdefault(base, piece) != piece:
            return False
    return True


def _rows_of(launch: Launch, count: Dim) -> _Rows | None:
    """How a launch works on `count` rows; None where its points touch rows of others, or depend on the number of the row."""
    kernel = launch.kernel
    if kernel.kind not in ("loop", "contraction"):
        return None
    actual = dict(zip(kernel.dims, launch.dims, strict=True))
    stores = [statement for statement in kernel.body if isinstance(statement, Store)]
    axes = [one for one in kernel.axes if all(s.indices and s.indices[0] == symbol(one.name) for s in stores)]
    if not axes or substitute(axes[0].extent, actual) != count:
        return None
    axis = axes[0]
    reached: dict[str, bool] = {}  # whether it is by rows
    for name, indices in _accesses(kernel):
        by_rows = bool(indices) and indices[0] == symbol(axis.name)
        if any(axis.name in symbols(one) for one in indices[by_rows:] if not isinstance(one, ir.Scalar)):
            return None
        if reached.setdefault(name, by_rows) != by_rows:
            return None
    rows = _Rows(axis, frozenset(name for name, by_rows in reached.items() if by_rows))
    if any(axis.name in symbols(size) for size in _looked_up(kernel)):
        return None
    if any(one.shape[0] != axis.extent for one in kernel.buffers if one.name in rows.banded):
        return None
    return rows if isinstance(axis.extent, int) or _only_counts_rows(kernel, rows) else None


def _accesses(kernel: Kernel) -> Iterator[tuple[str, tuple[ir.Index, ...]]]:
    for statement in kernel.body:
        if isinstance(statement, Store):
            yield statement.buffer, statement.indices
    for node in ir.postorder(_roots(kernel)):
        if node.op == "load":
            yield ir.load_parts(node)


def _roots(kernel: Kernel) -> list[ir.Scalar]:
    roots = [statement.value for statement in kernel.body]
    for statement in kernel.body:
        if isinstance(statement, Store):
            roots += [index for index in statement.indices if isinstance(index, ir.Scalar)]
    return roots


def _looked_up(kernel: Kernel) -> list[Dim]:
    """The sizes and axes that expressions compute with."""
    nodes = [node for node in ir.postorder(_roots(kernel)) if node.op == "dim"]
    return [node.attribute for node in nodes if isinstance(node.attribute, (int, Symbolic))]


def _only_counts_rows(kernel: Kernel, rows: _Rows) -> bool:
    """Whether a symbol that says how many rows there are has no other meaning in the kernel."""
    name = str(rows.axis.extent)
    if name not in kernel.dims:
        return False
    others: list[Dim] = [one.extent for one in kernel.axes if one != rows.axis]
    others += [one.extent for statement in kernel.body for one in statement.axes]
    for buffer in kernel.buffers:
        others += buffer.shape[1:] if buffer.name in rows.banded else buffer.shape
    others += [one for _, indices in _accesses(kernel) for one in indices if not isinstance(one, ir.Scalar)]
    return not any(name in symbols(one) for one in (*others, *_looked_up(kernel)))


# --- whether it pays ----------------------------------------------------------------------------------------------------


def _height(launches: Sequence[Launch], count: Dim) -> int | None:
    """Rows of a band; None where there would be one only, or its work is not known."""
    each: Dim = 0
    for launch in launches:
        flops = substitute(kernel_flops(launch.kernel), dict(zip(launch.kernel.dims, launch.dims, strict=True)))
        each = each + (flops if isinstance(count, int) else substitute(flops, {str(count): 1}))
    if not isinstance(each, int) or each <= 0:
        return None
    if not isinstance(count, int):
        return max(ROWS_OF_MANY, -(-BAND_WORK // each))
    least = max(FEWEST_ROWS, -(-count // MOST_BANDS), -(-BAND_WORK * count // each))
    return next((height for height in range(least, count // 2 + 1) if count % height == 0), None)


def _stays_near(program: Program, names: dict[str, None], target: Target) -> bool:
    """Whether what every band reads whole fits into each core's own cache."""
    buffers = [program.buffers[name] for name in names]
    total = sum((product(list(one.shape)) * one.dtype.itemsize for one in buffers), start=0)
    return isinstance(total, int) and total <= SHARED_PART * target.l2
