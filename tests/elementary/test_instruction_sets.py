"""Elementary functions give the same bits on every instruction set: vectors of any width, with fused instructions or calls. tanh of
float32 has two expansions, which differ by one unit of the last place at most."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import compile_graph
from pierian.compiler.target.features import host
from pierian.runtime.executable import Executable

ONE = ["exp", "expm1", "log", "log1p", "log2", "sin", "cos", "tanh", "sigmoid", "erf", "softplus", "rsqrt"]


def _graph(dtype: str, size: int) -> tuple[tf.Graph, list[Any], list[Any]]:
    graph = tf.Graph()
    with graph.as_default():
        x, y = tf.placeholder(dtype, [size], name="x"), tf.placeholder(dtype, [size], name="y")
        outputs = [getattr(tf, name)(x) for name in ONE] + [tf.pow(tf.abs(x), y)]
    return graph, [x, y], outputs


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("isa", ["avx2", "sse2", "scalar", "neon", "riscv"])
def test_other_instruction_sets(isa: str, dtype: str, target_of: Any, runs_here: Any) -> None:
    rng = np.random.default_rng(7)
    largest = 88 if dtype == "float32" else 308
    sizes = np.concatenate([np.exp(rng.uniform(-largest, largest, 900)), rng.uniform(0, 12, 900)])
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e-42, -1e-42, 3e38, -3e38]
    x = np.concatenate([special, sizes * rng.choice([-1, 1], len(sizes))]).astype(dtype)
    y = np.concatenate([special, rng.uniform(-3, 3, len(sizes))]).astype(dtype)
    graph, inputs, outputs = _graph(dtype, len(x))
    compiled = compile_graph(graph, feeds=inputs, fetches=outputs, target=target_of(isa))
    if not runs_here(isa):
        return  # code for other machines is only made
    found = Executable(compiled.image, compiled.program, 1).run((x, y))
    assert found is not None
    own = compile_graph(graph, feeds=inputs, fetches=outputs)
    wanted = Executable(own.image, own.program, 1).run((x, y))
    assert wanted is not None
    for name, one, other in zip([*ONE, "pow"], found, wanted, strict=True):
        if name == "tanh" and dtype == "float32" and host().isa == "avx512":
            np.testing.assert_array_max_ulp(one, other, maxulp=1)
        else:
            np.testing.assert_array_equal(one, other, err_msg=name)
