"""Powers of two: multiplying by one, and taking a float apart into one and a fraction. AVX-512 has instructions for these."""

from __future__ import annotations

from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, element_of, lanes_of, like
from pierian.compiler.dtype import DType
from pierian.compiler.kernel.scalar import POWERS

# As the instruction wants it: fractions in [3/4, 3/2), NaN for negative numbers.
_FRACTION = Value("11", "i32")
_AS_SET = Value("4", "i32")  # rounding as the control register says


def scale(writer: FunctionWriter, dtype: DType, x: Value, n: Value) -> Value:
    """`ldexp`: one instruction where there is one, else two multiplications by halves of the power, the first exact."""
    if _has_instruction(writer, dtype, x):
        return _masked(writer, "scalef", dtype, x, writer.op("fsub", n, _like(POWERS[dtype], n)))
    # The last bits are n and twice the bias; where n is NaN so is x, and any power will do.
    whole = writer.cast("bitcast", n, like(x.type, f"i{dtype.bits}"))
    half = writer.op("lshr", whole, _like(1, whole))
    mantissa = 23 if dtype.bits == 32 else 52
    for part in (half, writer.op("sub", whole, half)):
        power = writer.cast("bitcast", writer.op("shl", part, _like(mantissa, part)), x.type)
        x = writer.op("fmul", x, power)
    return x


def exponent(writer: FunctionWriter, dtype: DType, x: Value) -> Value:
    """e of x = m 2^e, a float; see `pierian.compiler.kernel.scalar`."""
    if _has_instruction(writer, dtype, x):
        # Both know exponents of numbers in [1, 2): that of the fraction is 0 or -1.
        return writer.op(
            "fsub", _masked(writer, "getexp", dtype, x), _masked(writer, "getexp", dtype, fraction(writer, dtype, x))
        )
    small, shifted, mantissa = _shifted(writer, dtype, x)
    whole = writer.cast("sitofp", writer.op("ashr", shifted, _like(mantissa, shifted)), x.type)
    e = writer.select(small, writer.op("fsub", whole, _like(float(mantissa + 1), x)), whole)
    e = writer.select(writer.cmp("fcmp oeq", x, _like(0.0, x)), _like(float("-inf"), x), e)
    e = writer.select(writer.cmp("fcmp oeq", x, _like(float("inf"), x)), x, e)
    return writer.select(writer.cmp("fcmp oge", x, _like(0.0, x)), e, _like(float("nan"), x))


def fraction(writer: FunctionWriter, dtype: DType, x: Value) -> Value:
    """m of x = m 2^e, in [3/4, 3/2)."""
    if _has_instruction(writer, dtype, x):
        return _masked(writer, "getmant", dtype, x, _FRACTION)
    _, shifted, mantissa = _shifted(writer, dtype, x)
    kept = writer.op("and", shifted, _like((1 << mantissa) - 1, shifted))
    return writer.cast("bitcast", writer.op("add", kept, _like(_three_quarters(dtype), kept)), x.type)


def _shifted(writer: FunctionWriter, dtype: DType, x: Value) -> tuple[Value, Value, int]:
    """Where x is less than a normal number, and the bits of x (there scaled to one) less those of 3/4: the exponent above the
    `mantissa` bits of the fraction."""
    mantissa, least = (23, -126) if dtype.bits == 32 else (52, -1022)
    small = writer.cmp("fcmp olt", x, _like(2.0**least, x))
    scaled = writer.select(small, writer.op("fmul", x, _like(2.0 ** (mantissa + 1), x)), x)
    raw = writer.cast("bitcast", scaled, like(x.type, f"i{dtype.bits}"))
    return small, writer.op("sub", raw, _like(_three_quarters(dtype), raw)), mantissa


def _three_quarters(dtype: DType) -> int:
    """The bits of 3/4."""
    return 0x3F400000 if dtype.bits == 32 else 0x3FE8000000000000


def _has_instruction(writer: FunctionWriter, dtype: DType, x: Value) -> bool:
    return writer.isa == "avx512" and lanes_of(x.type) * dtype.bits in (128, 256, 512)


def _masked(writer: FunctionWriter, name: str, dtype: DType, x: Value, *rest: Value) -> Value:
    """One of the instructions that LLVM has in a form with a mask, here with all lanes."""
    width = lanes_of(x.type) * dtype.bits
    mask = Value("-1", "i16" if lanes_of(x.type) == 16 else "i8")
    rounding = [_AS_SET] if width == 512 else []
    zero = Value("zeroinitializer", x.type)
    full = f"llvm.x86.avx512.mask.{name}.p{'s' if dtype.bits == 32 else 'd'}.{width}"
    return writer.call(full, x.type, [x, *rest, zero, mask, *rounding])


def _like(value: int | float, x: Value) -> Value:
    return constant(value, element_of(x.type), lanes_of(x.type))
