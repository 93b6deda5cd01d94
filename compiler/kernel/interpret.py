"""Running kernels and programs point by point in Python: what the loop IR means, and the oracle for its code generation.

No Session ever does this. Reductions combine in the order of their axes, so floats agree with native code to rounding only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, Symbolic, evaluate
from pierian.compiler.dtype import DType
from pierian.compiler.errors import LoweringError
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.nodes import Axis, Kernel, Product, Reduce, Scan
from pierian.compiler.kernel.program import Branch, Copy, Launch, Program, Step
from pierian.compiler.kernel.scalar import Index, Scalar, load_parts

Array = np.ndarray[Any, Any]

_UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": np.negative, "abs": np.abs, "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc,
    "round": np.rint, "not": np.invert, "exp": np.exp, "decay": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log,
    "log1p": np.log1p, "log2": np.log2, "sin": np.sin, "cos": np.cos, "sin_huge": np.sin,
    "cos_huge": np.cos, "tanh": np.tanh, "erf": math.erf,
    "softplus": lambda x: np.logaddexp(x, x.dtype.type(0)), "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "rsqrt": lambda x: 1 / np.sqrt(x),
}  # fmt: skip
_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and,
    "or": np.bitwise_or, "xor": np.bitwise_xor, "pow": np.power, "eq": np.equal, "ne": np.not_equal, "lt": np.less,
    "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip
_COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum, "any": np.logical_or, "all": np.logical_and,
}  # fmt: skip


def interpret_program(program: Program, inputs: Sequence[Array]) -> list[Array]:
    """The outputs of a program for its inputs, each buffer an array of its own."""
    sizes: dict[str, int] = {}
    for name, array in zip(program.inputs, inputs, strict=True):
        for dim, size in zip(program.buffers[name].shape, array.shape, strict=True):
            if isinstance(dim, Symbolic) and str(dim) in program.dims:
                sizes.setdefault(str(dim), size)
    with np.errstate(all="ignore"):
        run = _Run(program, sizes, dict(zip(program.inputs, inputs, strict=True)))
        run.steps(program.steps)
        return [run.array(name) for name in program.outputs]


class _Run:
    """The arrays of one run of a program."""

    def __init__(self, program: Program, sizes: dict[str, int], inputs: Mapping[str, Array]) -> None:
        self.program = program
        self.sizes = sizes
        self.arrays = {name: np.array(array) for name, array in inputs.items()}

    def array(self, name: str) -> Array:
        """A buffer; an alias is a view that moves with the loop counters."""
        buffer = self.program.buffers[name]
        shape = tuple(evaluate(dim, self.sizes) for dim in buffer.shape)
        if buffer.kind == "alias":
            start = evaluate(buffer.start, self.sizes)
            flat = self.array(buffer.base).reshape(-1)
            return flat[start : start + math.prod(shape)].reshape(shape)
        if name not in self.arrays:
            given = buffer.data
            self.arrays[name] = (
                np.zeros(shape, buffer.dtype.numpy)
                if given is None
                else np.array(given, dtype=buffer.dtype.numpy).reshape(shape)
            )
        return self.arrays[name]

    def steps(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, Launch):
                dims = [evaluate(dim, self.sizes) for dim in step.dims]
                interpret(step.kernel, [self.array(name) for name in step.buffers], dims)
            elif isinstance(step, Copy):
                target = self.array(step.target)
                target[...] = self.array(step.source).reshape(target.shape)
            elif isinstance(step, Branch):
                self.steps(step.then if bool(self.array(step.condition).reshape(-1)[0]) else step.otherwise)
            else:
                for turn in itertools.count():
                    self.sizes[step.counter] = turn
                    if step.count is not None and turn >= evaluate(step.count, self.sizes):
                        break
                    self.steps(step.header)
                    if step.condition and not bool(self.array(step.condition).reshape(-1)[0]):
                        break
                    self.steps(step.steps)


def interpret(kernel: Kernel, buffers: Sequence[Array], dims: Sequence[int]) -> None:
    """Run a kernel on arrays given in the order of its parameters; outputs are written in place.

    Raises:
        LoweringError: an access outside its buffer.
    """
    arrays = {buffer.name: array for buffer, array in zip(kernel.buffers, buffers, strict=True)}
    sizes = dict(zip(kernel.dims, dims, strict=True))
    for buffer in kernel.local:  # every point writes them before it reads them
        arrays[buffer.name] = np.zeros([evaluate(dim, sizes) for dim in buffer.shape], buffer.dtype.numpy)
    for outer in _points(kernel.axes, sizes):
        reduced: dict[str, Any] = {}
        for statement in kernel.body:
            if isinstance(statement, Reduce):
                reduced[statement.name] = _reduce(statement, arrays, outer, reduced)
                continue
            if isinstance(statement, Scan):
                _scan(statement, arrays, outer, reduced)
                continue
            for point in _points(statement.axes, outer):
                values = _Point(arrays, point, reduced)
                index = values.place(statement.buffer, statement.indices)
                if isinstance(statement, Product):
                    total = Reduce("", "sum", statement.over, statement.value)
                    arrays[statement.buffer][index] = _reduce(total, arrays, point, reduced)
                else:
                    arrays[statement.buffer][index] = values.of(statement.value)


def _points(axes: Sequence[Axis], sizes: Mapping[str, int]) -> Iterator[dict[str, int]]:
    ranges = [range(evaluate(axis.extent, dict(sizes))) for axis in axes]
    for numbers in itertools.product(*ranges):
        yield {**sizes, **{axis.name: number for axis, number in zip(axes, numbers, strict=True)}}


def _reduce(reduce: Reduce, arrays: dict[str, Array], outer: dict[str, int], reduced: dict[str, Any]) -> Any:
    kind = reduce.value.dtype.numpy
    values = [_Point(arrays, point, reduced).of(reduce.value) for point in _points(reduce.axes, outer)]
    if reduce.combiner.startswith("arg"):
        return np.int64(getattr(np, reduce.combiner)(np.array(values, kind)))
    total = _neutral(reduce.combiner, reduce.value.dtype)
    for value in values:
        total = kind.type(_COMBINE[reduce.combiner](total, value))
    return total


def _scan(scan: Scan, arrays: dict[str, Array], outer: dict[str, int], reduced: dict[str, Any]) -> None:
    kind = scan.value.dtype.numpy.type
    total = _neutral(scan.combiner, scan.value.dtype)
    for point in _points(scan.axes, outer):
        values = _Point(arrays, point, reduced)
        following = kind(_COMBINE[scan.combiner](total, values.of(scan.value)))
        arrays[scan.buffer][values.place(scan.buffer, scan.indices)] = total if scan.exclusive else following
        total = following


def _neutral(combiner: str, dtype: DType) -> Any:
    kind = dtype.numpy.type
    if combiner in ("max", "min"):
        sign = -1 if combiner == "max" else 1
        if dtype.is_float:
            return kind(sign * math.inf)
        if dtype.is_bool:
            return kind(combiner == "min")
        limits = np.iinfo(dtype.numpy)
        return kind(limits.min if combiner == "max" else limits.max)
    return kind(1 if combiner in ("prod", "all") else 0)


class _Point:
    """Values of expressions at one point."""

    def __init__(self, arrays: dict[str, Array], sizes: dict[str, int], reduced: dict[str, Any]) -> None:
        self.arrays = arrays
        self.sizes = sizes
        self.reduced = reduced
        self.known: dict[Scalar, Any] = {}

    def of(self, root: Scalar) -> Any:
        for node in ir.postorder([root]):
            if node not in self.known:
                self.known[node] = node.dtype.numpy.type(self._one(node))
        return self.known[root]

    def place(self, buffer: str, indices: Sequence[Index]) -> tuple[int, ...]:
        found = tuple(int(self.of(i)) if isinstance(i, Scalar) else self._dim(i) for i in indices)
        shape = self.arrays[buffer].shape
        if not all(0 <= one < size for one, size in zip(found, shape, strict=True)):
            raise LoweringError("a kernel reaches outside a buffer", where=buffer, got=found, expected=shape)
        return found

    def _dim(self, expression: Dim) -> int:
        return evaluate(expression, self.sizes)

    def _one(self, node: Scalar) -> Any:
        op = node.op
        if op == "const":
            return node.attribute
        if op == "dim":
            assert isinstance(node.attribute, Symbolic)
            return self._dim(node.attribute)
        if op == "load":
            name, indices = load_parts(node)
            return self.arrays[name][self.place(name, indices)]
        if op == "reduced":
            return self.reduced[str(node.attribute)]
        args = [self.known[arg] for arg in node.args]
        if op in _UNARY:
            return _UNARY[op](args[0])
        if op in _BINARY:
            return _BINARY[op](*args)
        return _special(node, args)


def _special(node: Scalar, args: list[Any]) -> Any:
    op, dtype = node.op, node.dtype
    if op == "select":
        return args[1] if args[0] else args[2]
    if op == "rare":
        return _UNARY[str(node.attribute)](args[1]) if args[0] else args[2]
    if op == "fma":
        return dtype.numpy.type(np.longdouble(args[0]) * np.longdouble(args[1]) + np.longdouble(args[2]))
    if op == "ldexp":
        n = args[1] - dtype.numpy.type(ir.POWERS[dtype])
        return np.ldexp(args[0], int(n)) if np.isfinite(n) else args[0] * n
    if op == "lookup":
        assert isinstance(node.attribute, tuple)
        return node.attribute[int(args[0])]
    if op == "pick":
        assert isinstance(node.attribute, tuple)
        return node.attribute[int(args[0]) % len(node.attribute)]
    if op in ("exponent", "fraction"):
        return _split(args[0])[op == "fraction"]
    if op == "bitcast":
        return args[0].view(dtype.numpy)
    if op == "convert":
        return _convert(args[0], node.args[0].dtype, dtype)
    if op == "div":
        return np.divide(*args) if dtype.is_float else _floor_divide(int(args[0]), int(args[1]), dtype)
    if op == "mulhi_u32":
        high = ((int(args[0]) & 0xFFFFFFFF) * (int(args[1]) & 0xFFFFFFFF)) >> 32
        return np.uint32(high).view(np.int32)
    if op in ("shl", "lshr", "ashr"):
        amount = int(args[1]) % dtype.bits
        if op == "ashr":
            return int(args[0]) >> amount
        raw = int(args[0]) & ((1 << dtype.bits) - 1)
        return _wrapped(raw << amount if op == "shl" else raw >> amount, dtype)
    raise LoweringError(f"scalar operation {op!r} has no meaning")


def _split(x: Any) -> tuple[Any, Any]:
    """Exponent and fraction as `pierian.compiler.kernel.scalar` has them."""
    if not 0 < x < math.inf:
        return (-math.inf, 1.0) if x == 0 else (x, 1.0) if x > 0 else (math.nan, 1.0)
    m, e = np.frexp(x)
    return (e, m) if m >= 0.75 else (e - 1, 2 * m)


def _convert(value: Any, source: DType, target: DType) -> Any:
    if target.is_bool:
        return value != 0
    if source.is_float and not target.is_float:
        limits = np.iinfo(target.numpy)
        if value != value:
            return 0
        if value <= float(limits.min) or value >= float(limits.max):
            return limits.min if value < 0 else limits.max
        return int(value)
    return _wrapped(int(value), target) if not target.is_float else value


def _floor_divide(x: int, y: int, dtype: DType) -> int:
    return 0 if y == 0 else _wrapped(x // y, dtype)


def _wrapped(value: int, dtype: DType) -> int:
    half = 1 << (dtype.bits - 1)
    return (value + half) % (2 * half) - half
