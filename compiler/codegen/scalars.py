"""One primitive scalar operation to instructions, on vectors of any width. Booleans are i1 in registers."""

from __future__ import annotations

import functools

from pierian.compiler.codegen.powers import exponent, fraction, scale
from pierian.compiler.codegen.tables import lookup, pick
from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, element_of, lanes_of, like, vector
from pierian.compiler.dtype import DType
from pierian.compiler.errors import LoweringError
from pierian.compiler.kernel.scalar import Scalar

_FLOAT_BINARY = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INTEGER_BINARY = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_SHIFTS = {"shl": "shl", "lshr": "lshr", "ashr": "ashr"}
_FLOAT_COMPARE = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_INTEGER_COMPARE = {"eq": "eq", "ne": "ne", "lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge"}
_ROUNDING = {"floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "roundeven"}


def register_type(dtype: DType) -> str:
    """The LLVM type of an element in a register."""
    return "i1" if dtype.is_bool else dtype.llvm


def emit_scalar(writer: FunctionWriter, node: Scalar, args: list[Value]) -> Value:
    """Instructions for `node.op` on operands of any number of lanes (all the same).

    Raises:
        LoweringError: the operation is not primitive.
    """
    op = node.op
    x = args[0]
    if op == "select":
        return writer.select(x, args[1], args[2])
    if op == "fma":
        return writer.intrinsic("llvm.fma", *args)
    if op in _FLOAT_COMPARE:
        return _compare(writer, op, node.args[0].dtype, x, args[1])
    if op == "convert":
        return convert(writer, x, node.args[0].dtype, node.dtype)
    if op == "bitcast":
        return writer.cast("bitcast", x, like(x.type, register_type(node.dtype)))
    if op == "mulhi_u32":
        return _mulhi(writer, x, args[1])
    if op in ("lookup", "pick"):
        assert isinstance(node.attribute, tuple)
        return (lookup if op == "lookup" else pick)(writer, node.attribute, x, node.dtype)  # type: ignore[arg-type]
    if op == "ldexp":
        return scale(writer, node.dtype, x, args[1])
    if op in ("exponent", "fraction"):
        return (exponent if op == "exponent" else fraction)(writer, node.dtype, x)
    if len(args) == 1:
        return _unary(writer, op, node.dtype, x)
    if len(args) == 2:
        return _binary(writer, op, node.dtype, x, args[1])
    raise LoweringError(f"scalar operation {op!r} has no instructions")


def _unary(writer: FunctionWriter, op: str, dtype: DType, x: Value) -> Value:
    zero = _like(0, x)
    if op == "neg":
        return writer.emit(f"fneg {x}", x.type) if dtype.is_float else writer.op("sub", zero, x)
    if op == "abs":
        if dtype.is_float:
            return writer.intrinsic("llvm.fabs", x)
        return writer.intrinsic("llvm.abs", x, Value("false", "i1"))
    if op == "not":
        return writer.op("xor", x, _like(1 if dtype.is_bool else -1, x))
    if op == "sqrt":
        return writer.intrinsic("llvm.sqrt", x)
    if op in _ROUNDING:
        return writer.intrinsic(f"llvm.{_ROUNDING[op]}", x)
    raise LoweringError(f"scalar operation {op!r} has no instructions")


def _binary(writer: FunctionWriter, op: str, dtype: DType, x: Value, y: Value) -> Value:
    if dtype.is_float:
        if op in _FLOAT_BINARY:
            return writer.op(_FLOAT_BINARY[op], x, y)
        if op in ("min", "max"):
            # NaN from either side: an ordered compare keeps y where x is NaN or not better; x + y is NaN then.
            better = writer.cmp("fcmp olt" if op == "min" else "fcmp ogt", x, y)
            best = writer.select(better, x, y)
            unordered = writer.cmp("fcmp uno", x, x)
            return writer.select(unordered, x, best)
    elif op in _INTEGER_BINARY:
        return writer.op(_INTEGER_BINARY[op], x, y)
    elif op in _SHIFTS:
        return writer.op(_SHIFTS[op], x, writer.op("and", y, _like(dtype.bits - 1, y)))
    elif op in ("min", "max"):
        return writer.intrinsic("llvm.smin" if op == "min" else "llvm.smax", x, y)
    elif op == "div":
        return _floor_divide(writer, x, y)
    raise LoweringError(f"scalar operation {op!r} has no instructions for {dtype}")


def _floor_divide(writer: FunctionWriter, x: Value, y: Value) -> Value:
    """Floor division that never traps: x / 0 is 0, INT_MIN / -1 wraps."""
    zero, one, minus = _like(0, x), _like(1, x), _like(-1, x)
    is_zero = writer.cmp("icmp eq", y, zero)
    is_minus = writer.cmp("icmp eq", y, minus)
    safe = writer.select(writer.op("or", is_zero, is_minus), one, y)
    quotient = writer.op("sdiv", x, safe)
    remainder = writer.op("sub", x, writer.op("mul", quotient, safe))
    inexact = writer.cmp("icmp ne", remainder, zero)
    opposite = writer.cmp("icmp slt", writer.op("xor", remainder, safe), zero)
    down = writer.op("and", inexact, opposite)
    floored = writer.op("sub", quotient, writer.select(down, one, zero))
    negated = writer.select(is_minus, writer.op("sub", zero, x), floored)
    return writer.select(is_zero, zero, negated)


def _compare(writer: FunctionWriter, op: str, dtype: DType, x: Value, y: Value) -> Value:
    if dtype.is_float:
        return writer.cmp(f"fcmp {_FLOAT_COMPARE[op]}", x, y)
    predicate = _INTEGER_COMPARE[op]
    if dtype.is_bool:
        predicate = predicate.replace("s", "u", 1) if predicate[0] == "s" else predicate
    return writer.cmp(f"icmp {predicate}", x, y)


def _mulhi(writer: FunctionWriter, x: Value, y: Value) -> Value:
    wide = like(x.type, "i64")
    product = writer.op("mul", writer.cast("zext", x, wide), writer.cast("zext", y, wide))
    return writer.cast("trunc", writer.op("lshr", product, _like(32, product)), x.type)


def convert(writer: FunctionWriter, x: Value, source: DType, target: DType) -> Value:
    """A value in another element type; see `pierian.compiler.kernel.scalar` for the meaning."""
    type_ = like(x.type, register_type(target))
    if source is target:
        return x
    if target.is_bool:
        return writer.cmp("fcmp une" if source.is_float else "icmp ne", x, _like(0, x))
    if source.is_bool:
        return writer.cast("uitofp" if target.is_float else "zext", x, type_)
    if source.is_float and target.is_float:
        return writer.cast("fpext" if target.bits > source.bits else "fptrunc", x, type_)
    if source.is_float:
        return _to_integer(writer, x, type_, target.bits)
    if target.is_float:
        return writer.cast("sitofp", x, type_)
    return writer.cast("sext" if target.bits > source.bits else "trunc", x, type_)


def _to_integer(writer: FunctionWriter, x: Value, type_: str, bits: int) -> Value:
    """Truncation that saturates, NaN to 0. LLVM's own saturating conversion goes lane by lane on most machines."""
    limit = float(1 << (bits - 1))
    zero = _like(0.0, x)
    above = writer.cmp("fcmp oge", x, _like(limit, x))
    below = writer.cmp("fcmp olt", x, _like(-limit, x))
    inside = writer.select(writer.cmp("fcmp uno", x, x), zero, x)
    inside = writer.select(below, _like(-limit, x), writer.select(above, zero, inside))
    result = writer.cast("fptosi", inside, type_)
    return writer.select(above, _like((1 << (bits - 1)) - 1, result), result)


def _like(value: int | float, x: Value) -> Value:
    return constant(value, element_of(x.type), lanes_of(x.type))


@functools.lru_cache(maxsize=1 << 12)
def splat_constant(node: Scalar, lanes: int) -> Value:
    """A constant in all lanes."""
    assert isinstance(node.attribute, (bool, int, float))
    return constant(node.attribute, register_type(node.dtype), lanes)


def memory_load(writer: FunctionWriter, address: Value, dtype: DType, lanes: int) -> Value:
    """Consecutive elements from memory; booleans become i1."""
    loaded = writer.load(address, vector(dtype.llvm, lanes), dtype.itemsize)
    return to_register(writer, loaded, dtype)


def to_register(writer: FunctionWriter, stored: Value, dtype: DType) -> Value:
    """An element as in memory to one as in registers."""
    return writer.cmp("icmp ne", stored, _like(0, stored)) if dtype.is_bool else stored


def to_memory(writer: FunctionWriter, value: Value, dtype: DType) -> Value:
    """An element as in registers to one as in memory."""
    return writer.cast("zext", value, like(value.type, "i8")) if dtype.is_bool else value
