"""Reductions over long rows: a few rows at a time in stripes of columns that stay in the first cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pierian.compiler.codegen import combine
from pierian.compiler.codegen.combine import State
from pierian.compiler.codegen.evaluate import Scope
from pierian.compiler.codegen.loops.plan import NARROWEST, ROWS, STRIPE, reads_one_array
from pierian.compiler.codegen.loops.rows import RowEmitter
from pierian.compiler.codegen.turns import turns, whole_end
from pierian.compiler.codegen.writer import Value, element_of, i64, like
from pierian.compiler.kernel.nodes import Axis, Reduce
from pierian.compiler.schedule.rows import groups

# What is done with a vector of columns once their states are known.
Finish = Callable[[Scope, Sequence[State]], None]
# Elements of every type lie at multiples of this many bytes.
_ALIGNMENT = 4


class StripeEmitter(RowEmitter):
    """Adds reductions over long rows, read in stripes."""

    def _streams_rows(self, narrowest: int = NARROWEST) -> bool:
        """True for one pass over one inner axis whose rows are known to be long (so many vectors at least) and many."""
        first = groups(self.kernel.body)[0]
        rest = self.kernel.body[len(first) :]
        extent, rows = self.kernel.axes[-1].extent, first[0].axes[0].extent if first[0].axes else 0
        return (
            len(first[0].axes) == 1
            and isinstance(extent, int)
            and isinstance(rows, int)
            and extent >= narrowest * self.plan.lanes
            and rows >= 8 * ROWS
            and rows < 1 << 31  # 32 bits number them
            and all(isinstance(s, Reduce) and not s.value.dtype.is_bool for s in first)
            and not any(statement.axes for statement in rest)
        )

    def _stripe_loop(
        self, scope: Scope, axis: Axis, low: Value, high: Value, span: tuple[Value, Value], finish: Finish
    ) -> None:
        """Columns from low to high, a stripe at a time, over the rows of `span`; the order of additions in a column depends on how
        many they are. `finish` is given the states of each vector of columns."""
        writer = scope.writer
        reduces = [s for s in groups(self.kernel.body)[0] if isinstance(s, Reduce)]
        cells = [
            [writer.alloca(part.type, STRIPE + self.plan.lanes) for part in self._start(reduce, 1)]
            for reduce in reduces
        ]
        with writer.loop(low, high, STRIPE) as stripe:
            end = writer.minimum(writer.add(stripe.index, i64(STRIPE)), high)
            self._stripe(Scope(scope.frame, scope), axis, (stripe.index, end), span, reduces, cells, finish)

    def _stripe(
        self,
        scope: Scope,
        axis: Axis,
        stripe: tuple[Value, Value],
        span: tuple[Value, Value],
        reduces: Sequence[Reduce],
        cells: Sequence[State],
        finish: Finish,
    ) -> None:
        writer, lanes = scope.writer, self.plan.lanes
        low, high = stripe

        starts = [self._start(reduce, lanes) for reduce in reduces]

        def columns(body: Callable[[Scope, list[State]], None], parent: Scope) -> None:
            """Over the stripe in vectors; `body` gets the places of each state."""
            whole = whole_end(writer, low, high, lanes)
            for begin, end in ((low, whole), (whole, high)):
                with writer.loop(begin, end, lanes) as loop:
                    column = Scope(parent.frame, parent, {axis.name: loop.index}, axis.name)
                    column.mask = column.tail_mask(loop.index, high) if end is high else None
                    at = writer.sub(loop.index, low)
                    places = [
                        [writer.gep(cell, element_of(part.type), at) for cell, part in zip(state, first, strict=True)]
                        for state, first in zip(cells, starts, strict=True)
                    ]
                    body(column, places)

        def read(places: State, kind: State) -> State:
            return [writer.load(place, part.type, _ALIGNMENT) for place, part in zip(places, kind, strict=True)]

        def write(places: State, state: State) -> None:
            for place, part in zip(places, state, strict=True):
                writer.store(part, place, _ALIGNMENT)

        def start(column: Scope, places: list[State]) -> None:
            for place, first in zip(places, starts, strict=True):
                write(place, first)

        def some_rows(numbers: Sequence[Value]) -> None:
            names = [reduce.axes[0].name for reduce in reduces]
            rows = [Scope(scope.frame, scope, dict.fromkeys(names, number)) for number in numbers]
            for row in rows:
                row.hoist([reduce.value for reduce in reduces], [axis.name])

            def add_rows(column: Scope, places: list[State]) -> None:
                for reduce, place, neutral in zip(reduces, places, starts, strict=True):
                    state = read(place, neutral)
                    for row, number in zip(rows, numbers, strict=True):
                        point = Scope(row.frame, row, {axis.name: column.values[axis.name]}, axis.name, column.mask)
                        value = self._element(point, reduce, state, number)
                        state = combine.advance(writer, reduce.combiner, reduce.value.dtype, state, value)
                    write(place, state)

            columns(add_rows, scope)

        def end(column: Scope, places: list[State]) -> None:
            found = []
            for place, neutral in zip(places, starts, strict=True):
                state = read(place, neutral)
                found.append([state[0], *(writer.cast("sext", part, like(part.type, "i64")) for part in state[1:])])
            finish(column, found)

        first, last = span
        # Rows from memory that are one stripe are read far apart, as streams that run on from row to row: neighbours would end
        # before the hardware follows them (64 MB of rows of 1 KB took 1.6 times as long on Zen 3). The first of equals needs order.
        width = axis.extent
        ordered = any(len(state) > 1 for state in starts)
        far = isinstance(width, int) and width <= STRIPE and not self.is_near and not ordered
        # Of several arrays fewer rows each: with two of them sums of products take 0.55 to 1 of the time four by four (Zen 4).
        together = ROWS if reads_one_array(self.kernel) else ROWS // 2
        whole = whole_end(writer, first, last, together)
        columns(start, scope)
        with turns(writer, first, whole, together, far) as (numbers, _):
            some_rows(numbers)
        with writer.loop(whole, last, 1) as single:
            some_rows([single.index])
        columns(end, scope)

    def _finish_columns(self, column: Scope, states: Sequence[State]) -> None:
        """The statements behind the first pass, whose results `states` are."""
        reduces = [s for s in groups(self.kernel.body)[0] if isinstance(s, Reduce)]
        for reduce, state in zip(reduces, states, strict=True):
            self._define(column, reduce, state)
        self._statements([column], self.kernel.body[len(reduces) :])
