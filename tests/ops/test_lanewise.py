"""Small products of many points, one in each lane: rows by tiny matrices, batches of tiny matrices, batches that lie last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.codegen.contraction.driver import emit_contraction
from pierian.compiler.compile import compile_graph
from pierian.compiler.frozen import replace
from pierian.compiler.kernel.program import launches
from pierian.compiler.target.features import Target
from pierian.runtime.executable import Executable

Shape = tuple[int, ...]
# Schedules are looked at for wide vectors, whatever machine runs the products: narrow ones are filled in other ways too.
WIDE = Target("x86_64-unknown-linux-gnu", "x86-64-v4", "", "avx512", 64, 32, True, True)


def batch_last(a: Any, b: Any) -> Any:
    turned = (tf.permute_dims(one, (2, 0, 1)) for one in (a, b))
    return tf.permute_dims(tf.matmul(*turned), (1, 2, 0))


def einsum_last(a: Any, b: Any) -> Any:
    return np.einsum("ijb,jkb->ikb", a, b)


def whole_numbers(shape: Shape, dtype: str) -> Any:
    return np.random.default_rng(sum(shape)).integers(-4, 5, shape).astype(dtype)


@dataclass
class Case:
    """A program, the same in NumPy, the shapes it is run for, and the axes (input, axis) whose sizes are open."""

    build: Callable[..., Any]
    wanted: Callable[..., Any]
    shapes: list[Shape]
    open_: Sequence[tuple[int, int]] = ()


def check(cases: Sequence[Case], dtype: str) -> list[str]:
    """All in one graph are equal to what is wanted for any number of threads; the schedules of their products."""
    graph = tf.Graph()
    feeds: dict[Any, Any] = {}
    fetches, right = [], []
    with graph.as_default():
        for number, case in enumerate(cases):
            arrays = [whole_numbers(shape, dtype) for shape in case.shapes]
            inputs = []
            for i, shape in enumerate(case.shapes):
                sizes = [None if (i, at) in case.open_ else size for at, size in enumerate(shape)]
                inputs.append(tf.placeholder(dtype, sizes, name=f"x{number}_{i}"))
            feeds.update(zip(inputs, arrays, strict=True))
            found, wanted = case.build(*inputs), case.wanted(*arrays)
            fetches += found if isinstance(found, list) else [found]
            right += wanted if isinstance(wanted, list) else [wanted]
    for threads in (1, 3):
        with tf.Session(graph, threads=threads) as session:
            for one, other in zip(session.run(fetches, feeds), right, strict=True):
                np.testing.assert_array_equal(one, other)
    program = compile_graph(graph, feeds=list(feeds), fetches=fetches).program
    kernels = [one.kernel for one in launches(program.steps) if one.kernel.kind == "contraction"]
    return [note for kernel in kernels for note in emit_contraction(kernel, "k", WIDE).schedule]


def matmuls(*shapes: tuple[Shape, Shape]) -> list[Case]:
    return [Case(tf.matmul, np.matmul, list(pair)) for pair in shapes]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_rows_by_a_tiny_matrix(dtype: str) -> None:
    fixed = matmuls(
        ((1000, 3), (3, 3)), ((512, 4), (4, 4)), ((301, 2), (2, 5)), ((640, 10), (10, 10)), ((777, 16), (16, 1)), ((999, 3), (3,))
    )  # fmt: skip
    assert all("in each of" in note for note in check(fixed, dtype))
    # With work on the operands and on the results, several of them; any number of rows; products that are sums of one.
    more = Case(
        lambda a, b, c, d: [tf.matmul(a * 2, b * 3) + c, tf.matmul(a, b) * d],
        lambda a, b, c, d: [(2 * a) @ (3 * b) + c, (a @ b) * d], [(1003, 3), (3, 4), (4,), (1003, 4)],
    )  # fmt: skip
    opened = [replace(one, open_=[(0, 0)]) for one in matmuls(((1000, 3), (3, 3)), ((5, 3), (3, 3)), ((0, 4), (4, 4)))]
    check([more, *opened, *matmuls(((300, 1), (1, 3)), ((300, 0), (0, 3)))], dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batches_of_tiny_matrices(dtype: str) -> None:
    plain = matmuls(
        ((333, 3, 3), (333, 3, 3)), ((333, 4, 4), (333, 4, 4)), ((333, 2, 3), (333, 3, 4)), ((333, 3, 3), (333, 3, 1)),
        ((333, 16, 16), (333, 16, 1)),
    )  # fmt: skip
    turned = Case(
        lambda a, b: tf.matmul(a, b, transpose_b=True), lambda a, b: a @ b.swapaxes(1, 2), [(333, 2, 3), (333, 4, 3)]
    )
    notes = check([*plain, turned, replace(plain[0], open_=[(0, 0), (1, 0)])], dtype)
    assert all("in each of" in note for note in notes)
    check(matmuls(((7, 1, 3, 3), (1, 90, 3, 2)), ((3, 3), (90, 3, 4)), ((333, 1, 4), (333, 4, 4))), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_batch_that_lies_last(dtype: str) -> None:
    sizes = [(4, 4, 4, 500), (3, 5, 7, 77), (9, 300, 5, 33), (1, 3, 16, 100), (5, 1, 4, 40)]
    cases = [Case(batch_last, einsum_last, [(m, k, b), (k, n, b)]) for m, k, n, b in sizes]
    cases.append(replace(cases[1], open_=[(0, 2), (1, 2)]))
    cases.append(Case(lambda a, b: batch_last(a, b) + 1, lambda a, b: einsum_last(a, b) + 1, cases[0].shapes))
    assert all("in each of" in note for note in check(cases, dtype))
    check([replace(cases[2], open_=[(i, at) for i in (0, 1) for at in (0, 1, 2)])], dtype)


def test_views_of_the_rows() -> None:
    """Parts of rows leave gaps, and the last row may end where memory does."""
    views = [np.s_[:, 3:6], np.s_[::2, :3], np.s_[5:, :3], np.s_[:, :5:2], np.s_[:, 2::-1], np.s_[::-1, :3]]
    cases = []
    for view in views:
        for columns in (10, 3) if view[1] in (np.s_[:3], np.s_[2::-1]) else (10,):
            shapes: list[Shape] = [(501, columns), (3, 3)]
            cases.append(Case(lambda a, b, v=view: tf.matmul(a[v], b), lambda a, b, v=view: a[v] @ b, shapes))
    check(cases, "float32")


@pytest.mark.parametrize("isa", ["avx2", "sse2", "scalar", "neon"])
def test_other_instruction_sets(isa: str, target_of: Any, runs_here: Any) -> None:
    shapes: list[tuple[Any, Any, Shape, Shape]] = [
        (tf.matmul, np.matmul, (301, 3), (3, 3)), (tf.matmul, np.matmul, (301, 4, 4), (301, 4, 4)),
        (batch_last, einsum_last, (4, 3, 70), (3, 5, 70)),
    ]  # fmt: skip
    for build, wanted, left, right in shapes:
        for dtype in ("float32", "float64"):
            a, b = whole_numbers(left, dtype), whole_numbers(right, dtype)
            graph = tf.Graph()
            with graph.as_default():
                x, y = tf.placeholder(dtype, left, name="a"), tf.placeholder(dtype, right, name="b")
                z = build(x, y)
            compiled = compile_graph(graph, feeds=[x, y], fetches=[z], target=target_of(isa))
            if runs_here(isa):
                found = Executable(compiled.image, compiled.program, 1).run((a, b))
                assert found is not None
                np.testing.assert_array_equal(found[0], wanted(a, b))
