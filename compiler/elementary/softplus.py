"""softplus, log(1 + e^x).

float32: sixteen intervals on each side of zero as in `pierian.compiler.elementary.piecewise`, and by the same method of fitting; the
sign is a fifth bit of their number. To the right the polynomials are of the function, to the left of log(1 + e^x) / e^x. There e^x
is multiplied in with what rounding takes from the product, so that one rounding counts, in the last addition; the tail keeps its
digits down to denormals. float64 is the usual formula.
"""

from __future__ import annotations

from pierian.compiler.dtype import int32
from pierian.compiler.elementary.arithmetic import (
    absolute,
    add,
    bits,
    c,
    clamp_above,
    clamp_below,
    is_single,
    mul,
    neg,
    polynomial,
    polynomial_of,
    sub,
)  # fmt: skip
from pierian.compiler.elementary.exp import LN2_32, LONG_C32, reduce
from pierian.compiler.elementary.piecewise import columns, interval
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

# The intervals are those of the leading bits of |x| * _SCALE + 1. From _LIMIT on they say no more: the function is x, or e^x.
_SCALE = 15 / 17.5
_LIMIT = 17.4


def softplus(x: Scalar) -> Scalar:
    """log(1 + e^x)."""
    if is_single(x):
        return _single(x)
    return add(ir.binary("max", x, c(0.0, x)), ir.unary("log1p", ir.unary("exp", neg(absolute(x)))))


def _single(x: Scalar) -> Scalar:
    one = c(1.0, x)
    magnitude = clamp_above(absolute(x), _LIMIT)
    place = interval(ir.fma(magnitude, c(_SCALE, x), one))
    side = ir.binary("and", ir.binary("lshr", bits(x), ir.const(27, int32)), ir.const(16, int32))
    index = ir.binary("or", ir.binary("and", place, ir.const(15, int32)), side)
    tables = zip(columns(RIGHT, 1.0), columns(LEFT, 1.0), strict=True)
    center, constant, *higher = (ir.pick(right + left, index, x.dtype) for right, left in tables)
    t = sub(magnitude, center)
    rest = mul(t, polynomial_of(t, higher))
    whole = add(constant, rest)
    # e^min(x, 0) is 2^n (1 + first + second); first is exact, and so is the sum of `total` and `lost`.
    w = clamp_below(clamp_above(x, 0.0), -104.0)
    power, n, r = reduce(w)
    first = ir.fma(n, c(-LN2_32[0], x), w)
    second = ir.fma(mul(r, r), polynomial(r, LONG_C32), mul(n, c(-LN2_32[1], x)))
    total = ir.fma(whole, first, constant)
    lost = ir.fma(whole, first, sub(constant, total))
    total = add(total, add(lost, ir.fma(whole, second, rest)))
    return ir.select(ir.compare("gt", x, c(_LIMIT, x)), x, ir.ldexp(total, power))


RIGHT = (
    (0.14860679, 0.77020854, 0.5370835, 0.124312416, -0.0030788141, -0.005098462, 0.0005124518, 0.0005623038),
    (0.4296915, 0.9308969, 0.6058, 0.11940302, -0.008417296, -0.0042935233, 0.0006094252, 2.0461508e-05),
    (0.7331139, 1.1254334, 0.67548823, 0.10960148, -0.012825205, -0.0028331433, 0.0011471289, -0.0011242533),
    (1.0233405, 1.3303783, 0.73562276, 0.097242095, -0.015273052, -0.0014784005, 0.0009503734, 0.0035410966),
    (1.4741465, 1.6803262, 0.8136868, 0.07580011, -0.015850352, 0.0005765758, 0.00063506246, -0.00021210255),
    (2.0293822, 2.1528528, 0.88384765, 0.051331077, -0.013134275, 0.0016251525, 0.00014147931, 1.936867e-05),
    (2.6305761, 2.7001367, 0.9328037, 0.03134051, -0.009043827, 0.0016287616, -0.000101511614, -2.877966e-05),
    (3.2203124, 3.2594779, 0.96159154, 0.018467166, -0.0056820814, 0.0011837304, -0.00016394227, 9.642316e-05),
    (4.071521, 4.0884285, 0.98323447, 0.008242275, -0.0026555618, 0.00061870617, -0.00010598324, 1.2530199e-05),
    (5.2450867, 5.250346, 0.9947543, 0.0026088965, -0.00086077704, 0.00021190944, -4.0053666e-05, 3.9037536e-06),
    (6.4266953, 6.428312, 0.99838483, 0.0008064312, -0.00026800274, 6.543838e-05, -1.29468535e-05, 4.2523147e-06),
    (7.597404, 7.5979056, 0.9994985, 0.00025030712, -8.32687e-05, 2.327097e-05, -4.703164e-06, -4.084415e-06),
    (9.247773, 9.2478695, 0.9999037, 4.8151483e-05, -1.6019965e-05, 4.0175973e-06, -8.4489e-07, 1.3127742e-07),
    (11.664392, 11.664401, 0.9999914, 4.4344624e-06, -1.4690806e-06, 1.0322294e-07, -5.1736812e-08, 1.3307628e-07),
    (13.871365, 13.871366, 0.99999905, 3.9317203e-07, -1.3381046e-07, 1.58085e-07, -2.3065185e-08, -4.17918e-08),
    (17.355522, 17.355522, 1.0, 1.5346977e-06, 4.1991875e-06, 4.332157e-06, 1.9221259e-06, 3.1003813e-07),
)  # fmt: skip
LEFT = (
    (0.1525336, 0.7219152, 0.18385555, -0.0323473, -0.0076291743, 0.0031093522, 0.00032023422, 0.0017406545),
    (0.43814817, 0.7716321, 0.16381438, -0.037280466, -0.0038586808, 0.0033073253, -0.00017629736, -0.00021947648),
    (0.738127, 0.81734025, 0.1407541, -0.03903202, -0.00012918396, 0.0028697858, -0.0005440791, -0.0016734615),
    (1.0236214, 0.85435814, 0.11868072, -0.03788753, 0.002647588, 0.001992267, -0.0006359359, 0.00054866495),
    (1.4528543, 0.898588, 0.08815068, -0.03273884, 0.004984418, 0.00074074126, -0.0005208032, 0.000113009555),
    (2.0444534, 0.9403688, 0.054982807, -0.023247547, 0.005286919, -0.00032862308, -0.00020959089, 5.363523e-05),
    (2.633844, 0.96573, 0.032721803, -0.01489092, 0.0040579718, -0.0006167507, -1.1420073e-05, 6.036264e-05),
    (3.2259676, 0.980652, 0.0188521, -0.008944266, 0.0026741184, -0.0005283759, 5.367579e-05, 3.1903208e-05),
    (4.099122, 0.991797, 0.008113555, -0.0039684, 0.0012649829, -0.00028814806, 4.670547e-05, -4.2814595e-06),
    (5.2579694, 0.99740607, 0.0025849703, -0.0012835368, 0.0004219248, -0.00010267061, 1.9477637e-05, -2.6588905e-06),
    (6.3943887, 0.9991655, 0.00083359575, -0.00041584045, 0.00013800373, -3.4426088e-05, 6.7626543e-06, -6.3083274e-07),
    (7.555406, 0.99973845, 0.0002614544, -0.00013065264, 4.3482512e-05, -1.0729751e-05, 2.1801914e-06, -5.497944e-07),
    (9.353391, 0.99995667, 4.333178e-05, -2.166581e-05, 7.207731e-06, -1.7973597e-06, 3.7981314e-07, -6.497973e-08),
    (11.611816, 0.99999547, 4.529072e-06, -2.2553263e-06, 7.5478954e-07, -2.0558313e-07, 3.8682177e-08, 1.5451204e-09),
    (13.997726, 0.9999996, 4.1671234e-07, -2.0186778e-07, 6.9400826e-08, -2.955883e-08, 3.6082686e-09, 5.23366e-09),
    (15.93679, 0.99999994, 5.99352e-08, -3.3326508e-08, 1.1203152e-08, 1.9119575e-09, -2.64305e-09, 3.448676e-10),
)  # fmt: skip
