"""The error function.

|x| < 1: x + x P(x^2). float32 beyond: 1 - e^Q(|x|), Q a fit of log(erfc) on [1, 4], where erf rounds to 1. float64 beyond:
1 - e^(-x^2) T(4 / (|x| + 3)), T a fit of erfc(x) e^(x^2) on [1, 6]. All are Chebyshev fits; the errors of the fits are below
2e-9 and 1e-18 relative to the result.
"""

from __future__ import annotations

from pierian.compiler.elementary.arithmetic import (
    absolute,
    add,
    c,
    clamp_above,
    div,
    is_single,
    lt,
    mul,
    neg,
    pairwise_polynomial,
    polynomial,
    sub,
)  # fmt: skip
from pierian.compiler.elementary.exp import exp_moderate
from pierian.compiler.elementary.hyperbolic import copy_sign
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

SMALL32 = (
    0.12837916612625122, -0.3761262595653534, 0.11283594369888306, -0.02685421146452427, 0.005189087241888046,
    -0.000801686430349946, 7.875874871388078e-05,
)  # fmt: skip
SMALL64 = (
    0.1283791670955126, -0.3761263890318375, 0.11283791670954879, -0.026866170645076792, 0.0052239776248180145,
    -0.000854832698083379, 0.0001205533111164271, -1.4925595266831182e-05, 1.6461000484121368e-06,
    -1.6350312701054695e-07, 1.4659775274047436e-08, -1.1372848856791674e-09, 5.957176147748911e-11,
)  # fmt: skip
LOG_ERFC32 = (
    0.0003201380604878068, -1.1302334070205688, -0.6318260431289673, -0.11008008569478989, 0.026421135291457176,
    -0.004759596195071936, 0.0005968056502752006, -4.605804133461788e-05, 1.6371513993362896e-06,
)  # fmt: skip
SCALED64 = (
    3.6860690286802047e-07, 0.14103868484352466, 0.10588117268708215, 0.07428482368135679, 0.05259712712234165,
    0.019955409533358632, 0.042453501785660264, -0.043053577552047265, 0.07822909133101845, -0.08563303137643567,
    0.07248435110333888, -0.044720801440632056, 0.01761726045005625, -0.003936510371529439, 0.0003871864265687483,
    -1.4806747579084906e-06,
)  # fmt: skip


def erf(x: Scalar) -> Scalar:
    """The error function, 2/sqrt(pi) times the integral of e^(-t^2) from 0 to x."""
    magnitude = absolute(x)
    square = mul(x, x)
    one = c(1.0, x)
    if is_single(x):
        small = ir.fma(magnitude, polynomial(square, SMALL32), magnitude)
        limited = clamp_above(magnitude, 4.0)
        large = sub(one, exp_moderate(polynomial(limited, LOG_ERFC32)))
    else:
        small = ir.fma(magnitude, pairwise_polynomial(square, SMALL64), magnitude)
        limited = clamp_above(magnitude, 6.0)
        t = div(c(4.0, x), add(limited, c(3.0, x)))
        large = sub(one, mul(exp_moderate(neg(mul(limited, limited))), polynomial(t, SCALED64)))
    return copy_sign(ir.select(lt(magnitude, one), small, large), x)
