"""Who packs what of a product, by how much of it the caches hold, and that it means the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import compile_graph, plan_graph
from pierian.runtime.executable import Executable

CACHES = {"avx512": {"l1": 48 << 10, "l2": 2 << 20}, "avx2": {"l1": 32 << 10, "l2": 512 << 10}}
# instruction set, rows, products, columns, whether lhs lies along its rows; what the note says of lhs and of rhs
CASES = [
    ("avx512", 32, 768, 3072, False, "lhs in place", "rhs packed panel by panel"),  # two tiles or more of few rows
    ("avx512", 12, 768, 3072, False, "lhs in place", "rhs in place"),  # one tile
    (
        "avx512",
        256,
        768,
        3072,
        False,
        "lhs in place",
        "rhs packed panel by panel",
    ),  # few enough rows to pack on the way
    ("avx512", 257, 768, 3072, False, "lhs in place", "rhs packed"),
    ("avx512", 512, 512, 512, False, "lhs in place", "rhs packed"),  # many rows
    ("avx512", 100, 64, 128, False, "lhs in place", "rhs in place"),  # rows that the first cache holds
    ("avx512", 1000, 256, 256, False, "lhs in place", "rhs packed"),  # rows that share its sets
    ("avx512", 128, 256, 256, False, "lhs in place", "rhs in place"),  # the same, but soon done
    ("avx512", 784, 128, 512, True, "lhs packed along m", "rhs packed"),
    ("avx512", 64, 256, 3136, True, "lhs in place", "rhs packed panel by panel"),
    # rows that share one set, passing by many panels
    ("avx2", 512, 1024, 512, False, "lhs packed along k", "rhs packed"),
    ("avx2", 512, 1000, 512, False, "lhs in place", "rhs packed"),  # rows in sets of their own
    ("avx2", 512, 1024, 64, False, "lhs in place", "rhs packed"),  # few panels
    ("avx2", 168, 1024, 512, False, "lhs in place", "rhs packed"),  # few rows
    ("avx2", 128, 1024, 512, False, "lhs in place", "rhs packed panel by panel"),
    ("avx2", 512, 300, 300, False, "lhs in place", "rhs packed"),  # rows of rhs that begin within cache lines
    ("avx2", 256, 300, 300, False, "lhs in place", "rhs packed panel by panel"),
    ("avx2", 200, 320, 320, False, "lhs in place", "rhs in place"),  # rows of whole lines
    ("avx2", 144, 512, 544, False, "lhs in place", "rhs packed panel by panel"),  # few rows
    ("avx2", 9, 320, 320, False, "lhs in place", "rhs packed panel by panel"),  # two tiles
    ("avx2", 8, 320, 320, False, "lhs in place", "rhs in place"),  # low ones
]


def product(m: int, k: int, n: int, along_m: bool) -> tuple[tf.Graph, list[Any], Any]:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder("float32", (k, m) if along_m else (m, k), name="x")
        y = tf.placeholder("float32", (k, n), name="y")
        result = tf.matmul(x, y, transpose_a=along_m)
    graph.set_outputs([result])
    return graph, [x, y], result


@pytest.mark.parametrize(("isa", "m", "k", "n", "along_m", "lhs", "rhs"), CASES)
def test_who_packs(target_of: Any, isa: str, m: int, k: int, n: int, along_m: bool, lhs: str, rhs: str) -> None:
    graph, _, _ = product(m, k, n, along_m)
    kernels = plan_graph(graph, target=target_of(isa, **CACHES[isa])).kernels.values()
    (note,) = [line for _, code in kernels for line in code.schedule]
    assert note.split(";")[0].endswith(f"{lhs}, {rhs}"), note


@pytest.mark.parametrize(("isa", "m", "k", "n", "along_m"), [case[:5] for case in CASES])
def test_the_same_results(target_of: Any, runs_here: Any, isa: str, m: int, k: int, n: int, along_m: bool) -> None:
    if not runs_here(isa):
        pytest.skip(f"this machine has no {isa}")
    graph, given, result = product(m, k, n, along_m)
    compiled = compile_graph(graph, feeds=given, fetches=[result], target=target_of(isa, **CACHES[isa]))
    rng = np.random.default_rng(m)
    x, y = (rng.standard_normal(value.shape).astype(np.float32) for value in given)
    results = []
    for threads in (1, 2, 3):
        found = Executable(compiled.image, compiled.program, threads).run((x, y))
        assert found is not None
        results.append(found[0])
    wanted = (x.T if along_m else x).astype(np.float64) @ y
    assert np.abs(results[0] - wanted).max() <= 2e-6 * np.sqrt(k) * np.abs(wanted).max()
    assert all(np.array_equal(one, results[0]) for one in results)


# shapes of both operands; full panels are packed by a tile, the others before
PACKED_ON_THE_WAY = [
    ((37, 700), (700, 333)),
    ((20, 300), (300, 33)),  # a full panel, then one of a column
    ((13, 250), (250, 48)),
    ((175, 500), (500, 100)),  # blocks of rows, the last one low
    ((3, 20, 300), (3, 300, 40)),
    ((5, 7, 300), (300, 64)),  # all rows of several points
    ((130, 1, 300), (300, 64)),
]


@pytest.mark.parametrize("isa", ["avx512", "avx2", "sse2", "scalar"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("is_open", [False, True])
def test_packed_on_the_way(target_of: Any, runs_here: Any, isa: str, dtype: str, is_open: bool) -> None:
    if not runs_here(isa):
        pytest.skip(f"this machine has no {isa}")
    rng = np.random.default_rng(5)
    for left, right in PACKED_ON_THE_WAY:
        graph = tf.Graph()
        with graph.as_default():
            rows = (*left[:-2], None, left[-1]) if is_open else left
            given = [tf.placeholder(dtype, rows, name="x"), tf.placeholder(dtype, right, name="y")]
            result = tf.nn.relu(tf.matmul(*given) + 1.0)
        x, y = (rng.standard_normal(shape).astype(dtype) for shape in (left, right))
        compiled = compile_graph(graph, feeds=given, fetches=[result], target=target_of(isa))
        found = [Executable(compiled.image, compiled.program, threads).run((x, y)) for threads in (1, 2, 3)]
        wanted = np.maximum(np.matmul(x.astype(np.float64), y) + 1, 0)
        bound = (2e-6 if dtype == "float32" else 4e-15) * np.sqrt(left[-1]) * wanted.max()
        assert found[0] is not None and np.abs(found[0][0] - wanted).max() <= bound
        assert all(one is not None and np.array_equal(one[0], found[0][0]) for one in found)
