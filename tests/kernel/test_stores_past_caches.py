"""Results that go past the caches: in wide vectors of arrays somewhat larger than the last one only where a single call writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import compile_graph, plan_graph
from pierian.runtime.executable import Executable

ROWS, COLUMNS = 400, 64
BYTES = 2 * 4 * ROWS * COLUMNS  # what is read and written


def doubled(x: Any) -> Any:
    return x * 2.0


def normal(x: Any) -> Any:
    centred = x - tf.mean(x, axis=-1, keepdims=True)
    return centred * tf.rsqrt(tf.mean(centred * centred, axis=-1, keepdims=True) + 1e-3)


def totals(x: Any) -> Any:
    return tf.cumsum(x, axis=1)


@pytest.mark.parametrize("build", [doubled, normal, totals])
@pytest.mark.parametrize(
    ("isa", "thirds", "stores"),
    [
        ("avx512", 1.9, "plain"), ("avx512", 2.1, "by one call"), ("avx512", 3.9, "by one call"), ("avx512", 4.1, "always"),
        ("avx2", 1.9, "plain"), ("avx2", 2.1, "always"),
    ],
)  # fmt: skip
def test_which_stores(build: Any, isa: str, thirds: float, stores: str, target_of: Any, runs_here: Any) -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, [ROWS, COLUMNS], name="x")
        y = build(x)
    graph.set_outputs([y])
    target = target_of(isa, l1=4 << 10, l2=8 << 10, l3=int(3 * BYTES / thirds))
    (code,) = (code for _, code in plan_graph(graph, target=target).kernels.values())
    assert ("!nontemporal" in code.text) is (stores != "plain")
    # How many tasks there are is asked for only where one call may have all of them.
    asks = [line for line in code.text.splitlines() if "sub nsw i64 %end, %begin" in line]
    assert bool(asks) is (stores == "by one call")
    if not runs_here(isa):
        return
    compiled = compile_graph(graph, feeds=[x], fetches=[y], target=target)
    given = np.random.default_rng(2).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    one, *others = (Executable(compiled.image, compiled.program, threads).run((given,)) for threads in (1, 2, 3))
    assert one is not None and all(other is not None and np.array_equal(other[0], one[0]) for other in others)
    wide = given.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    wanted = {
        doubled: 2 * wide, normal: centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3), totals: wide.cumsum(1)
    }[build]  # fmt: skip
    np.testing.assert_allclose(one[0], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("first", "begins"), [(64, True), (8, True), (61, False), (3, False)])
def test_loops_that_begin_between_vectors_store_plainly(
    first: int, begins: bool, target_of: Any, runs_here: Any
) -> None:
    """Of rows that are cut in two, and of their softmax; stores past the caches have to lie at multiples of a vector."""
    rng = np.random.default_rng(3)
    parts = [rng.standard_normal((200, width)).astype(np.float32) for width in (first, 128 - first)]
    graph = tf.Graph()
    with graph.as_default():
        given = [tf.placeholder(tf.float32, part.shape) for part in parts]
        whole = tf.concat(given, axis=1)
        lowest = tf.min(whole, axis=1, keepdims=True)
        found = [whole * 2.0, whole - lowest]
    target = target_of("avx2", l1=4 << 10, l2=8 << 10, l3=32 << 10)
    for fetch, wanted in zip(found, (lambda x: x * 2, lambda x: x - x.min(1, keepdims=True)), strict=True):
        graph.set_outputs([fetch])
        (code,) = (code for _, code in plan_graph(graph, target=target).kernels.values())
        assert ("!nontemporal" in code.text) is (begins and fetch is found[0])  # the other one has more to do
        if not runs_here("avx2"):
            continue
        compiled = compile_graph(graph, feeds=given, fetches=[fetch], target=target)
        for threads in (1, 2):
            run = Executable(compiled.image, compiled.program, threads).run(tuple(parts))
            assert run is not None
            np.testing.assert_array_equal(run[0], wanted(np.concatenate(parts, 1)))
