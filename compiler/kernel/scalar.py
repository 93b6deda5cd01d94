"""Scalar expressions: what a kernel computes for one point of its iteration space.

Expressions are immutable and hash-consed: equal expressions are the same object. The operations below
are all that code generation knows; elementary functions (`ELEMENTARY`) stand in an expression until
`pierian.compiler.elementary` expands them into these.

Meaning: floats follow IEEE 754 (round to nearest even, denormals kept, no contraction: `fma` is explicit).
Integers wrap. `div` of integers floors (as Python); division by zero gives 0 and INT_MIN / -1 wraps, so that no
kernel traps. `min`/`max` of floats propagate NaN as NumPy's minimum/maximum do. Shifts take their amount
modulo the width. `convert` from float to integer truncates and saturates, NaN gives 0; to bool it is `!= 0`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Union

from pierian.compiler.dim import Dim, Symbolic, substitute, symbols
from pierian.compiler.dtype import DType, bool_, float32, float64, int32, int64

# An index into a buffer: a size expression over axes and symbols, or an int64 value computed at run time.
Index = Union[int, Symbolic, "Scalar"]

# Operations by number of arguments. Arguments have one type, which is the result's, except where said.
UNARY = ("neg", "abs", "sqrt", "floor", "ceil", "trunc", "round", "not")  # round: half to even; not: bitwise
BINARY = ("add", "sub", "mul", "div", "min", "max", "and", "or", "xor", "shl", "lshr", "ashr")
COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")  # result bool; unordered compares are false, `ne` true
TERNARY = ("fma", "select")  # fma(a, b, c) = a*b + c rounded once; select(bool, a, b)
CASTS = ("convert", "bitcast")  # result type is the expression's; bitcast keeps the bits, equal widths
LEAVES = ("const", "dim", "load", "reduced")
# const: attribute is a Python bool/int/float. dim: attribute is a Dim (axes allowed), type int64.
# load: attribute is (buffer name, indices). reduced: attribute is the name of a Reduce earlier in the kernel.
HIGH = ("mulhi_u32", "ldexp", "exponent", "fraction", "lookup", "pick", "rare")
# mulhi_u32: int32 x int32, the upper 32 bits of the unsigned product.
# ldexp: x * 2^n, rounded once, for an integral n within twice the range of normal exponents. Its second argument is the float
# `POWERS + n`, the last bits of which are an integer.
# exponent, fraction: e as a float, and m in [3/4, 3/2), of x = m 2^e for positive x, denormals included. At zero e is -inf, at
# infinity inf, where x is negative (a negative zero is zero) or NaN it is NaN; m is anything there.
# lookup: element number `index` (int64, in range) of a table of constants, the attribute.
# rare(condition, x, y): where the condition is true, which is rare, the elementary function of x that the attribute names, else y.
# pick: element number `index` (int32) modulo the length of a table of 16 or 32 constants, short enough for registers.
ELEMENTARY = (
    "exp", "decay", "exp2", "expm1", "log", "log1p", "log2", "sin", "cos", "sin_huge", "cos_huge", "tanh", "sigmoid", "erf",
    "softplus", "pow", "rsqrt",
)  # fmt: skip
# decay: e^x for x that is known to be at most 0, or NaN: it need not be kept from overflow.

PRIMITIVE = frozenset((*UNARY, *BINARY, *COMPARE, *TERNARY, *CASTS, *LEAVES, *HIGH))

Attribute = Union[None, bool, int, float, str, Symbolic, tuple[str, tuple[Index, ...]], tuple[float, ...]]


class Scalar:
    """One node of an expression graph; made by `scalar` and the constructors below."""

    __slots__ = ("args", "attribute", "dtype", "op")

    op: str
    dtype: DType
    args: tuple[Scalar, ...]
    attribute: Attribute

    def __repr__(self) -> str:
        inside = [*map(repr, self.args), *([] if self.attribute is None else [str(self.attribute)])]
        return f"{self.op}.{self.dtype}({', '.join(inside)})"


_INTERNED: dict[tuple[object, ...], Scalar] = {}


def scalar(op: str, dtype: DType, args: tuple[Scalar, ...] = (), attribute: Attribute = None) -> Scalar:
    """The expression `op` over `args`; the same object for equal parts."""
    if op == "const" and isinstance(attribute, float):
        key: tuple[object, ...] = (op, dtype, args, struct.pack("<d", attribute))  # tells 0.0 from -0.0, and NaNs
    else:
        key = (op, dtype, args, type(attribute), attribute)
    found = _INTERNED.get(key)
    if found is None:
        found = object.__new__(Scalar)
        found.op, found.dtype, found.args, found.attribute = op, dtype, args, attribute
        _INTERNED[key] = found
    return found


def const(value: bool | int | float, dtype: DType) -> Scalar:
    """A constant; the value is converted to the type's Python kind. Integers wrap into the type's range."""
    if dtype.is_float:
        value = float(value)
        if dtype is float32 and value == value and abs(value) != float("inf"):
            value = _round_to_float32(value)
    elif dtype.is_bool:
        value = bool(value)
    else:
        half = 1 << (dtype.bits - 1)
        value = (int(value) + half) % (2 * half) - half
    return scalar("const", dtype, (), value)


def dim(expression: Dim) -> Scalar:
    """A size or index as an int64 value."""
    if isinstance(expression, int):
        return const(expression, int64)
    return scalar("dim", int64, (), expression)


def load(buffer: str, indices: tuple[Index, ...], dtype: DType) -> Scalar:
    """The element of a buffer at one index per dimension."""
    return scalar("load", dtype, (), (buffer, indices))


def reduced(name: str, dtype: DType) -> Scalar:
    """The result of the reduction `name`, computed earlier in the same kernel at the same outer indices."""
    return scalar("reduced", dtype, (), name)


def unary(op: str, x: Scalar) -> Scalar:
    return scalar(op, x.dtype, (x,))


def binary(op: str, x: Scalar, y: Scalar) -> Scalar:
    assert x.dtype is y.dtype, (op, x.dtype, y.dtype)
    return scalar(op, x.dtype, (x, y))


def compare(op: str, x: Scalar, y: Scalar) -> Scalar:
    assert x.dtype is y.dtype, (op, x.dtype, y.dtype)
    return scalar(op, bool_, (x, y))


def select(condition: Scalar, x: Scalar, y: Scalar) -> Scalar:
    assert condition.dtype is bool_ and x.dtype is y.dtype
    return scalar("select", x.dtype, (condition, x, y))


def fma(x: Scalar, y: Scalar, z: Scalar) -> Scalar:
    return scalar("fma", x.dtype, (x, y, z))


# What `ldexp` wants added to an exponent: 1.5 times the unit of the mantissa's last place, which rounds to an integer, and twice the
# bias of exponents, so that half of the last bits is a biased exponent.
POWERS = {float32: 1.5 * 2.0**23 + 2 * 127, float64: 1.5 * 2.0**52 + 2 * 1023}


def ldexp(x: Scalar, n: Scalar) -> Scalar:
    return scalar("ldexp", x.dtype, (x, n))


def lookup(table: tuple[float, ...], index: Scalar, dtype: DType) -> Scalar:
    return scalar("lookup", dtype, (index,), table)


def pick(table: tuple[float, ...], index: Scalar, dtype: DType) -> Scalar:
    assert len(table) in (16, 32) and index.dtype is int32
    return scalar("pick", dtype, (index,), table)


def rare(condition: Scalar, function: str, x: Scalar, otherwise: Scalar) -> Scalar:
    """The function of x where the condition is true; most vectors have no such lane and go past its code."""
    assert condition.dtype is bool_ and x.dtype is otherwise.dtype
    return scalar("rare", x.dtype, (condition, x, otherwise), function)


def convert(x: Scalar, dtype: DType) -> Scalar:
    """The value converted to `dtype`; no node where the type is already right."""
    return x if x.dtype is dtype else scalar("convert", dtype, (x,))


def bitcast(x: Scalar, dtype: DType) -> Scalar:
    """The same bits read as another type of equal width."""
    assert x.dtype.bits == dtype.bits
    return x if x.dtype is dtype else scalar("bitcast", dtype, (x,))


def integer_of(dtype: DType) -> DType:
    """The integer type as wide as a float type."""
    return {float32: int32, float64: int64}[dtype]


def postorder(roots: Iterable[Scalar]) -> Iterator[Scalar]:
    """Every distinct expression under `roots`, arguments before users. Indices computed at run time count as
    arguments of their load."""
    seen: set[Scalar] = set()
    for root in roots:
        stack = [(root, False)]
        while stack:
            node, expanded = stack.pop()
            if node in seen:
                continue
            if expanded:
                seen.add(node)
                yield node
                continue
            inner = node.args if node.op != "load" else children(node)
            if not inner:
                seen.add(node)
                yield node
                continue
            stack.append((node, True))
            stack.extend([(arg, False) for arg in reversed(inner)])


def children(node: Scalar) -> tuple[Scalar, ...]:
    """Arguments, and for a load the indices that are computed at run time."""
    if node.op != "load":
        return node.args
    return tuple(index for index in load_parts(node)[1] if isinstance(index, Scalar))


def load_parts(node: Scalar) -> tuple[str, tuple[Index, ...]]:
    """Buffer name and indices of a load."""
    assert isinstance(node.attribute, tuple)
    return node.attribute  # type: ignore[return-value]


def axes_used(roots: Iterable[Scalar]) -> frozenset[str]:
    """The names of symbols (axes and sizes) that expressions depend on through indices and `dim`."""
    found: set[str] = set()
    for node in postorder(roots):
        if node.op == "dim":
            assert isinstance(node.attribute, Symbolic)
            found |= symbols(node.attribute)
        elif node.op == "load":
            for index in load_parts(node)[1]:
                if isinstance(index, Symbolic):
                    found |= symbols(index)
    return frozenset(found)


def rename_axes(root: Scalar, names: Mapping[str, Dim]) -> Scalar:
    """The expression with axes replaced."""
    done: dict[Scalar, Scalar] = {}
    for node in postorder([root]):
        if node.op == "load":
            buffer, indices = load_parts(node)
            mapped: list[Index] = [done[i] if isinstance(i, Scalar) else substitute(i, names) for i in indices]
            done[node] = load(buffer, tuple(mapped), node.dtype)
        elif node.op == "dim":
            done[node] = dim(substitute(node.attribute, names))  # type: ignore[arg-type]
        elif node.args:
            done[node] = scalar(node.op, node.dtype, tuple(done[arg] for arg in node.args), node.attribute)
        else:
            done[node] = node
    return done[root]


def bits_of(value: float) -> int:
    """The bits of a positive float32."""
    return struct.unpack("<i", struct.pack("<f", value))[0]


def _round_to_float32(value: float) -> float:
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
