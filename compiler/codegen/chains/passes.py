"""Passes over the rows of a block of scores: reductions, and what is stored of them, in vectors along the columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pierian.compiler.codegen import combine
from pierian.compiler.codegen.evaluate import Scope
from pierian.compiler.codegen.writer import Value, i64, is_literal, vector
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.nodes import Axis, Reduce, Statement, Store
from pierian.compiler.schedule.rows import cost

# Operations of a pass up to which four vectors are under way at a time; heavier ones take two.
LIGHT = 40


class RowPasses:
    """Writes statements over one row of a block; `column`: the axis of columns."""

    def __init__(self, column: Axis) -> None:
        self.column = column

    def write(
        self, scope: Scope, group: Sequence[Statement], kept: Mapping[str, Value], begin: Value, end: Value
    ) -> list[tuple[Reduce, Value]]:
        """Statements that share a pass, for the columns [begin, end), what the reductions among them give. Rows of the block
        itself are read and written under the names `kept`, from the addresses where the columns begin."""
        if not group[0].axes:
            for statement in group:
                assert isinstance(statement, Store)
                scope.store(statement.buffer, statement.indices, statement.value)
            return []
        reduces = [statement for statement in group if isinstance(statement, Reduce)]
        return list(zip(reduces, self._pass(scope, group, reduces, kept, begin, end), strict=True))

    def _pass(
        self, scope: Scope, group: Sequence[Statement], reduces: Sequence[Reduce], kept: Mapping[str, Value],
        begin: Value, end: Value,
    ) -> list[Value]:  # fmt: skip
        """One pass over the columns; the results of its reductions."""
        w, lanes = scope.writer, scope.frame.lanes
        scope.hoist([s.value for s in group], [self.column.name])
        unroll = 4 if sum(cost(statement.value) for statement in group) <= LIGHT else 2
        width = lanes * unroll
        starts = [combine.identity(r.combiner, r.value.dtype, lanes)[0] for r in reduces]
        count = w.sub(end, begin)
        whole = w.round_down(count, width)
        with w.loop(i64(0), whole, width, starts * unroll) as loop:
            places = [w.add(loop.index, i64(lanes * k)) for k in range(unroll)]
            scopes = [self._at(scope, group, kept, begin, place, None) for place in places]
            loop.next = self._step(scopes, group, reduces, kept, places, loop.carried)
        states = [list(loop.results[k * len(reduces) : (k + 1) * len(reduces)]) for k in range(unroll)]
        if not (is_literal(count) and int(count.text) % width == 0):
            with w.loop(whole, count, lanes, states[0]) as tail:
                inside = self._at(scope, group, kept, begin, tail.index, count if lanes > 1 else None)
                tail.next = self._step([inside], group, reduces, kept, [tail.index], tail.carried)
            states[0] = list(tail.results)
        found = []
        for position, reduce in enumerate(reduces):
            dtype = reduce.value.dtype
            merged = combine.merge(w, reduce.combiner, dtype, [[state[position]] for state in states])
            found.append(combine.across_lanes(w, reduce.combiner, dtype, merged)[0])
        return found

    def _at(
        self, scope: Scope, group: Sequence[Statement], kept: Mapping[str, Value], begin: Value, place: Value,
        count: Value | None,
    ) -> Scope:  # fmt: skip
        """The scope of one vector, in which the rows' elements are known."""
        w, lanes = scope.writer, scope.frame.lanes
        inside = Scope(scope.frame, scope, {self.column.name: w.add(begin, place)}, self.column.name)
        if count is not None:
            inside.mask = inside.tail_mask(place, count)
        for node in ir.postorder([statement.value for statement in group]):
            if node.op == "load" and ir.load_parts(node)[0] in kept:
                at = w.gep(kept[ir.load_parts(node)[0]], node.dtype.llvm, place)
                inside.define(node, w.load(at, vector(node.dtype.llvm, lanes), node.dtype.itemsize))
        return inside

    def _step(
        self, scopes: Sequence[Scope], group: Sequence[Statement], reduces: Sequence[Reduce],
        kept: Mapping[str, Value], places: Sequence[Value], carried: Sequence[Value],
    ) -> list[Value]:  # fmt: skip
        """The elements of some vectors into the states, and those that are stored."""
        for statement in group:
            for scope in scopes:
                scope.vector(statement.value)
        following: list[Value] = []
        remaining = iter(carried)
        for scope in scopes:
            for reduce in reduces:
                state, value = [next(remaining)], [scope.vector(reduce.value)]
                dtype = reduce.value.dtype
                following += combine.advance_masked(scope.writer, reduce.combiner, dtype, state, value, scope.mask)
        for statement in group:
            if isinstance(statement, Store):
                for scope, place in zip(scopes, places, strict=True):
                    self._store(scope, statement, kept, place)
        return following

    def _store(self, scope: Scope, statement: Store, kept: Mapping[str, Value], place: Value) -> None:
        if statement.buffer not in kept:
            scope.store(statement.buffer, statement.indices, statement.value)
            return
        w, dtype = scope.writer, statement.value.dtype
        # Rows have room for whole vectors.
        w.store(scope.vector(statement.value), w.gep(kept[statement.buffer], dtype.llvm, place), dtype.itemsize)
