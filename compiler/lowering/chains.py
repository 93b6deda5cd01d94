"""Two products with work on rows between them become one kernel, so that the matrix between them never lies in memory.

    before:  contraction  t0[i, c] = sum over k of q[i, k] * k[c, k]
             loop         t1[i, c] = softmax along c of t0[i, c]
             contraction  y[i, j] = sum over c of t1[i, c] * v[c, j]
    after:   chain        y[i, j] = ... of q, k, v        (see `pierian.compiler.schedule.chains`)

What the loop kernel is does not matter, as long as it works on whole rows of what the first product gives it, which nobody else
reads, and the second product reads its rows as left operand. Where others read those too, the chain stores them for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pierian.compiler.dim import Dim, Symbolic, symbol
from pierian.compiler.fusion.cluster import Cluster
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.nodes import Axis, Buffer, Product, Reduce, Statement, Store
from pierian.compiler.kernel.program import Branch, Launch, Loop, Program, Step, touched, walk, written
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.lowering.buffers import drop_unused
from pierian.compiler.lowering.kernel import Renamer, canonical_launch
from pierian.compiler.lowering.record import Record
from pierian.compiler.schedule.chains import refusal, take_apart
from pierian.compiler.schedule.rows import rename_axes, replace_expression

# Names of the arrays between the products, and of the axes that are no outer axes of the second product.
SCORES, SUMS = "%s", "%o"
COLUMN, DEPTH = "%c", "%d"


def join_products(program: Program, record: Record) -> None:
    """Replace, in place, what can be one chain and pays as one."""
    _Joiner(program, record).steps(program.steps)
    drop_unused(program)


@dataclass(frozen=True, slots=True)
class _Part:
    """A launch as statements over the program's own buffers and sizes."""

    launch: Launch
    axes: tuple[Axis, ...]
    body: tuple[Statement, ...]
    buffers: dict[str, Buffer]

    @staticmethod
    def of(launch: Launch) -> _Part:
        kernel = launch.kernel
        names = {buffer.name: name for buffer, name in zip(kernel.buffers, launch.buffers, strict=True)}
        rename = Renamer(names, dict(zip(kernel.dims, launch.dims, strict=True)))
        buffers = [rename.buffer(buffer) for buffer in kernel.buffers]
        axes = tuple(rename.axis(axis) for axis in kernel.axes)
        return _Part(
            launch, axes, tuple(map(rename.statement, kernel.body)), {buffer.name: buffer for buffer in buffers}
        )

    @property
    def reduces(self) -> list[Reduce]:
        return [statement for statement in self.body if isinstance(statement, Reduce)]

    @property
    def stores(self) -> list[Store]:
        return [statement for statement in self.body if isinstance(statement, Store)]

    def loads(self, name: str) -> list[Scalar]:
        """The distinct loads of a buffer."""
        nodes = ir.postorder([statement.value for statement in self.body])
        return [node for node in nodes if node.op == "load" and ir.load_parts(node)[0] == name]


class _Joiner:
    def __init__(self, program: Program, record: Record) -> None:
        self.program = program
        self.record = record
        self.users: dict[str, int] = {}  # steps that touch the bytes of a buffer
        self.aliased = {buffer.base for buffer in program.buffers.values() if buffer.kind == "alias"}
        for step in walk(program.steps):
            for name in dict.fromkeys(map(program.base, touched(step))):
                self.users[name] = self.users.get(name, 0) + 1

    def steps(self, steps: list[Step]) -> None:
        """The chains of one list of steps, and of the lists inside."""
        writer: dict[str, int] = {}
        gone: set[int] = set()
        for position, step in enumerate(steps):
            if isinstance(step, Branch):
                self.steps(step.then)
                self.steps(step.otherwise)
            elif isinstance(step, Loop):
                self.steps(step.header)
                self.steps(step.steps)
            elif isinstance(step, Launch):
                found = self._chain(steps, position, writer)
                if found is not None:
                    launch, earlier = found
                    steps[position] = step = launch
                    gone |= earlier
                writer.update(dict.fromkeys(written(step), position))
        steps[:] = [step for position, step in enumerate(steps) if position not in gone]

    def _chain(self, steps: list[Step], position: int, writer: dict[str, int]) -> tuple[Launch, set[int]] | None:
        """The launch that takes the place of a second product, and the positions of the steps it contains."""
        step = steps[position]
        assert isinstance(step, Launch)
        if step.kernel.kind != "contraction":
            return None
        values = _Part.of(step)
        (product,) = values.reduces
        weights = product.value.args[0]
        if weights.op != "load" or len(product.axes) != 1:
            return None
        middle = self._made_by(steps, weights, writer, "loop")
        if middle is None:
            return None
        rows = _Part.of(steps[middle])  # type: ignore[arg-type]
        for name in rows.buffers:
            loads = rows.loads(name)
            first = self._made_by(steps, loads[0], writer, "contraction") if loads else None
            if first is None or self.users[name] != 2:
                continue
            joined = _join(_Part.of(steps[first]), rows, values, name, self.users[ir.load_parts(weights)[0]] > 2)  # type: ignore[arg-type]
            if joined is None or not self._may_wait(steps, (first, middle), position):
                continue
            chain = take_apart(joined.kernel)
            reason = "its rows are not walked column by column" if chain is None else refusal(chain)
            if reason:
                self._refuse(steps[middle], reason)
            else:
                self._note(joined, [steps[first], steps[middle], step])
                return joined, {first, middle}
        return None

    def _made_by(self, steps: list[Step], load: Scalar, writer: dict[str, int], kind: str) -> int | None:
        """Where the temporary that is loaded is written, by a kernel of some kind; None where it may be seen by others."""
        name, _ = ir.load_parts(load)
        position = writer.get(name)
        if position is None or self.program.buffers[name].kind != "temporary" or name in self.aliased:
            return None
        step = steps[position]
        return position if isinstance(step, Launch) and step.kernel.kind == kind else None

    def _may_wait(self, steps: list[Step], earlier: tuple[int, int], position: int) -> bool:
        """Whether steps may run at a later position: nothing between writes what they read or needs what they write."""
        inside = [steps[one] for one in earlier]
        mine = {self.program.base(name) for step in inside for name in touched(step)}
        outputs = {self.program.base(name) for step in inside for name in written(step)}
        for between in range(min(earlier) + 1, position):
            if between in earlier:
                continue
            if mine & {self.program.base(name) for one in walk([steps[between]]) for name in written(one)}:
                return False
            if outputs & {self.program.base(name) for one in walk([steps[between]]) for name in touched(one)}:
                return False
        return True

    def _refuse(self, rows: Step, reason: str) -> None:
        """Note why what is between two products lies in memory."""
        cluster = self.record.clusters.get(id(rows))
        for value in cluster.stores if cluster is not None else ():
            self.record.refusals[value.node] = reason

    def _note(self, launch: Launch, parts: Sequence[Step]) -> None:
        clusters = [found for part in parts if (found := self.record.clusters.get(id(part))) is not None]
        if len(clusters) < len(parts):
            return
        last = clusters[-1]
        members = set().union(*(cluster.members for cluster in clusters))
        self.record.add([launch], Cluster("chain", last.root, last.domain, last.outer, members, list(last.stores)))


# --- one kernel from three --------------------------------------------------------------------------------------------


def _join(first: _Part, rows: _Part, values: _Part, scores: str, keep: bool) -> Launch | None:
    """The chain of a product, the work on its rows, and a second product; None where they do not fit together.

    Args:
        scores: the buffer between the first product and the rows.
        keep: whether others read the rows too.
    """
    (product,) = values.reduces
    names = _row_names(rows, values, product)
    moved = None if names is None else _moved_rows(rows, names, scores)
    if moved is None:
        return None
    body, load = moved
    column = Axis(COLUMN, product.axes[0].extent)
    outer = tuple(axis for axis in values.axes if symbol(axis.name) in ir.load_parts(product.value.args[0])[1])
    inner = [axis for axis in values.axes if axis not in outer]
    score = _score(first, load, (*outer, column))
    if len(inner) != 1 or score is None:
        return None
    made, expression = score
    place = (symbol(inner[0].name),)
    body = [replace(s, value=replace_expression(s.value, load, expression)) for s in body]
    weights, _ = ir.load_parts(product.value.args[0])
    weight = next(s for s in body if isinstance(s, Store) and s.buffer == weights)
    renamed = rename_axes(product.value.args[1], {product.axes[0].name: symbol(COLUMN)})
    summed = ir.scalar("mul", product.value.dtype, (weight.value, renamed))
    total = ir.load(SUMS, place, product.value.dtype)
    statements = [
        made,
        *(s for s in body if keep or s is not weight),
        Product(SUMS, place, summed, (inner[0],), (column,)),
        *(_result(store, product, total, inner[0]) for store in values.stores),
    ]
    local = (
        Buffer(SCORES, made.value.dtype, (column.extent,)),
        Buffer(SUMS, product.value.dtype, (inner[0].extent,)),
    )
    used = _parameters(statements, {**first.buffers, **rows.buffers, **values.buffers})
    label = "+".join(part.launch.label for part in (first, rows, values))[:120]
    launch = canonical_launch("chain", used, outer, statements, 0, label, values.launch.location, local)
    return launch


def _row_names(rows: _Part, values: _Part, product: Reduce) -> dict[str, Dim] | None:
    """The axes of the work on rows by the second product's names for them, where that reads whole rows as they are stored."""
    name, indices = ir.load_parts(product.value.args[0])
    if len(values.loads(name)) != 1:
        return None
    store = next(store for store in rows.stores if store.buffer == name)
    if len(store.axes) != 1 or store.axes[0].extent != product.axes[0].extent:
        return None
    found = _matched(store.indices, indices)
    if found is None or found.get(store.axes[0].name) != symbol(product.axes[0].name):
        return None
    if found.keys() != {axis.name for axis in (*rows.axes, store.axes[0])}:
        return None
    del found[store.axes[0].name]
    return found


def _matched(stored: Sequence[ir.Index], read: Sequence[ir.Index]) -> dict[str, Dim] | None:
    """The axes by which an array is stored, in terms of those by which it is read; each index is one axis, and none stands twice."""
    found: dict[str, Dim] = {}
    for one, other in zip(stored, read, strict=True):
        if one == other == 0:
            continue
        if not isinstance(one, Symbolic) or not isinstance(other, Symbolic) or str(one) in found:
            return None
        if not str(one).startswith("%") or not str(other).startswith("%") or one != symbol(str(one)):
            return None
        if other != symbol(str(other)):
            return None
        found[str(one)] = other
    return found if len(set(found.values())) == len(found) else None


def _moved_rows(rows: _Part, names: dict[str, Dim], scores: str) -> tuple[list[Statement], Scalar] | None:
    """The statements on rows with the second product's axes and the common column, and the one load of scores among them."""
    body: list[Statement] = []
    for statement in rows.body:
        if len(statement.axes) > 1 or (isinstance(statement, Reduce) and not statement.axes):
            return None
        column = {statement.axes[0].name: symbol(COLUMN)} if statement.axes else {}
        renamed: dict[str, Dim] = {**names, **column}
        value = rename_axes(statement.value, renamed)
        axes = tuple(Axis(COLUMN, axis.extent) for axis in statement.axes)
        if isinstance(statement, Reduce):
            body.append(replace(statement, axes=axes, value=value))
            continue
        place = rename_axes(ir.load(statement.buffer, statement.indices, statement.value.dtype), renamed)
        body.append(replace(statement, axes=axes, value=value, indices=ir.load_parts(place)[1]))
    found = [
        node
        for node in ir.postorder([statement.value for statement in body])
        if node.op == "load" and ir.load_parts(node)[0] == scores
    ]
    stored = {store.buffer for store in rows.stores}
    if len(found) != 1 or any(rows.loads(name) for name in stored):
        return None
    return body, found[0]


def _score(first: _Part, load: Scalar, axes: Sequence[Axis]) -> tuple[Product, Scalar] | None:
    """The first product as a row of scores, and what of it the work on rows reads."""
    if len(first.stores) != 1 or len(first.reduces[0].axes) != 1:
        return None
    (store,), (reduce,) = first.stores, first.reduces
    found = _matched(store.indices, ir.load_parts(load)[1])
    extents = {axis.name: axis.extent for axis in axes}
    if found is None or found.keys() != {axis.name for axis in first.axes}:
        return None
    if {str(dim) for dim in found.values()} != extents.keys():
        return None
    renamed: dict[str, Dim] = {**found, reduce.axes[0].name: symbol(DEPTH)}
    place = (symbol(COLUMN),)
    over = (Axis(DEPTH, reduce.axes[0].extent),)
    column = next(axis for axis in axes if axis.name == COLUMN)
    value = rename_axes(reduce.value, renamed)
    dtype = reduce.value.dtype
    score = replace_expression(
        rename_axes(store.value, renamed), ir.reduced(reduce.name, dtype), ir.load(SCORES, place, dtype)
    )
    return Product(SCORES, place, value, (column,), over), score


def _result(store: Store, product: Reduce, total: Scalar, axis: Axis) -> Store:
    value = replace_expression(store.value, ir.reduced(product.name, product.value.dtype), total)
    return replace(store, value=value, axes=(axis,))


def _parameters(statements: Sequence[Statement], known: dict[str, Buffer]) -> list[Buffer]:
    """The buffers that statements touch, in order of first use."""
    found: dict[str, None] = {}
    for statement in statements:
        for node in ir.postorder([statement.value]):
            if node.op == "load":
                found[ir.load_parts(node)[0]] = None
        if isinstance(statement, Store):
            found[statement.buffer] = None
    return [known[name] for name in found if name in known]
