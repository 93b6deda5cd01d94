"""Odd functions that tend to 1, such as tanh and erf, as polynomials on sixteen intervals.

The intervals get wider as the argument grows: they are the values that a few leading bits of `magnitude * scale + start` can take,
four to an octave. Each has a polynomial of degree 6 around a point of it that was sought so that the function's value there is
nearly a float: rounding then happens in the last addition, and only its half unit of the last place is lost. On the first interval
the polynomial is of the difference from the argument.

The coefficients are weighted least squares fits at 160 Chebyshev nodes, reweighted (Lawson) until the largest relative error is
as small as it gets, and rounded to float32 from the lowest power on, the rest fitted again each time. A table of sixteen stays in a
vector register or two, and a permutation picks each lane's element: on such machines this is fewer instructions than an exponential
and a division.
"""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.dtype import int32
from pierian.compiler.elementary.arithmetic import absolute, bits, c, clamp_above, copy_sign, lt, polynomial_of, sub
from pierian.compiler.frozen import frozen
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

# Intervals in an octave are four: all bits above the second of the mantissa number the interval.
_BELOW_NUMBER = 23 - 2


@frozen
class Piecewise:
    """A function of one float32.

    Attributes:
        scale, start: the number of an interval is the leading bits of `magnitude * scale + start`, less those of `start`.
        limit: from here on the function is what it is at this point.
        rows: for each interval the point the polynomial is around, and its coefficients from the constant on.
    """

    scale: float
    start: float
    limit: float
    rows: Sequence[Sequence[float]]

    def __call__(self, x: Scalar) -> Scalar:
        magnitude = clamp_above(absolute(x), self.limit)
        place = ir.fma(magnitude, c(self.scale, x), c(self.start, x))
        center, constant, *higher = (
            ir.pick(column, interval(place), x.dtype) for column in columns(self.rows, self.start)
        )
        t = sub(magnitude, center)
        base = ir.select(lt(place, c(1.25 * self.start, x)), magnitude, constant)  # the first interval
        return copy_sign(polynomial_of(t, [base, *higher]), x)


def interval(place: Scalar) -> Scalar:
    """The leading bits that number an interval."""
    return ir.binary("lshr", bits(place), ir.const(_BELOW_NUMBER, int32))


def columns(rows: Sequence[Sequence[float]], start: float) -> list[tuple[float, ...]]:
    """Tables of each place in the rows, turned so that leading bits as they are, modulo the tables' length, are the index."""
    zero = ir.bits_of(start) >> _BELOW_NUMBER
    turned = [rows[(entry - zero) % len(rows)] for entry in range(len(rows))]
    return list(zip(*turned, strict=True))


TANH = Piecewise(1.0, 1.0, 9.5, (
    (0.0, 0.0, 5.331485e-09, -1.5572695e-06, -0.33325955, -0.0012828064, 0.14348534, -0.037565324),
    (0.3774465, 0.36048785, 0.8700485, -0.31364155, -0.17695634, 0.16827348, 0.018058714, -0.066518515),
    (0.6226967, 0.55300283, 0.6941879, -0.38388744, -0.019111, 0.13846341, -0.05403443, -0.021908615),
    (0.8791379, 0.70598716, 0.50158215, -0.35410962, 0.08279924, 0.059433047, -0.058108635, 0.019284364),
    (1.2562779, 0.8500347, 0.27744088, -0.23583429, 0.108002, -0.013192213, -0.019117469, 0.015083209),
    (1.7546252, 0.94189966, 0.112825, -0.10626978, 0.062493082, -0.023441995, 0.0035482938, 0.0020917333),
    (2.252139, 0.9781189, 0.043283425, -0.04233645, 0.026982289, -0.012276175, 0.0039707976, -0.00075862877),
    (2.7453935, 0.9917847, 0.016363125, -0.016228773, 0.0106408885, -0.005141682, 0.0019266164, -0.00056789955),
    (3.5054784, 0.99819773, 0.0036013434, -0.003594848, 0.0023857458, -0.0011841216, 0.00048487724, -0.00015741696),
    (4.496443, 0.99975145, 0.0004970482, -0.0004969124, 0.0003308016, -0.00016534615, 6.8686204e-05, -2.2510412e-05),
    (5.4932675, 0.99996614, 6.771014e-05, -6.771335e-05, 4.5106786e-05, -2.2521226e-05, 9.350114e-06, -3.153305e-06),
    (6.4796953, 0.9999953, 9.41591e-06, -9.36757e-06, 6.2845857e-06, -3.623488e-06, 1.2370572e-06, 8.235269e-07),
    (7.969627, 0.99999976, 4.783333e-07, -4.889227e-07, 3.1697476e-07, -1.3544745e-07, 7.165217e-08, -3.658446e-08),
    (0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    (0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    (0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
))  # fmt: skip

ERF = Piecewise(0.829081654548645, 0.25, 4.25, (
    (0.0, 0.0, 0.12837917, 6.0554685e-07, -0.3761884, 0.0022503997, 0.07939898, 0.17226104),
    (0.11238239, 0.1262781, 1.1142176, -0.12521797, -0.36218938, 0.060901325, 0.19761576, 0.5636603),
    (0.18718924, 0.20877911, 1.0895257, -0.20394525, -0.3378344, 0.096124396, 0.15528534, 1.3172356),
    (0.2642224, 0.29134786, 1.05229, -0.27804294, -0.30163476, 0.13992745, -0.013123687, -3.3062985),
    (0.37435415, 0.4034836, 0.9808274, -0.36717772, -0.23531382, 0.16682735, 0.04685712, -0.09388463),
    (0.5254564, 0.54258347, 0.85613924, -0.4498631, -0.12777162, 0.18321885, -0.002995836, -0.014918193),
    (0.6795961, 0.6634951, 0.7110101, -0.48320037, -0.018089404, 0.16747464, -0.038966507, -0.06232835),
    (0.8298114, 0.7594169, 0.5667683, -0.47031176, 0.07126062, 0.12764058, -0.06409061, -0.06607311),
    (1.058174, 0.86547244, 0.36826593, -0.38968912, 0.15214615, 0.049374275, -0.066087596, 0.010544543),
    (1.3559817, 0.9448443, 0.17944184, -0.24332006, 0.16014372, -0.027445886, -0.033139706, 0.021539424),
    (1.6630515, 0.9813227, 0.07100833, -0.11809098, 0.10725925, -0.04978271, 0.0007666116, 0.011798014),
    (1.9614084, 0.9944603, 0.024080796, -0.04723261, 0.053734902, -0.036922153, 0.012761753, 0.00070911425),
    (2.4244578, 0.9993935, 0.003159925, -0.007660993, 0.011327409, -0.011183666, 0.0074885394, -0.0029623713),
    (3.0247025, 0.9999811, 0.00012001795, -0.00036299985, 0.00068958837, -0.00092203997, 0.00096727454, -0.0007182712),
    (3.624017, 0.9999997, 2.231761e-06, -7.988028e-06, 1.867447e-05, -3.3711047e-05, 4.4002576e-05, -2.7124155e-05),
    (0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
))  # fmt: skip
