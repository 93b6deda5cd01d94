"""European call options by Black and Scholes, with their sensitivities by automatic differentiation.

    python examples/option_pricing.py --output results

Prices come from one formula; delta, gamma, vega and theta are its derivatives, rewritten from the graph, and are checked against
the closed forms of textbooks. The graph is saved for `pierian show`, `dump`, `run` and `compile`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import pierian as tf


def build() -> tf.Graph:
    """Price and sensitivities of `options` call options in float64."""
    graph = tf.Graph("option_pricing")
    with graph.as_default():
        spot, strike, volatility, years = (
            tf.placeholder(tf.float64, ["options"], name=name) for name in ("spot", "strike", "volatility", "years")
        )
        rate = tf.placeholder(tf.float64, [], name="rate")
        spread = volatility * tf.sqrt(years)
        d1 = (tf.log(spot / strike) + (rate + 0.5 * volatility**2) * years) / spread
        d2 = d1 - spread
        price = spot * normal(d1) - strike * tf.exp(-rate * years) * normal(d2)
        delta, vega, theta = tf.gradients(price, [spot, volatility, years])
        (gamma,) = tf.gradients(delta, [spot])
        graph.set_outputs([price, delta, gamma, vega, -theta], ["price", "delta", "gamma", "vega", "theta"])
    return graph


def normal(x: tf.Tensor) -> tf.Tensor:
    """The normal distribution function."""
    return 0.5 * (1.0 + tf.erf(x * 0.7071067811865476))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("results"))
    parser.add_argument("--count", type=int, default=100_000)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    graph = build()
    graph.save(options.output / "option_pricing.pb")
    rng = np.random.default_rng(0)
    feeds = {
        "spot": rng.uniform(80, 120, options.count),
        "strike": rng.uniform(80, 120, options.count),
        "volatility": rng.uniform(0.1, 0.5, options.count),
        "years": rng.uniform(0.1, 2.0, options.count),
        "rate": np.float64(0.03),
    }
    with tf.Session(graph) as session:
        found = session.run(dict(zip(graph.output_names, graph.outputs, strict=True)), feeds)
    s, k, v, t, r = (feeds[name] for name in ("spot", "strike", "volatility", "years", "rate"))
    d1 = (np.log(s / k) + (r + v * v / 2) * t) / (v * np.sqrt(t))
    density = np.exp(-d1 * d1 / 2) / np.sqrt(2 * np.pi)
    closed = {"gamma": density / (s * v * np.sqrt(t)), "vega": s * density * np.sqrt(t)}
    print("   spot  strike   vol  years   price   delta   gamma    vega   theta")
    for i in range(5):
        row = [found[name][i] for name in ("price", "delta", "gamma", "vega", "theta")]
        print(f"{s[i]:7.2f} {k[i]:7.2f} {v[i]:5.2f} {t[i]:6.2f} " + " ".join(f"{x:7.3f}" for x in row))
    for name, exact in closed.items():
        error = np.max(np.abs(found[name] - exact)) / np.max(np.abs(exact))
        print(f"{name}: largest difference from the closed form {error:.1e} (relative)")
        if error > 1e-12:
            raise SystemExit(f"{name} is wrong")


if __name__ == "__main__":
    main()
