"""Work on the matrix of a chain that is read again later, such as the gradient of attention, becomes one kernel that computes the
matrix once more, block by block, so that it never lies in memory.

    before:  chain        y = p v,  p[i, c] = softmax along c of the scores s[i, c], stored
             contraction  dv[c, j] = sum over i of p[i, c] * g[i, j]
             contraction  t[i, c] = sum over k of g[i, k] * v[c, k]
             loop         d[i] = sum over c of p[i, c] * t[i, c];  u[i, c] = p[i, c] * (t[i, c] - d[i])
             contraction  dq[i, k] = sum over c of u[i, c] * k[c, k]
             contraction  dk[c, k] = sum over i of u[i, c] * q[i, k]
    after:   chain        y, and what the reductions over its rows give (the largest score, the sum)
             loop         d[i] = sum over j of g[i, j] * y[i, j]
             grid         dv, dq, dk of q, k, v, g, those and d          (see `pierian.compiler.schedule.grids`)

Found by what reads what: the readers of the matrix are products that sum over its rows or its columns, or work on its rows beside
further products, which writes more such matrices; nobody else reads any of them. A sum over a row that this work needs must follow
from the chain's results, since sum over c of p * (sum over j of g * v) is sum over j of g * (sum over c of p * v).

Source: Dao, FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning (2023).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pierian.compiler.dim import Dim, symbol
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.fusion.cluster import Cluster
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.nodes import Axis, Buffer, Product, Reduce, Statement, Store
from pierian.compiler.kernel.program import Launch, Loop, Program, ProgramBuffer, Step, held, touched, written
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.lowering.chains import (
    COLUMN,
    DEPTH,
    SCORES,
    SUMS,
    Triple,
    join,
    moved_rows,
    rows_of,
    score_of,
    triples,
)
from pierian.compiler.lowering.kernel import canonical_launch
from pierian.compiler.lowering.parts import Part, Surroundings, loads_of, matched, parameters
from pierian.compiler.lowering.record import Record
from pierian.compiler.schedule import chains, grids
from pierian.compiler.schedule.roles import NO_ROWS
from pierian.compiler.schedule.rows import replace_expression

# The axis of a product's results that is none of the grid's.
WIDTH = "%n"


def gather_grids(program: Program, record: Record) -> None:
    """Replace, in place, what can be a chain and a grid and pays as those."""
    _Gatherer(program, record).steps(program.steps)


class _Gatherer:
    def __init__(self, program: Program, record: Record) -> None:
        self.program = program
        self.record = record
        self.around = Surroundings(program)

    def steps(self, steps: list[Step]) -> None:
        """The grids of one list of steps, and of the lists inside."""
        for step in steps:
            for inner in held(step):
                self.steps(inner)
        places = _Places.of(steps)
        writer: dict[str, int] = {}
        candidates: list[tuple[int, Triple]] = []
        for position, step in enumerate(steps):
            candidates += [(position, found) for found in triples(self.around, steps, position, writer)]
            writer.update(dict.fromkeys(written(step), position))
        # The scores come before what is worked out from their weights, which has the form of a chain too.
        changed: set[int] = set()
        for position, found in sorted(candidates, key=lambda one: (one[1].first, one[0])):
            if changed & {found.first, found.middle, position}:
                continue
            made = self._made(steps, position, found, places)
            if made is None:
                continue
            # Positions stay what they are: what stands nowhere any more is a group of none.
            for gone in made.gone:
                steps[gone] = _group([])
            steps[position] = made.chain
            steps[made.position] = _group([made.chain, *made.launches] if made.position == position else made.launches)
            changed |= {*made.gone, position, made.position}
        steps[:] = [one for step in steps for one in (step.steps if _is_group(step) else [step])]  # type: ignore[union-attr]

    def _made(self, steps: Sequence[Step], position: int, found: Triple, places: _Places) -> _Made | None:
        if self.around.users[found.weights] <= 2:
            return None
        gathering = _Gathering(self.around, steps, places, position, found)
        made = gathering.made()
        if gathering.reason:
            self._refuse(steps[found.middle], gathering.reason)
        if made is None:
            return None
        for name, buffer in gathering.arrays.items():
            self.program.buffers[name] = ProgramBuffer(name, "temporary", buffer.dtype, buffer.shape)
        self._note(made.chain, "chain", [found.first, found.middle, position], [position], steps)
        for loop, place in zip(gathering.loops, gathering.origins, strict=True):
            self._note(loop, "loop", [place], [], steps)
        self._note(made.launches[-1], "grid", sorted(gathering.visited), sorted(gathering.ends), steps)
        return made

    def _refuse(self, rows: Step, reason: str) -> None:
        """Note why a matrix lies in memory."""
        cluster = self.record.clusters.get(id(rows))
        for value in cluster.stores if cluster is not None else ():
            self.record.refusals[value.node] = reason

    def _note(
        self, launch: Launch, kind: str, parts: Sequence[int], ends: Sequence[int], steps: Sequence[Step]
    ) -> None:
        """Note whose operators a launch computes, and which of them end there, by where their launches stood."""
        clusters = {at: one for at in parts if (one := self.record.clusters.get(id(steps[at]))) is not None}
        if len(clusters) < len(parts):
            return
        last = clusters[parts[-1]]
        members = set().union(*(cluster.members for cluster in clusters.values()))
        stores = [value for at in ends for value in clusters[at].stores]
        self.record.add([launch], Cluster(kind, last.root, last.domain, last.outer, members, stores))


def _group(launches: Sequence[Launch]) -> Step:
    """Launches as one step, for as long as a list of steps is being changed."""
    return Loop("", 1, "", [], list(launches))


def _is_group(step: Step) -> bool:
    return isinstance(step, Loop) and not step.counter


@frozen
class _Places:
    """Where in a list of steps each buffer is touched, and where it is written last."""

    users: dict[str, list[int]]
    writer: dict[str, int]

    @staticmethod
    def of(steps: Sequence[Step]) -> _Places:
        found = _Places({}, {})
        for position, step in enumerate(steps):
            for name in dict.fromkeys(touched(step)):
                found.users.setdefault(name, []).append(position)
            found.writer.update(dict.fromkeys(written(step), position))
        return found


@frozen
class _Made:
    """The chain, what stands at `position` (loops and the grid; behind the chain, where that is the chain's own), and the positions
    of all that these take the place of."""

    chain: Launch
    position: int
    launches: list[Launch]
    gone: set[int]


@dataclass(slots=True)
class _Gathering:
    """The search from one chain.

    Attributes:
        position: where the chain's second product stands.
        visited: where the readers of matrices and the products between stand.
        matrices: for each matrix in memory the load of it at a point of the grid, by common names of the axes.
        local: for each of those loads the load of the local matrix that takes its place.
        whole: what is stored there, as an expression over scores.
        scores, work, sums: the statements of the grid.
        numbers: what a row's reductions give, by their names in the chain: the arrays that hold it.
        arrays: new arrays, by name, as buffers.
        results: what the chain stores of its results anyway, and loops read.
        loops, origins: kernels that compute sums over rows from the chain's results, and where the work stands that needs them.
        ends: where the products stand whose results the grid stores.
        reason: why the matrix stays in memory, where the structure would allow another way.
    """

    around: Surroundings
    steps: Sequence[Step]
    places: _Places
    position: int
    found: Triple
    row: Axis = NO_ROWS
    visited: set[int] = field(default_factory=set)
    matrices: dict[str, Scalar] = field(default_factory=dict)
    local: dict[Scalar, Scalar] = field(default_factory=dict)
    whole: dict[Scalar, Scalar] = field(default_factory=dict)
    scores: list[Product] = field(default_factory=list)
    work: list[Store] = field(default_factory=list)
    sums: list[Statement] = field(default_factory=list)
    numbers: dict[str, str] = field(default_factory=dict)
    arrays: dict[str, Buffer] = field(default_factory=dict)
    known: dict[str, Buffer] = field(default_factory=dict)
    results: set[str] = field(default_factory=set)
    loops: list[Launch] = field(default_factory=list)
    origins: list[int] = field(default_factory=list)
    ends: set[int] = field(default_factory=set)
    more: list[Store] = field(default_factory=list)
    locals: list[Buffer] = field(default_factory=list)
    reason: str = ""

    @property
    def place(self) -> tuple[Dim, Dim]:
        """A point of the grid."""
        return symbol(self.row.name), symbol(COLUMN)

    @property
    def outer(self) -> tuple[Dim, ...]:
        """A row of the whole batch."""
        return tuple(symbol(axis.name) for axis in self.found.outer)

    @property
    def grid(self) -> tuple[Axis, ...]:
        """The axes of the batch, of rows and of columns."""
        return (*self.found.outer, self.found.column)

    def made(self) -> _Made | None:
        """The chain and the grid; None where they cannot be or do not pay."""
        plain = join(self.found, {store.buffer for store in self.found.parts[1].stores})
        chain = None if plain is None else chains.take_apart(plain.kernel)
        if chain is None or chains.refusal(chain):
            return None
        self.row = next(axis for axis in self.found.outer if axis.name == chain.m.name)
        if not self._begin() or not self._readers():
            return None
        grid = self._launch()
        taken = grids.take_apart(grid.kernel)
        if taken is None:
            return None
        self.reason = grids.refusal(taken)
        position = None if self.reason else self._place()
        if position is None:
            return None
        stored = [
            Store(name, self.outer, ir.reduced(reduce, self.arrays[name].dtype))
            for reduce, name in self.numbers.items()
        ]
        whole = join(self.found, {store.buffer for store in self.found.parts[1].stores}, [*stored, *self.more])
        assert whole is not None
        gone = {*self.visited, self.found.first, self.found.middle}
        return _Made(whole, position, [*self.loops, grid], gone)

    # --- what reads what ---------------------------------------------------------------------------------------------

    def _begin(self) -> bool:
        """The chain's own product and matrix."""
        fitted = rows_of(self.found)
        assert fitted is not None
        body, made = fitted
        for part in self.found.parts:
            self.known.update(part.buffers)
        return self._rows(body, self._score(made), {s.name: s for s in body if isinstance(s, Reduce)}, own=True)

    def _score(self, made: Product) -> dict[Scalar, Scalar]:
        """One more product that fills a matrix: what a row of it becomes."""
        name = f"{SCORES}{len(self.scores)}"
        depth = f"{DEPTH}{len(self.scores)}"
        value = ir.rename_axes(made.value, {DEPTH: symbol(depth)})
        if self.row.name not in ir.axes_used([value.args[0]]):
            value = ir.scalar("mul", value.dtype, (value.args[1], value.args[0]))
        over = (Axis(depth, made.over[0].extent),)
        self.scores.append(Product(name, self.place, value, (self.row, self.found.column), over))
        self._add_local(name, made.value, (self.row, self.found.column))
        old = ir.load(SCORES, (symbol(COLUMN),), value.dtype)
        return {old: ir.load(name, self.place, value.dtype)}

    def _add_local(self, name: str, value: Scalar, axes: Sequence[Axis]) -> None:
        self.locals.append(Buffer(name, value.dtype, tuple(axis.extent for axis in axes)))

    def _rows(
        self, body: Sequence[Statement], known: dict[Scalar, Scalar], reduces: dict[str, Reduce], own: bool = False
    ) -> bool:
        """Work on rows: what it stores are matrices of the grid. False where it does anything else."""
        numbers: dict[Scalar, Scalar | None] = {}
        for statement in body:
            if isinstance(statement, Reduce):
                continue
            if not isinstance(statement, Store) or type(statement) is not Store or not statement.axes:
                return False
            value = statement.value
            for node in [node for node in ir.postorder([value]) if node.op == "reduced"]:
                if node not in numbers:
                    numbers[node] = self._number(_replaced(reduces[str(node.attribute)], known), own)
                number = numbers[node]
                if number is None:
                    return False
                value = replace_expression(value, node, number)
            for old, new in {**known, **self.local}.items():
                value = replace_expression(value, old, new)
            load = ir.load(statement.buffer, statement.indices, value.dtype)
            if any(loads_of([value], name) for name in self.matrices) or not self.around.is_private(statement.buffer):
                return False
            name = f"%w{len(self.work)}"
            self.work.append(Store(name, self.place, value, (self.row, self.found.column)))
            self._add_local(name, value, (self.row, self.found.column))
            self.matrices[statement.buffer] = load
            self.local[load] = ir.load(name, self.place, value.dtype)
            self.whole[load] = self._whole(value)
        return True

    def _number(self, reduce: Reduce, own: bool) -> Scalar | None:
        """What a reduction over a row gives, from memory: kept by the chain, or summed from its results."""
        if own:
            name = self.numbers.get(reduce.name) or self._array(reduce.value, self.found.outer)
            self.numbers[reduce.name] = name
        else:
            found = self._summed(reduce)
            if found is None:
                return None
            name = found
        return ir.load(name, self.outer, reduce.value.dtype)

    def _array(self, value: Scalar, axes: Sequence[Axis]) -> str:
        """A new array over some axes."""
        taken = {*self.around.program.buffers, *self.arrays}
        name = next(name for i in range(len(taken) + 1) if (name := f"n{i}") not in taken)
        self.arrays[name] = Buffer(name, value.dtype, tuple(axis.extent for axis in axes))
        return name

    def _readers(self) -> bool:
        """All that reads the matrices, those of later work on rows too; False where somebody else does."""
        users = self.places.users
        seen = {self.found.first, self.found.middle, self.position}
        while True:
            waiting = {one for name in self.matrices for one in users[name]} - seen
            if not waiting:
                break
            position = min(waiting)
            seen.add(position)
            self.visited.add(position)
            step = self.steps[position]
            if not isinstance(step, Launch):
                return False
            part = Part.of(step)
            self.known.update(part.buffers)
            if step.kernel.kind == "contraction":
                fits = self._sum(part)
                self.ends.add(position)
            else:
                fits = step.kernel.kind == "loop" and self._later_rows(part)
                self.origins += [position] * (len(self.loops) - len(self.origins))
            if not fits:
                return False
        return all(self.around.users[name] == len(users[name]) for name in self.matrices)

    def _sum(self, part: Part) -> bool:
        """A product that sums over the rows or the columns of a matrix."""
        (product,) = part.reduces
        loads = [load for name in self.matrices for load in part.loads(name)]
        if len(loads) != 1 or product.value.args[0] is not loads[0] or len(product.axes) != 1:
            return False
        names = self._common(loads[0])
        rest = [axis for axis in part.axes if names is None or axis.name not in names]
        if names is None or len(rest) != 1 or product.axes[0].name not in names:
            return False
        reduced = names[product.axes[0].name]
        if reduced not in self.place or len(names) != len(part.axes):
            return False
        by_rows = reduced == symbol(COLUMN)
        over, along = (self.found.column, self.row) if by_rows else (self.row, self.found.column)
        renamed: dict[str, Dim] = {**names, rest[0].name: symbol(WIDTH)}
        operand = ir.rename_axes(product.value.args[1], renamed)
        if along.name in ir.axes_used([operand]):
            return False
        number = sum(isinstance(one, Product) for one in self.sums)
        name, axes = f"{SUMS}{number}", (along, Axis(WIDTH, rest[0].extent))
        place = (symbol(along.name), symbol(WIDTH))
        load = self.local[ir.rename_axes(loads[0], renamed)]
        dtype = product.value.dtype
        self.sums.append(Product(name, place, ir.scalar("mul", dtype, (load, operand)), axes, (over,)))
        self._add_local(name, product.value, axes)
        for store in part.stores:
            value = replace_expression(
                ir.rename_axes(store.value, renamed), ir.reduced(product.name, dtype), ir.load(name, place, dtype)
            )
            target = ir.load_parts(ir.rename_axes(ir.load(store.buffer, store.indices, value.dtype), renamed))[1]
            self.sums.append(replace(store, value=value, indices=target, axes=axes))
        return True

    def _common(self, load: Scalar) -> dict[str, Dim] | None:
        """The common names of the axes by which a matrix is read; None where not every point of it is read once."""
        name, indices = ir.load_parts(load)
        names = matched(indices, ir.load_parts(self.matrices[name])[1])
        if names is None or {str(one) for one in names.values()} != {axis.name for axis in self.grid}:
            return None
        return names

    def _later_rows(self, part: Part) -> bool:
        """Work on the rows of matrices, and of products that only it reads."""
        first = next(load for name in self.matrices for load in part.loads(name))
        names = self._common(first)
        inner = {axis.name for statement in part.body for axis in statement.axes}
        if names is None or {name for name in names if name not in inner} != {axis.name for axis in part.axes}:
            return False
        body = moved_rows(part, {axis.name: names[axis.name] for axis in part.axes})
        if body is not None and not inner:  # pointwise work has no rows: the columns are an outer axis too
            body = [replace(statement, axes=(self.found.column,)) for statement in body]
        if body is None or any(s.axes and s.axes[0].extent != self.found.column.extent for s in body):
            return False
        known: dict[Scalar, Scalar] = {}
        reduces: dict[str, Reduce] = {s.name: s for s in body if isinstance(s, Reduce)}
        for name in part.buffers:
            loads = loads_of([statement.value for statement in body], name)
            if name in self.matrices:
                if loads != [self.matrices[name]]:
                    return False
                continue
            position = self.around.made_by(self.steps, loads[0], self.places.writer, "contraction") if loads else None
            if position is None or COLUMN not in ir.axes_used(loads[:1]):
                continue
            score = score_of(Part.of(self.steps[position]), loads[0], self.grid)  # type: ignore[arg-type]
            if self.around.users[name] != 2 or len(loads) != 1 or score is None:
                return False
            self.visited.add(position)
            self.known.update(Part.of(self.steps[position]).buffers)  # type: ignore[arg-type]
            ((old, new),) = self._score(score[0]).items()
            known[loads[0]] = replace_expression(score[1], old, new)
        return self._rows(body, known, reduces)

    def _summed(self, reduce: Reduce) -> str | None:
        """The array of a sum over rows of weights times a product whose right operand is the chain's: the sum of that product's left
        operand times the chain's results, computed by a loop of its own."""
        factors = _factors(self._whole(reduce.value))
        product = self.found.product
        weights = _factors(self._whole(self.matrices[self.found.weights]))
        made = {ir.load(one.buffer, self.place, one.value.dtype): one for one in self.scores}
        load = next((one for one in factors if one in made), None)
        if reduce.combiner != "sum" or load is None:
            return None
        score = made[load]
        if factors - Counter([load]) != weights:
            return None
        inner = next(axis for axis in self.found.parts[2].axes if axis not in self.found.outer)
        depth = score.over[0]
        right = {product.axes[0].name: symbol(COLUMN), inner.name: symbol(depth.name)}
        if ir.rename_axes(product.value.args[1], right) is not score.value.args[1] or inner.extent != depth.extent:
            return None
        total = self._results(product, inner, depth)
        name = self._array(reduce.value, self.found.outer)
        value = ir.scalar("mul", reduce.value.dtype, (score.value.args[0], total))
        body: list[Statement] = [
            Reduce("r0", "sum", (depth,), value),
            Store(name, self.outer, ir.reduced("r0", reduce.value.dtype)),
        ]
        used = parameters(body, {**self.known, **self.arrays})
        self.loops.append(canonical_launch("loop", used, self.found.outer, body, 0, "multiply+sum", None))
        return name

    def _whole(self, value: Scalar) -> Scalar:
        """A value as an expression over scores."""
        for load, expression in self.whole.items():
            value = replace_expression(value, load, expression)
            value = replace_expression(value, self.local[load], expression)
        return value

    def _results(self, product: Reduce, inner: Axis, depth: Axis) -> Scalar:
        """The chain's results: what it stores of them, or an array for them."""
        dtype = product.value.dtype
        renamed: dict[str, Dim] = {inner.name: symbol(depth.name)}
        for store in self.found.parts[2].stores:
            if store.value is ir.reduced(product.name, dtype) and self.known[store.buffer].dtype is dtype:
                self.results.add(store.buffer)
                return ir.rename_axes(ir.load(store.buffer, store.indices, dtype), renamed)
        name = self._array(product.value, (*self.found.outer, inner))
        place = (*self.outer, symbol(inner.name))
        self.more.append(Store(name, place, ir.load(SUMS, place[-1:], dtype), (inner,)))
        return ir.rename_axes(ir.load(name, place, dtype), renamed)

    # --- the kernel --------------------------------------------------------------------------------------------------

    def _launch(self) -> Launch:
        statements: list[Statement] = [*self.scores, *self.work, *self.sums]
        used = parameters(statements, {**self.known, **self.arrays})
        batch = [axis for axis in self.found.outer if axis != self.row]
        parts = [self.steps[one] for one in sorted(self.visited)]
        label = "+".join(part.label for part in parts if isinstance(part, Launch))[:120]
        location = next((part.location for part in reversed(parts) if isinstance(part, Launch)), None)
        return canonical_launch("grid", used, batch, statements, 0, label, location, self.locals)

    def _place(self) -> int | None:
        """Where the loops and the grid may stand: the first place behind the chain to which all may be moved that they replace or
        compute once more, or right behind it, as where the gradient that comes in has nothing to do with the chain's results and
        is worked on before them."""
        parts = {self.found.first, self.found.middle}
        moved, gone = {*self.visited, *parts}, {*self.visited, *parts, self.position}
        base = self.around.program.base
        if not self.around.may_move(self.steps, parts, self.position, self.visited):
            return None
        behind = sorted(one for one in self.visited if one > self.position)
        for position in (*behind, self.position):
            between = [at for at in range(self.position + 1, position) if at not in gone]
            stays = all(
                base(name) != base(one) for at in between for name in written(self.steps[at]) for one in self.results
            )
            if stays and self.around.may_move(self.steps, moved, position, gone):
                return position
        return None


def _replaced(reduce: Reduce, known: Mapping[Scalar, Scalar]) -> Reduce:
    """A reduction that reads local matrices instead of what products have stored."""
    for old, new in known.items():
        reduce = replace(reduce, value=replace_expression(reduce.value, old, new))
    return reduce


def _factors(value: Scalar) -> Counter[Scalar]:
    """How often each factor stands in a product."""
    found = Counter({value: 1})
    for node in reversed(list(ir.postorder([value]))):
        if node.op == "mul" and found[node]:
            times = found.pop(node)
            for arg in node.args:
                found[arg] += times
    return +found
