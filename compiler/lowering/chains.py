"""Two products with work on rows between them become one kernel, so that the matrix between them never lies in memory.

    before:  contraction  t0[i, c] = sum over k of q[i, k] * k[c, k]
             loop         t1[i, c] = softmax along c of t0[i, c]
             contraction  y[i, j] = sum over c of t1[i, c] * v[c, j]
    after:   chain        y[i, j] = ... of q, k, v        (see `pierian.compiler.schedule.chains`)

What the loop kernel is does not matter, as long as it works on whole rows of what the first product gives it, which nobody else
reads, and the second product reads its rows as left operand. Where others read those too, the chain stores them for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from pierian.compiler.dim import Dim, symbol
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.fusion.cluster import Cluster
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.nodes import Axis, Buffer, Product, Reduce, Statement, Store
from pierian.compiler.kernel.program import Launch, Program, Step, held, written
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.lowering.buffers import drop_unused
from pierian.compiler.lowering.kernel import canonical_launch
from pierian.compiler.lowering.parts import Part, Surroundings, loads_of, matched, parameters
from pierian.compiler.lowering.record import Record
from pierian.compiler.schedule.chains import refusal, take_apart
from pierian.compiler.schedule.rows import replace_expression

# Names of the arrays between the products, and of the axes that are no outer axes of the second product.
SCORES, SUMS = "%s", "%o"
COLUMN, DEPTH = "%c", "%d"


def join_products(program: Program, record: Record) -> None:
    """Replace, in place, what can be one chain and pays as one."""
    _Joiner(program, record).steps(program.steps)
    drop_unused(program)


class _Joiner:
    def __init__(self, program: Program, record: Record) -> None:
        self.record = record
        self.around = Surroundings(program)

    def steps(self, steps: list[Step]) -> None:
        """The chains of one list of steps, and of the lists inside."""
        writer: dict[str, int] = {}
        gone: set[int] = set()
        for position, step in enumerate(steps):
            for inner in held(step):
                self.steps(inner)
            if isinstance(step, Launch):
                found = self._chain(steps, position, writer)
                if found is not None:
                    launch, earlier = found
                    steps[position] = step = launch
                    gone |= earlier
                writer.update(dict.fromkeys(written(step), position))
        steps[:] = [step for position, step in enumerate(steps) if position not in gone]

    def _chain(self, steps: list[Step], position: int, writer: dict[str, int]) -> tuple[Launch, set[int]] | None:
        """The launch that takes the place of a second product, and the positions of the steps it contains."""
        for found in triples(self.around, steps, position, writer):
            kept = self.around.users[found.weights] > 2
            joined = join(found, frozenset() if kept else frozenset({found.weights}))
            if joined is None or not self.around.may_move(steps, (found.first, found.middle), position):
                continue
            chain = take_apart(joined.kernel)
            reason = "its rows are not walked column by column" if chain is None else refusal(chain)
            if reason:
                self._refuse(steps[found.middle], reason)
            else:
                self._note(joined, [steps[found.first], steps[found.middle], steps[position]])
                return joined, {found.first, found.middle}
        return None

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


@frozen
class Triple:
    """Two products with work on rows between them.

    Attributes:
        first, middle: where the first product and the work on rows stand.
        parts: the three.
        scores, weights: the buffers between them.
    """

    first: int
    middle: int
    parts: tuple[Part, Part, Part]
    scores: str
    weights: str

    @property
    def product(self) -> Reduce:
        """The second product."""
        return self.parts[2].reduces[0]

    @property
    def outer(self) -> tuple[Axis, ...]:
        """The axes of the second product that its weights vary along: those of its batch, and of rows."""
        indices = ir.load_parts(self.product.value.args[0])[1]
        return tuple(axis for axis in self.parts[2].axes if symbol(axis.name) in indices)

    @property
    def column(self) -> Axis:
        """The axis of columns, by the name that all parts get for it."""
        return Axis(COLUMN, self.product.axes[0].extent)


def triples(around: Surroundings, steps: Sequence[Step], position: int, writer: dict[str, int]) -> Iterator[Triple]:
    """What may be a chain that ends with the product at a position; `writer`: where buffers are written before it."""
    step = steps[position]
    if not isinstance(step, Launch) or step.kernel.kind != "contraction":
        return
    values = Part.of(step)
    (product,) = values.reduces
    weights = product.value.args[0]
    if weights.op != "load" or len(product.axes) != 1:
        return
    middle = around.made_by(steps, weights, writer, "loop")
    if middle is None:
        return
    rows = Part.of(steps[middle])  # type: ignore[arg-type]
    for name in rows.buffers:
        loads = rows.loads(name)
        first = around.made_by(steps, loads[0], writer, "contraction") if loads else None
        if first is not None and around.users[name] == 2:
            parts = (Part.of(steps[first]), rows, values)  # type: ignore[arg-type]
            yield Triple(first, middle, parts, name, ir.load_parts(weights)[0])


def rows_of(found: Triple) -> tuple[list[Statement], Product] | None:
    """The work on rows and the first product by the second one's names for axes; None where they do not fit together."""
    first, rows, values = found.parts
    names = _row_names(rows, values, found.product)
    body = None if names is None else moved_rows(rows, names)
    loads = [] if body is None else loads_of([statement.value for statement in body], found.scores)
    if body is None or len(loads) != 1 or any(rows.loads(store.buffer) for store in rows.stores):
        return None
    score = score_of(first, loads[0], (*found.outer, found.column))
    if score is None:
        return None
    made, expression = score
    return [replace(s, value=replace_expression(s.value, loads[0], expression)) for s in body], made


def join(found: Triple, dropped: Collection[str], more: Sequence[Store] = ()) -> Launch | None:
    """The chain of a product, the work on its rows, and a second product; None where they do not fit together.

    Args:
        dropped: what the work on rows stores, that is not stored after all.
        more: further stores behind the second product, of its sums or of what reductions over rows give.
    """
    first, rows, values = found.parts
    product = found.product
    inner = [axis for axis in values.axes if axis not in found.outer]
    fitted = rows_of(found)
    if fitted is None or len(inner) != 1:
        return None
    body, made = fitted
    place = (symbol(inner[0].name),)
    weight = next(s for s in body if isinstance(s, Store) and s.buffer == found.weights)
    renamed = ir.rename_axes(product.value.args[1], {product.axes[0].name: symbol(COLUMN)})
    summed = ir.scalar("mul", product.value.dtype, (weight.value, renamed))
    total = ir.load(SUMS, place, product.value.dtype)
    statements = [
        made,
        *(s for s in body if not isinstance(s, Store) or s.buffer not in dropped),
        Product(SUMS, place, summed, (inner[0],), (found.column,)),
        *(_result(store, product, total, inner[0]) for store in values.stores),
        *more,
    ]
    local = (
        Buffer(SCORES, made.value.dtype, (found.column.extent,)),
        Buffer(SUMS, product.value.dtype, (inner[0].extent,)),
    )
    known = {store.buffer: _made_for(store, [*found.outer, *inner]) for store in more}
    used = parameters(statements, {**known, **first.buffers, **rows.buffers, **values.buffers})
    label = "+".join(part.launch.label for part in found.parts)[:120]
    return canonical_launch("chain", used, found.outer, statements, 0, label, values.launch.location, local)


def _made_for(store: Store, axes: Sequence[Axis]) -> Buffer:
    """The array that a store fills along some of the axes."""
    extents = {symbol(axis.name): axis.extent for axis in axes}
    return Buffer(store.buffer, store.value.dtype, tuple(extents[index] for index in store.indices))  # type: ignore[index]


def _row_names(rows: Part, values: Part, product: Reduce) -> dict[str, Dim] | None:
    """The axes of the work on rows by the second product's names for them, where that reads whole rows as they are stored."""
    name, indices = ir.load_parts(product.value.args[0])
    if len(values.loads(name)) != 1:
        return None
    store = next(store for store in rows.stores if store.buffer == name)
    if len(store.axes) != 1 or store.axes[0].extent != product.axes[0].extent:
        return None
    found = matched(store.indices, indices)
    if found is None or found.get(store.axes[0].name) != symbol(product.axes[0].name):
        return None
    if found.keys() != {axis.name for axis in (*rows.axes, store.axes[0])}:
        return None
    del found[store.axes[0].name]
    return found


def moved_rows(rows: Part, names: dict[str, Dim]) -> list[Statement] | None:
    """The statements on rows with other names for the outer axes, and the common one for columns."""
    body: list[Statement] = []
    for statement in rows.body:
        if len(statement.axes) > 1 or (isinstance(statement, Reduce) and not statement.axes):
            return None
        column = {statement.axes[0].name: symbol(COLUMN)} if statement.axes else {}
        renamed: dict[str, Dim] = {**names, **column}
        value = ir.rename_axes(statement.value, renamed)
        axes = tuple(Axis(COLUMN, axis.extent) for axis in statement.axes)
        if isinstance(statement, Reduce):
            body.append(replace(statement, axes=axes, value=value))
            continue
        place = ir.rename_axes(ir.load(statement.buffer, statement.indices, statement.value.dtype), renamed)
        body.append(replace(statement, axes=axes, value=value, indices=ir.load_parts(place)[1]))
    return body


def score_of(first: Part, load: Scalar, axes: Sequence[Axis]) -> tuple[Product, Scalar] | None:
    """The first product as a row of scores, and what of it the work on rows reads."""
    if len(first.stores) != 1 or len(first.reduces[0].axes) != 1:
        return None
    (store,), (reduce,) = first.stores, first.reduces
    found = matched(store.indices, ir.load_parts(load)[1])
    extents = {axis.name: axis.extent for axis in axes}
    if found is None or found.keys() != {axis.name for axis in first.axes}:
        return None
    if {str(dim) for dim in found.values()} != extents.keys():
        return None
    renamed: dict[str, Dim] = {**found, reduce.axes[0].name: symbol(DEPTH)}
    place = (symbol(COLUMN),)
    over = (Axis(DEPTH, reduce.axes[0].extent),)
    column = next(axis for axis in axes if axis.name == COLUMN)
    value = ir.rename_axes(reduce.value, renamed)
    dtype = reduce.value.dtype
    score = replace_expression(
        ir.rename_axes(store.value, renamed), ir.reduced(reduce.name, dtype), ir.load(SCORES, place, dtype)
    )
    return Product(SCORES, place, value, (column,), over), score


def _result(store: Store, product: Reduce, total: Scalar, axis: Axis) -> Store:
    value = replace_expression(store.value, ir.reduced(product.name, product.value.dtype), total)
    return replace(store, value=value, axes=(axis,))
