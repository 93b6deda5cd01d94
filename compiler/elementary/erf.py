"""The error function.

float32 is a `Piecewise`. float64: for |x| < 1 x + x P(x^2), beyond 1 - e^(-x^2) T(4 / (|x| + 3)), T a fit of erfc(x) e^(x^2) on
[1, 6]. Both are Chebyshev fits; their errors are below 1e-18 relative to the result.
"""

from __future__ import annotations

from pierian.compiler.elementary.arithmetic import (
    absolute,
    add,
    c,
    clamp_above,
    copy_sign,
    div,
    is_single,
    lt,
    mul,
    neg,
    pairwise_polynomial,
    polynomial,
    sub,
)  # fmt: skip
from pierian.compiler.elementary.exp import decay
from pierian.compiler.elementary.piecewise import ERF
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

SMALL64 = (
    0.1283791670955126, -0.3761263890318375, 0.11283791670954879, -0.026866170645076792, 0.0052239776248180145,
    -0.000854832698083379, 0.0001205533111164271, -1.4925595266831182e-05, 1.6461000484121368e-06,
    -1.6350312701054695e-07, 1.4659775274047436e-08, -1.1372848856791674e-09, 5.957176147748911e-11,
)  # fmt: skip
SCALED64 = (
    3.6860690286802047e-07, 0.14103868484352466, 0.10588117268708215, 0.07428482368135679, 0.05259712712234165,
    0.019955409533358632, 0.042453501785660264, -0.043053577552047265, 0.07822909133101845, -0.08563303137643567,
    0.07248435110333888, -0.044720801440632056, 0.01761726045005625, -0.003936510371529439, 0.0003871864265687483,
    -1.4806747579084906e-06,
)  # fmt: skip


def erf(x: Scalar) -> Scalar:
    """The error function, 2/sqrt(pi) times the integral of e^(-t^2) from 0 to x."""
    if is_single(x):
        return ERF(x)
    magnitude = absolute(x)
    square = mul(x, x)
    one = c(1.0, x)
    small = ir.fma(magnitude, pairwise_polynomial(square, SMALL64), magnitude)
    limited = clamp_above(magnitude, 6.0)
    t = div(c(4.0, x), add(limited, c(3.0, x)))
    large = sub(one, mul(decay(neg(mul(limited, limited))), polynomial(t, SCALED64)))
    return copy_sign(ir.select(lt(magnitude, one), small, large), x)
