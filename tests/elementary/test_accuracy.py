"""Elementary functions, as native code, against mpmath-checked references: at most 1 ULP in float32, 2 in float64."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest

from pierian.compiler.dtype import as_dtype
from pierian.compiler.graph.builder import GraphBuilder
from pierian.compiler.graph.graph import Graph
from pierian.compiler.shape import TensorType
from pierian.runtime.callable import prepare

MP = {
    "exp": mpmath.exp, "expm1": mpmath.expm1, "log": mpmath.log, "log1p": mpmath.log1p, "log2": lambda x: mpmath.log(x, 2),
    "sin": mpmath.sin, "cos": mpmath.cos, "tanh": mpmath.tanh, "erf": mpmath.erf,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)), "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
}  # fmt: skip
RANGES: dict[str, list[tuple[float, float]]] = {
    "exp": [(-104, 89), (-1, 1), (-1e-3, 1e-3)],
    "expm1": [(-20, 89), (-1, 1), (-1e-4, 1e-4)],
    "log": [(1e-45, 1e-37), (1e-30, 3e38), (0.4, 2.5), (0.999, 1.001)],
    "log2": [(1e-45, 1e-37), (1e-30, 3e38), (0.4, 2.5), (0.999, 1.001)],
    "log1p": [(-0.99999, 5), (-1e-3, 1e-3), (1, 1e30)],
    "sin": [(-10, 10), (-1e5, 1e5), (1e6, 2e8), (-1e-3, 1e-3)],
    "cos": [(-10, 10), (-1e5, 1e5), (1e6, 2e8), (-1e-3, 1e-3)],
    "tanh": [(-10, 10), (-0.7, 0.7), (-1e-4, 1e-4)],
    "erf": [(-5, 5), (-1.1, 1.1), (-1e-4, 1e-4)],
    "sigmoid": [(-100, 100), (-5, 5)],
    "rsqrt": [(1e-30, 1e30), (0.5, 3)],
    "softplus": [(-104, 20), (-3, 3)],
}
WIDER64 = {
    "exp": (-745, 709),
    "log": (1e-320, 1e-300),
    "sin": (1e5, 1e308),
    "cos": (1e5, 1e308),
    "sigmoid": (-700, 700),
}


def native(name: str, *arrays: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    graph = Graph()
    builder: Any = GraphBuilder(graph)
    inputs = [builder.placeholder(TensorType(as_dtype(a.dtype), a.shape), f"x{i}") for i, a in enumerate(arrays)]
    return prepare(graph, inputs, [getattr(builder, name)(*inputs)], threads=1)(arrays)[0]


def points(name: str, dtype: Any, count: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(11)
    parts = []
    ranges = [*RANGES[name], *([WIDER64[name]] if dtype == np.float64 and name in WIDER64 else [])]
    for low, high in ranges:
        if low > 0 and high / low > 100:
            parts.append(np.exp(rng.uniform(np.log(low), np.log(high), count)))
        else:
            parts.append(rng.uniform(low, high, count))
    return np.concatenate(parts).astype(dtype)


def ulps(found: np.ndarray[Any, Any], exact: list[Any]) -> float:
    """The largest error in units of the last place of the right result."""
    worst = 0.0
    tiny = float(np.finfo(found.dtype).smallest_subnormal)
    for one, right in zip(found.tolist(), exact, strict=True):
        rounded = found.dtype.type(float(right))
        if not np.isfinite(rounded) or not np.isfinite(one):
            assert (np.isnan(one) and np.isnan(rounded)) or one == rounded, (one, right)
            continue
        spacing = max(float(np.spacing(np.abs(rounded))), tiny)
        worst = max(worst, float(abs(mpmath.mpf(one) - right) / spacing))
    return worst


@pytest.mark.parametrize("name", MP)
@pytest.mark.parametrize(("dtype", "limit"), [(np.float32, 1.0), (np.float64, 2.0)])
def test_error_in_units_of_the_last_place(name: str, dtype: Any, limit: float) -> None:
    x = points(name, dtype, 500)
    with mpmath.workdps(60):
        exact = [MP[name](mpmath.mpf(float(one))) for one in x]
        assert ulps(native(name, x), exact) <= (1.5 if name == "rsqrt" else limit)  # two roundings


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_arguments_nearest_to_multiples_of_a_right_angle(name: str) -> None:
    """The float64 that comes closest to a multiple of pi/2 (Kahan), and neighbours of large powers of two."""
    x = np.array([6381956970095103.0 * 2.0**797, 2.0**1023, -(2.0**500), 2.0**60, 2.0**28, 5.0**20, np.pi * 2.0**40])
    with mpmath.workdps(400):
        exact = [MP[name](mpmath.mpf(float(one))) for one in x]
        assert ulps(native(name, x), exact) <= 1.0
    assert np.isnan(native(name, np.array([np.inf, -np.inf, np.nan]))).all()


@pytest.mark.parametrize(("dtype", "limit"), [(np.float32, 1.0), (np.float64, 2.0)])
def test_pow_error(dtype: Any, limit: float) -> None:
    rng = np.random.default_rng(3)
    x = np.exp(rng.uniform(-20, 20, 1500)).astype(dtype)
    y = rng.uniform(-4, 4, 1500).astype(dtype)
    x[:300] = rng.uniform(0.9, 1.1, 300)
    y[:300] = rng.uniform(-500, 500, 300) if dtype == np.float64 else rng.uniform(-300, 300, 300)
    with mpmath.workdps(60):
        exact = [mpmath.power(mpmath.mpf(float(a)), mpmath.mpf(float(b))) for a, b in zip(x, y, strict=True)]
        assert ulps(native("pow", x, y), exact) <= limit


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pow_special_values(dtype: Any) -> None:
    values = np.array([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, np.inf, -np.inf, np.nan], dtype)
    x, y = (array.ravel() for array in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        expected = np.power(x, y)
    found = native("pow", x, y)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    good = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[good]), np.signbit(expected[good]))


SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], np.float64)
NUMPY = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "softplus": lambda x: np.logaddexp(x, x.dtype.type(0)),
    "erf": lambda x: np.sign(x) * (np.abs(x) > 0) if not np.isnan(x).any() else x,
}


@pytest.mark.parametrize("name", [name for name in MP if name != "erf"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(name: str, dtype: Any) -> None:
    x = SPECIAL.astype(dtype)
    with np.errstate(all="ignore"):
        expected = NUMPY.get(name, getattr(np, name, None))(x)  # type: ignore[misc]
    found = native(name, x)
    np.testing.assert_array_equal(found, expected)
    good = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[good]), np.signbit(expected[good]))


def test_huge_angles_in_float32() -> None:
    x = np.array([1e9, 3.4e38, -1.2345e20, 2.0**100, 7.7e33, 1e15, 2.0**28, 2.0**29 + 32], np.float32)
    with mpmath.workdps(120):
        for name in ("sin", "cos"):
            exact = [MP[name](mpmath.mpf(float(one))) for one in x]
            assert ulps(native(name, x), exact) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sigmoid", "expm1", "log1p", "sin", "cos"])
def test_float32_over_the_whole_range(name: str) -> None:
    """Every 61st of all float32 numbers, against float64."""
    reference = {"sigmoid": lambda x: 1 / (1 + np.exp(-x))}.get(name, getattr(np, name, None))
    worst = 0.0
    for start in range(0, 1 << 32, 1 << 29):
        x = np.arange(start, start + (1 << 29), 61, dtype=np.uint32).view(np.float32)
        x = x[np.isfinite(x)]
        with np.errstate(all="ignore"):
            exact = reference(x.astype(np.float64))  # type: ignore[misc]
            rounded = exact.astype(np.float32)
            found = native(name, x)
            np.testing.assert_array_equal(np.isnan(found), np.isnan(rounded))
            good = np.isfinite(rounded) & np.isfinite(found)
            assert np.array_equal(found[~good & ~np.isnan(found)], rounded[~good & ~np.isnan(found)])
            spacing = np.maximum(np.spacing(np.abs(rounded[good])).astype(np.float64), 2.0**-149)
            worst = max(worst, float(np.max(np.abs(found[good] - exact[good]) / spacing, initial=0.0)))
    assert worst <= 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exponentials_of_what_is_never_positive(dtype: Any) -> None:
    """`decay` takes the place of `exp`, and gives the same bits, denormals and special values included."""
    graph = Graph()
    builder: Any = GraphBuilder(graph)
    special = [0.0, -0.0, np.inf, np.nan, 1e-45, 87.3, 103.9, 105.0, 745.0, 746.0]
    x = np.concatenate([special, np.random.default_rng(5).uniform(0, 110, 5000)]).astype(dtype)
    given = builder.placeholder(TensorType(as_dtype(x.dtype), x.shape), "x")
    minus = builder.negative(builder.abs(given))
    (found,) = prepare(graph, [given], [builder.exp(minus)], threads=1)((x,))
    np.testing.assert_array_equal(found, native("exp", -np.abs(x)))
