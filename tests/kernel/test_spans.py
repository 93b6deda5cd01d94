"""Loops cut where expressions change their answers: concatenation, padding, stacking along every axis, in all kinds of kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import plan_graph
from pierian.compiler.dim import Dim, symbol
from pierian.compiler.dtype import bool_, float32
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.builder import ScalarBuilder
from pierian.compiler.kernel.nodes import Axis
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.schedule.spans import MOST_SPANS, spans

# Arrays joined in one way or another, by NumPy's functions or ours: shapes, and what is done.
JOINED: dict[str, tuple[list[tuple[int, ...]], Any]] = {
    "columns": ([(37, 50), (37, 30)], lambda m, x, y: m.concat([x, y], axis=1)),
    "narrow columns": ([(200, 3), (200, 5)], lambda m, x, y: m.concat([x, y], axis=1)),
    "columns of vectors": ([(300, 64), (300, 64)], lambda m, x, y: m.concat([x, y, x], axis=1)),
    "rows": ([(30, 41), (45, 41)], lambda m, x, y: m.concat([x, y], axis=0)),
    "narrow rows": ([(3000, 3), (7000, 3)], lambda m, x, y: m.concat([x, y], axis=0)),
    "one axis": ([(70_001,), (40_000,)], lambda m, x, y: m.concat([x, y, x], axis=0)),
    "channels": ([(3, 4, 5, 6), (3, 2, 5, 6)], lambda m, x, y: m.concat([x, y], axis=1)),
    "two axes": (
        [(9, 20), (9, 13)],
        lambda m, x, y: m.concat([m.concat([x, y], axis=1), m.concat([y, x], axis=1)], axis=0),
    ),
    "stacked": ([(40, 60), (40, 60)], lambda m, x, y: m.stack([x, y, x], axis=1)),
    "stacked last": ([(40, 60), (40, 60)], lambda m, x, y: m.stack([x, y], axis=-1)),
    "many": ([(8, 5), (8, 9)], lambda m, x, y: m.concat([x, y] * 11, axis=1)),
    "padded": ([(3, 20, 33), (1,)], lambda m, x, y: pad(m, x, (0, 2, 3), (0, 1, 40))),
    "pads of products": ([(20, 33), (33,)], lambda m, x, y: pad(m, x * y, (1, 2), (1, 5))),
}
USED: dict[str, Any] = {
    "as it is": lambda m, z: z,
    "doubled": lambda m, z: z * 2 + 1,
    "summed along": lambda m, z: m.sum(z, axis=-1),
    "summed across": lambda m, z: m.sum(z, axis=0),
    "largest place": lambda m, z: m.argmax(z, axis=-1),
    "centred": lambda m, z: z - m.max(z, axis=-1, keepdims=True),
    "turned": lambda m, z: m.permute_dims(z, tuple(range(z.ndim if hasattr(z, "ndim") else len(z.shape)))[::-1]),
}


def pad(m: Any, x: Any, before: tuple[int, ...], after: tuple[int, ...]) -> Any:
    if m is np:
        return np.pad(x, list(zip(before, after, strict=True)), constant_values=3)
    return tf.pad(x, before=before, after=after, value=3.0)


@pytest.mark.parametrize("used", USED)
@pytest.mark.parametrize("joined", JOINED)
def test_every_kernel_that_reads_what_is_joined(joined: str, used: str) -> None:
    shapes, build = JOINED[joined]
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-9, 9, shape).astype(np.float32) for shape in shapes]  # sums are exact in any order
    wanted = USED[used](np, build(np, *arrays))
    for is_open in (False, True):
        graph = tf.Graph()
        with graph.as_default():
            sizes = [tuple(f"n{i}{j}" for j in range(len(s))) if is_open else s for i, s in enumerate(shapes)]
            given = [tf.placeholder(tf.float32, size) for size in sizes]
            result = USED[used](tf, build(tf, *given))
        found = []
        for threads in (1, 3):
            with tf.Session(graph, threads=threads) as session:
                found.append(session.run(result, dict(zip(given, arrays, strict=True))))
        for one in found:
            np.testing.assert_array_equal(one, wanted)


def joined_columns(at: Axis, first: Dim, second: Dim) -> Scalar:
    """Element number `at` of a row that is two arrays of so many columns, as concatenation is lowered."""
    s = ScalarBuilder()
    place = s.dim(symbol(at.name))
    parts = []
    for name, begin, size in (("a", 0, first), ("b", first, second)):
        inside = s.max(s.min(s.sub(place, s.dim(begin)), s.sub(s.dim(size), 1)), 0)
        parts.append(ir.load(name, (inside,), float32))
    return s.select(s.compare("ge", place, s.dim(first)), parts[1], parts[0])


@pytest.mark.parametrize(("first", "second"), [(5, 7), (symbol("n"), symbol("m")), (symbol("n"), 4)])
def test_spans_read_where_elements_lie(first: Dim, second: Dim) -> None:
    axis = Axis("%j", first + second)
    found = spans([joined_columns(axis, first, second)], [axis])
    j = symbol("%j")
    assert [(span.begin, span.end) for span in found] == [(0, first), (first, first + second)]
    assert found[0].values == (ir.load("a", (j,), float32),)
    assert found[1].values == (ir.load("b", (j - first,), float32),)


def test_questions_in_every_form() -> None:
    """The answers of comparisons and their combinations are known within spans, whichever side the axis stands on."""
    s = ScalarBuilder()
    j = s.dim(symbol("%j"))
    for op in ("lt", "le", "gt", "ge"):
        for ask in (s.compare(op, j, 3), s.compare(op, s.sub(s.dim(7), j), 3), s.compare(op, s.add(j, j), 6)):
            answers = [const_at(ask, at) for at in range(9)]
            found = spans([ask], [Axis("%j", 9)])
            if ask.args[0].op == "add":
                assert not found  # two steps at once: not looked through
                continue
            assert [span.begin for span in found[1:]] == [found[0].end]
            for span in found:
                (value,) = span.values
                assert isinstance(span.begin, int) and isinstance(span.end, int)
                assert all(ir.const(answers[at], bool_) is value for at in range(span.begin, span.end))
    both = s.select(
        s.logical_and(s.compare("ge", j, 2), s.logical_not(s.compare("ge", j, 5))), 1.0, s.const(0, float32)
    )
    assert [(span.begin, span.end, span.values[0].attribute) for span in spans([both], [Axis("%j", 8)])] == [
        (0, 2, 0.0), (2, 5, 1.0), (5, 8, 0.0),
    ]  # fmt: skip


def const_at(ask: Scalar, at: int) -> bool:
    def number(node: Scalar) -> int:
        if node.op == "const":
            return int(node.attribute)  # type: ignore[call-overload, no-any-return]
        if node.op == "dim":
            return at
        x, y = map(number, node.args)
        return x - y if node.op == "sub" else x + y

    x, y = map(number, ask.args)
    return {"lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y}[ask.op]


def test_an_axis_stays_whole_where_its_parts_are_not_known_or_too_many() -> None:
    s = ScalarBuilder()
    j = s.dim(symbol("%j"))
    one, other = (s.select(s.compare("ge", j, s.dim(symbol(name))), 1.0, s.const(0, float32)) for name in "nm")
    assert not spans([s.add(one, other)], [Axis("%j", symbol("n") + symbol("m"))])  # n or m first?
    assert not spans([s.select(s.compare("ge", j, s.dim(symbol("%i"))), one, other)], [Axis("%j", 9)])
    value: Scalar = s.const(0, float32)
    for at in range(1, MOST_SPANS + 1):
        value = s.select(s.compare("ge", j, at), float(at), value)
    assert not spans([value], [Axis("%j", 100)])
    assert len(spans([value], [Axis("%j", MOST_SPANS)])) == MOST_SPANS
    assert not spans([s.add(j, 1)], [Axis("%j", 100)])


def test_parts_along_outer_axes_are_loops_of_their_own() -> None:
    def notes(build: Any, *shapes: tuple[int, ...]) -> list[str]:
        graph = tf.Graph()
        with graph.as_default():
            build(*(tf.placeholder(tf.float32, shape) for shape in shapes))
        return [note for _, code in plan_graph(graph).kernels.values() for note in code.schedule]

    rows = notes(lambda x, y: tf.concat([x, y], axis=0), (1000, 3), (50, 3))
    assert [note.split(",")[0] for note in rows] == ["pointwise over 3000", "pointwise over 150"]
    columns = notes(lambda x, y: tf.concat([x, y], axis=1), (1000, 30), (1000, 40))
    assert [note.split(",")[0] for note in columns] == ["pointwise over 1000 x 70"]
    assert len(notes(lambda x, y: tf.sum(tf.concat([x, y], axis=1), axis=0), (1000, 30), (1000, 40))) == 2
    assert len(notes(lambda x, y: tf.sum(tf.concat([x, y], axis=1), axis=1), (1000, 30), (1000, 40))) == 1
