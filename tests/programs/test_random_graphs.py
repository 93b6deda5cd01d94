"""Random graphs of everyday operators, on caches so small that what is written for large arrays takes part: native results are those
of the reference, and the same to the bit with one thread and three."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler import reference
from pierian.compiler.compile import compile_graph
from pierian.compiler.dim import evaluate
from pierian.compiler.errors import PierianError
from pierian.runtime.executable import Executable

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 33, 40, 64, 100)
MOST_ELEMENTS, MOST_INSIDE = 30_000, 120_000
UNARY = ("tanh", "sin", "abs", "sigmoid", "square", "negative", "erf", "exp")
BINARY = ("add", "subtract", "multiply", "maximum", "minimum")
REDUCTIONS = ("sum", "mean", "max", "min", "var", "std")


class Program:
    """Grows a graph operator by operator. Some sizes are open; `shape` says what they are in this run."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.sizes: dict[str, int] = {}
        self.graph = tf.Graph("random")
        is_open = rng.random() < 0.5
        dtype = rng.choice([np.float32, np.float32, np.float64])
        self.feeds: list[Any] = []
        with self.graph.as_default():
            for i in range(rng.randint(1, 2)):
                shape = self._shape(rng.randint(1, 4))
                self.feeds.append(np.random.default_rng(seed + i).standard_normal(shape).astype(dtype))
                dims = [self._open(size) if is_open and size > 1 and rng.random() < 0.5 else size for size in shape]
                tf.placeholder(dtype, dims, name=f"x{i}")
            self.values = list(self.graph.inputs)
            for _ in range(rng.randint(1, 7)):
                self._grow()
            outputs = [self.values[-1], rng.choice(self.values)]
            if rng.random() < 0.5:
                given = [x for x in self.graph.inputs if self._reaches(x)]
                loss = tf.mean(tf.sin(tf.tanh(self.values[-1]))) * 10.0
                outputs += tf.gradients(loss, given) if given else []
            self.graph.set_outputs(outputs, [f"y{i}" for i in range(len(outputs))])

    def shape(self, value: Any) -> tuple[int, ...]:
        return tuple(int(evaluate(size, self.sizes)) for size in value.shape)

    def _shape(self, rank: int) -> tuple[int, ...]:
        while True:
            shape = tuple(self.rng.choice(SIZES) for _ in range(rank))
            if np.prod(shape) <= MOST_ELEMENTS:
                return shape

    def _open(self, size: int) -> str:
        self.sizes[f"s{size}"] = size
        return f"s{size}"

    def _reaches(self, x: Any) -> bool:
        """Whether the last value has a gradient along a path from `x`."""
        found, pending = set(), [self.values[-1]]
        while pending:
            value = pending.pop()
            if value is x:
                return True
            if value not in found and value.dtype.is_float and value.node.op.differentiable:
                found.add(value)
                pending += [one for one in value.node.inputs if one.dtype.is_float]
        return False

    def _grow(self) -> None:
        """One operator more; none where sizes that are open in a graph do not let it."""
        x = self.rng.choice(self.values[-3:])
        operators = ANY if x.type.rank == 0 else [*ANY, *RANKED]
        try:
            value = self.rng.choice(operators)(self, x)
            shape = self.shape(value)
        except PierianError:
            return
        if len(shape) <= 5 and 0 < np.prod(shape) <= MOST_INSIDE:
            self.values.append(value)

    def axes(self, x: Any) -> tuple[int, ...]:
        return tuple(sorted(self.rng.sample(range(x.type.rank), self.rng.randint(1, x.type.rank))))

    def axis(self, x: Any) -> int:
        return self.rng.randrange(x.type.rank)

    def array(self, x: Any, *shape: int) -> Any:
        """A constant to multiply with, so that sums of as many products as its rows have stay near one."""
        values = np.random.default_rng(self.rng.randrange(1 << 20)).standard_normal(shape)
        return tf.constant((values / np.sqrt(np.prod(shape[:-1]))).astype(x.dtype.numpy))


def unary(p: Program, x: Any) -> Any:
    return getattr(tf, p.rng.choice(UNARY))(tf.tanh(x))


def binary(p: Program, x: Any) -> Any:
    y = p.rng.choice(p.values)
    try:
        if np.prod(np.broadcast_shapes(p.shape(x), p.shape(y))) > MOST_INSIDE:
            return x * 2.0
    except ValueError:
        y = tf.mean(y)
    return getattr(tf, p.rng.choice(BINARY))(x, y)


def reduced(p: Program, x: Any) -> Any:
    return getattr(tf, p.rng.choice(REDUCTIONS))(x + tf.sin(x), axis=p.axes(x), keepdims=p.rng.random() < 0.5)


def normal(p: Program, x: Any) -> Any:
    axes = p.axes(x)
    centred = x - tf.mean(x, axis=axes, keepdims=True)
    return centred * tf.rsqrt(tf.mean(tf.square(centred), axis=axes, keepdims=True) + 1e-2)


def softmax(p: Program, x: Any) -> Any:
    return getattr(tf, p.rng.choice(["softmax", "log_softmax"]))(x, axis=p.axis(x))


def cumulative(p: Program, x: Any) -> Any:
    axis = p.axis(x)
    how = {"exclusive": p.rng.random() < 0.3, "reverse": p.rng.random() < 0.4}
    return tf.cumsum(x, axis=axis, **how) / float(p.shape(x)[axis])


def along_an_axis(p: Program, x: Any) -> Any:
    axis = p.axis(x)
    return x + tf.expand_dims(tf.mean(x, axis=axis), axis)


def permuted(p: Program, x: Any) -> Any:
    return tf.permute_dims(x, p.rng.sample(range(x.type.rank), x.type.rank))


def sliced(p: Program, x: Any) -> Any:
    def cut(size: int) -> slice:
        first = p.rng.randrange(size)
        some = slice(first, p.rng.randint(first + 1, size), p.rng.choice([1, 1, 1, 2, 3]))
        return p.rng.choice([some, some, slice(None), slice(None, None, -1)])

    return x[tuple(cut(size) for size in p.shape(x))]


def padded(p: Program, x: Any) -> Any:
    before, after = ([p.rng.choice([0, 0, 1, 2]) for _ in x.shape] for _ in range(2))
    return tf.pad(x, before, after, value=0.5)


def joined(p: Program, x: Any) -> Any:
    parts = p.rng.choice([[x, tf.tanh(x)], [x, x * 2.0, x]])
    return tf.concat(parts, axis=p.axis(x)) if p.rng.random() < 0.5 else tf.stack(parts, axis=p.axis(x))


def reshaped(p: Program, x: Any) -> Any:
    if p.rng.random() < 0.3:
        return tf.reshape(x, [-1])
    return tf.expand_dims(x, p.rng.randint(0, x.type.rank))


def gathered(p: Program, x: Any) -> Any:
    axis = p.axis(x)
    picked = [p.rng.randrange(p.shape(x)[axis]) for _ in range(p.rng.randint(1, 40))]
    return tf.gather(x, tf.constant(np.array(picked)), axis=axis)


def flipped(p: Program, x: Any) -> Any:
    return tf.flip(x, p.axis(x))


def chosen(p: Program, x: Any) -> Any:
    return tf.maximum(x, x * 0.5) if p.rng.random() < 0.5 else tf.relu(x)


def times_constant(p: Program, x: Any) -> Any:
    depth = p.shape(x)[-1]
    return tf.matmul(x if x.type.rank > 1 else tf.expand_dims(x, 0), p.array(x, depth, p.rng.choice(SIZES)))


def times_itself(p: Program, x: Any) -> Any:
    """A product with open sizes on both sides, any of them transposed; or attention."""
    shape = p.shape(x)
    if len(shape) < 2 or max(shape[-2:]) ** 2 * np.prod(shape[:-2]) > MOST_INSIDE:
        return tf.softplus(x)
    if p.rng.random() < 0.4:
        return tf.matmul(tf.softmax(tf.matmul(tf.tanh(x), x, transpose_b=True) * 0.1), x)
    first = p.rng.random() < 0.5
    return tf.matmul(x, tf.tanh(x), transpose_a=first, transpose_b=not first) * 0.1


def windows(p: Program, x: Any) -> Any:
    shape, padding, step = p.shape(x), p.rng.choice(["SAME", "VALID"]), p.rng.choice([1, 2])
    if len(shape) != 4 or min(shape[1:3]) < 3:
        return x - 1.0
    if p.rng.random() < 0.5:
        return getattr(tf.nn, p.rng.choice(["max_pool", "avg_pool"]))(x, p.rng.choice([2, 3]), step, padding)
    size = p.rng.choice([1, 3])
    return tf.nn.conv2d(x, p.array(x, size, size, shape[3], p.rng.choice([1, 3, 8, 17])), step, padding)


Operator = Callable[[Program, Any], Any]
ANY: list[Operator] = [unary, binary, chosen]
RANKED: list[Operator] = [
    reduced, normal, softmax, cumulative, along_an_axis, permuted, sliced, padded, joined, reshaped, gathered, flipped,
    times_constant, times_itself, windows,
]  # fmt: skip


def check(seed: int, target_of: Any, runs_here: Any) -> None:
    program = Program(seed)
    graph, feeds = program.graph, program.feeds
    wanted = reference.run(graph, dict(zip(graph.inputs, feeds, strict=True)), graph.outputs)
    isa = program.rng.choice([one for one in ("avx512", "avx2", "sse2", "scalar") if runs_here(one)] or ["scalar"])
    l2 = program.rng.choice([1 << 10, 4 << 10, 16 << 10, 1 << 20])
    target = target_of(isa, l1=min(l2, program.rng.choice([512, 2048, 32768])), l2=l2, l3=4 * l2)
    compiled = compile_graph(graph, feeds=graph.inputs, fetches=graph.outputs, target=target)
    one, three = (Executable(compiled.image, compiled.program, threads).run(tuple(feeds)) for threads in (1, 3))
    assert one is not None and three is not None
    for found, again, right in zip(one, three, wanted, strict=True):
        assert found.tobytes() == again.tobytes()
        loose = 2e-3 if right.dtype == np.float32 else 1e-10
        np.testing.assert_allclose(found, right, rtol=loose, atol=loose)


@pytest.mark.parametrize("first", range(0, 150, 10))
def test_random_graphs(first: int, target_of: Any, runs_here: Any) -> None:
    for seed in range(first, first + 10):
        check(seed, target_of, runs_here)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 2200, 50))
def test_many_random_graphs(first: int, target_of: Any, runs_here: Any) -> None:
    for seed in range(first, first + 50):
        check(seed, target_of, runs_here)
