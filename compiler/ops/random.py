"""Random numbers, computed from their position: Philox-4x32-10 keyed by seed and stream, counted by `state`.

The same seed, stream and state give the same numbers under any number of threads. Who draws repeatedly passes another
`state` each time (the front end keeps a counter).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, product
from pierian.compiler.dtype import DType, as_dtype, float32, float64, int32, int64
from pierian.compiler.elementary import philox
from pierian.compiler.errors import DTypeError
from pierian.compiler.graph.node import Node
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.ops.movement import sizes
from pierian.compiler.shape import TensorType


def _normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    if types[0] != TensorType(int64, ()):
        raise DTypeError("the state of a random stream is an int64 scalar", got=types[0])
    return {"shape": sizes(attributes["shape"]), "dtype": as_dtype(attributes["dtype"])}


def _flat_index(index: Any, shape: tuple[Dim, ...]) -> Any:
    flat: Any = 0
    for position, entry in enumerate(index):
        flat = (
            rules.index_add(rules.index_multiply(entry, product(shape[position + 1 :])), 0)
            if position == 0
            else (_sum(flat, rules.index_multiply(entry, product(shape[position + 1 :]))))
        )
    return flat


def _sum(x: Any, y: Any) -> Any:
    if isinstance(x, Scalar) or isinstance(y, Scalar):
        left = x if isinstance(x, Scalar) else ir.dim(x)
        right = y if isinstance(y, Scalar) else ir.dim(y)
        return ir.binary("add", left, right)
    return x + y


def _words(k: Any, node: Node, index: Any) -> philox.Words:
    """The four random words of the element at an index."""
    at = rules.index_value(k.s, _flat_index(index, node.output.shape))
    state = k.read(node.inputs[0], ())
    shift = ir.const(32, int64)
    counter = (
        ir.convert(at, int32), ir.convert(ir.binary("lshr", at, shift), int32),
        ir.convert(state, int32), ir.convert(ir.binary("lshr", state, shift), int32),
    )  # fmt: skip
    key = (ir.const(node.attributes["seed"], int32), ir.const(node.attributes["stream"], int32))
    return philox.philox4x32(counter, key)


def _reference_words(state: Any, shape: tuple[int, ...], seed: int, stream: int) -> list[Any]:
    """The same words in NumPy, as uint64 arrays below 2^32."""
    mask = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    at = np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.uint64)
    count = np.asarray(state).astype(np.uint64)
    a, b = at & mask, at >> shift
    x, y = np.full_like(at, count & mask), np.full_like(at, count >> shift)
    first, second = np.uint64(seed & 0xFFFFFFFF), np.uint64(stream & 0xFFFFFFFF)
    m, n = (np.uint64(one) for one in philox.MULTIPLIERS)
    for number in range(10):
        if number:
            first = np.uint64((int(first) + philox.WEYL[0]) & 0xFFFFFFFF)
            second = np.uint64((int(second) + philox.WEYL[1]) & 0xFFFFFFFF)
        p, q = m * a, n * x
        a, b, x, y = (q >> shift) ^ b ^ first, q & mask, (p >> shift) ^ y ^ second, p & mask
    return [words.reshape(shape) for words in (a, b, x, y)]


def _reference_uniform(words: list[Any], dtype: DType) -> Any:
    if dtype is float32:
        return (words[0] >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)
    joined = (words[0] << np.uint64(32)) | words[1]
    return (joined >> np.uint64(11)).astype(np.float64) * 2.0**-53


@operator(random=True, cost=60)
def random_uniform(
    state: Tensor,
    shape: Any,
    dtype: DType = float32,
    minval: float = 0,
    maxval: float = 1,
    seed: int = 0,
    stream: int = 0,
) -> Tensor:
    """Numbers drawn evenly from `minval` up to `maxval` (left out); integers for an integer type."""


random_uniform.normalize(_normalize)


@random_uniform.infer
def _uniform_infer(state: TensorType, shape: Any, dtype: DType, **_: Any) -> TensorType:
    return TensorType(dtype, shape)


random_uniform.gradient(lambda b, node, dz: (None,))


@random_uniform.reference
def _uniform_reference(state: Any, shape: Any, dtype: DType, minval: Any, maxval: Any, seed: int, stream: int) -> Any:
    words = _reference_words(state, shape, seed, stream)
    if dtype.is_float:
        unit = _reference_uniform(words, dtype)
        kind = dtype.numpy.type
        return (unit * kind(kind(maxval) - kind(minval)) + kind(minval)).astype(dtype.numpy)
    span = np.uint64(int(maxval) - int(minval))
    if dtype is int32:
        scaled = (words[0] * span) >> np.uint64(32)
    else:
        scaled = ((words[0] << np.uint64(31)) | (words[1] >> np.uint64(1))) % span
    return (scaled.astype(np.int64) + int(minval)).astype(dtype.numpy)


@random_uniform.lower
def _uniform_lower(k: Any, node: Node, index: Any) -> Scalar:
    words = _words(k, node, index)
    a = node.attributes
    dtype: DType = a["dtype"]
    s = k.s
    if dtype.is_float:
        low, high = ir.const(a["minval"], dtype), ir.const(a["maxval"], dtype)
        return s.add(s.mul(philox.uniform(words, dtype), s.sub(high, low)), low)
    span = int(a["maxval"]) - int(a["minval"])
    if dtype is int32:
        scaled = ir.scalar("mulhi_u32", int32, (words[0], ir.const(span, int32)))
        return s.add(scaled, int(a["minval"]))
    joined = ir.binary("lshr", philox.join(words[0], words[1]), ir.const(1, int64))
    remainder = s.sub(joined, s.mul(s.div(joined, span), span))
    return s.add(remainder, int(a["minval"]))


@operator(random=True, cost=160, ulp=None)
def random_normal(
    state: Tensor,
    shape: Any,
    dtype: DType = float32,
    mean: float = 0,
    stddev: float = 1,
    seed: int = 0,
    stream: int = 0,
) -> Tensor:
    """Normally distributed numbers (Box and Muller)."""


random_normal.normalize(_normalize)
random_normal.gradient(lambda b, node, dz: (None,))


@random_normal.infer
def _normal_infer(state: TensorType, shape: Any, dtype: DType, **_: Any) -> TensorType:
    if dtype not in (float32, float64):
        raise DTypeError("normal numbers are floats", got=dtype)
    return TensorType(dtype, shape)


@random_normal.reference
def _normal_reference(state: Any, shape: Any, dtype: DType, mean: float, stddev: float, seed: int, stream: int) -> Any:
    words = _reference_words(state, shape, seed, stream)
    unit = 1 - _reference_uniform(words, dtype)
    angle = _reference_uniform([words[2], words[3]], dtype) * dtype.numpy.type(2 * np.pi)
    drawn = np.sqrt(-2 * np.log(unit)) * np.cos(angle)
    return (drawn * dtype.numpy.type(stddev) + dtype.numpy.type(mean)).astype(dtype.numpy)


@random_normal.lower
def _normal_lower(k: Any, node: Node, index: Any) -> Scalar:
    a = node.attributes
    drawn = philox.normal(_words(k, node, index), a["dtype"])
    return k.s.add(k.s.mul(drawn, a["stddev"]), a["mean"])


random_uniform.samples = [
    ("i64[]", {"shape": (5, 7), "seed": 3, "stream": 9}), ("i64[]", {"shape": (33,), "dtype": "float64", "minval": -2.0}),
    ("i64[]", {"shape": (20,), "dtype": "int32", "minval": -5, "maxval": 250}),
    ("i64[]", {"shape": (20,), "dtype": "int64", "minval": 0, "maxval": 1000}),
]  # fmt: skip
random_normal.samples = [("i64[]", {"shape": (64,), "seed": 1}), ("i64[]", {"shape": (8, 3), "dtype": "float64"})]
