"""Rows of every width: whole vectors in flight, whole ones left over, and what is left of the last one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import compile_graph
from pierian.runtime.executable import Executable


def centred(m: Any, x: Any, w: Any) -> tuple[Any, ...]:
    """Passes that reduce, store and both, over exact values; a fused store in a row's pass; positions beside sums."""
    total = m.sum(x, axis=1, keepdims=True)
    largest = m.max(x * w, axis=1, keepdims=True)
    return x * w + 1, (x - largest) * total, m.argmin(x, axis=1), m.sum(x * w, axis=1)


@pytest.mark.parametrize("isa", ["avx512", "avx2", "sse2", "neon"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_every_width(dtype: str, isa: str, target_of: Any, runs_here: Any) -> None:
    rng = np.random.default_rng(0)
    for width in [*range(1, 71, 3), 77, 100, 127, 130, 500]:
        x, w = (rng.integers(-5, 6, shape).astype(dtype) for shape in ((7, width), (width,)))
        graph = tf.Graph()
        with graph.as_default():
            given = [tf.placeholder(dtype, array.shape) for array in (x, w)]
            found = centred(tf, *given)
        made = compile_graph(graph, feeds=given, fetches=list(found), target=target_of(isa))
        if not runs_here(isa):
            return  # one is enough to see that such code is made
        run = Executable(made.image, made.program, 1).run((x, w))
        assert run is not None
        for ours, wanted in zip(run, centred(np, x, w), strict=True):
            np.testing.assert_array_equal(ours, wanted, err_msg=f"{width} columns")
