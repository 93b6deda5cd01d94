"""Elementary functions give the same bits on every instruction set: vectors of any width, with fused instructions or calls. tanh of
float32 has two expansions, which differ by one unit of the last place at most."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import compile_graph
from pierian.compiler.elementary import INLINED
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


@pytest.mark.parametrize("names", [ONE[: INLINED + 1], [*ONE[-INLINED - 1 :], "pow"]], ids=["first", "last"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 7, 16, 100, 1003])
def test_called_functions_give_the_bits_of_those_in_place(size: int, dtype: str, names: list[str]) -> None:
    rng = np.random.default_rng(3)
    x, y = (rng.uniform(0.1, 3, size).astype(dtype) for _ in range(2))
    graph, inputs, outputs = _graph(dtype, size)
    chosen = [output for name, output in zip([*ONE, "pow"], outputs, strict=True) if name in names]
    with graph.as_default():
        total = functools.reduce(operator.add, chosen)
    calling = compile_graph(graph, feeds=inputs, fetches=[total])
    assert len(calling.program.steps) == 1
    found = Executable(calling.image, calling.program, 1).run((x, y))
    apart = compile_graph(graph, feeds=inputs, fetches=chosen)
    assert len(apart.program.steps) == len(chosen)
    in_place = Executable(apart.image, apart.program, 1).run((x, y))
    assert found is not None and in_place is not None
    np.testing.assert_array_equal(found[0], functools.reduce(np.add, in_place))
