"""Products of few rows that read their right operand where it lies, once, in the order of memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import compile_graph, plan_graph
from pierian.compiler.target.features import Target
from pierian.runtime.executable import Executable

# A second cache so small that no right operand of these tests lies in it, and a first one that holds short stripes only.
SMALL = {"l1": 4 << 10, "l2": 8 << 10}
# And a third one that none lies in either: short rows of it are read far apart.
FAR = SMALL | {"l3": 8 << 10}


def product(left: tuple[Any, ...], right: tuple[Any, ...], dtype: str = "float32") -> tuple[Any, list[Any], list[Any]]:
    """A product, and one with work before and after it."""
    graph = tf.Graph()
    with graph.as_default():
        x, y = tf.placeholder(dtype, left, name="x"), tf.placeholder(dtype, right, name="y")
        results = [tf.matmul(x, y), tf.matmul(x * tf.constant(2, dtype), y) + tf.constant(1, dtype)]
    graph.set_outputs(results)
    return graph, [x, y], results


def is_streamed(left: tuple[Any, ...], right: tuple[Any, ...], target: Target) -> bool:
    graph, _, _ = product(left, right)
    notes = [note for _, code in plan_graph(graph, target=target).kernels.values() for note in code.schedule]
    found = {"rows of rhs" in note for note in notes if note.startswith("contraction")}
    assert len(found) == 1
    return found.pop()


def run(left: Any, right: Any, target: Target, threads: int) -> list[Any]:
    graph, feeds, results = product(left.shape, right.shape, str(left.dtype))
    compiled = compile_graph(graph, feeds=feeds, fetches=results, target=target)
    found = Executable(compiled.image, compiled.program, threads).run((left, right))
    assert found is not None
    return list(found)


def test_which_products(target_of: Any) -> None:
    narrow, wide = (target_of(isa, **SMALL) for isa in ("avx2", "avx512"))
    for rows in range(1, 10):
        assert is_streamed((rows, 300), (300, 700), narrow) is (rows <= 8)
        assert is_streamed((rows, 300), (300, 700), wide) is (rows <= 8)
    assert not is_streamed((8, 300), (300, 700), target_of("avx2")), "the second cache holds it"
    assert not is_streamed((8, 3000), (3000, 40), narrow), "sums of short rows stay in registers"


def test_which_rows_are_read_far_apart(target_of: Any) -> None:
    def far_apart(columns: int, caches: dict[str, int]) -> bool:
        graph, _, _ = product((2, 300), (300, columns))
        kernels = plan_graph(graph, target=target_of("avx2", **caches)).kernels.values()
        return any("rows of rhs far apart" in note for _, code in kernels for note in code.schedule)

    assert far_apart(700, FAR) and not far_apart(700, SMALL), "the third cache holds them"
    assert far_apart(3000, FAR) and not far_apart(9000, FAR), "rows are long"


@pytest.mark.parametrize("caches", [SMALL, FAR])
@pytest.mark.parametrize("isa", ["avx2", "sse2", "neon"])
@pytest.mark.parametrize("rows", range(1, 9))
def test_values(rows: int, isa: str, caches: dict[str, int], target_of: Any, runs_here: Any) -> None:
    """Whole numbers are exact: depths that are no multiple of the rows read side by side, columns none of a vector or a stripe."""
    target = target_of(isa, **caches)
    if not runs_here(isa):
        assert is_streamed((rows, 301), (301, 700), target)
        return
    rng = np.random.default_rng(rows)
    for lead, depth, columns in (((), 301, 700), ((), 3, 1025), ((2, 3), 50, 128), ((), 1030, 257)):
        for dtype in ("float32", "float64", "int32"):
            left = rng.integers(-4, 5, (*lead, rows, depth)).astype(dtype)
            right = rng.integers(-4, 5, (*lead[1:], depth, columns)).astype(dtype)
            for threads in (1, 2, 3):
                found = run(left, right, target, threads)
                np.testing.assert_array_equal(found[0], left @ right)
                np.testing.assert_array_equal(found[1], 2 * left @ right + 1)


@pytest.mark.parametrize("rows", [1, 5, 8])
def test_bits_of_any_number_of_threads(rows: int, target_of: Any) -> None:
    rng = np.random.default_rng(rows)
    left, right = rng.standard_normal((rows, 900), dtype=np.float32), rng.standard_normal((900, 1300), dtype=np.float32)
    found = [run(left, right, target_of("avx2", **SMALL), threads) for threads in (1, 2, 3, 8)]
    assert len({(one.tobytes(), other.tobytes()) for one, other in found}) == 1
    exact = left.astype(np.float64) @ right
    ours, others = (np.sqrt(np.mean((one - exact) ** 2)) for one in (found[0][0], left @ right))
    assert ours <= 1.1 * others, (ours, others)
