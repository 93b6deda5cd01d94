"""Cold start, each figure the median of fresh processes: import, first result of a five-operator graph, MLP step.

python benchmarks/cold_start.py [--runs 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

FIVE = """
import time, numpy as np
start = time.perf_counter()
import pierian as tf
imported = time.perf_counter()
graph = tf.Graph()
with graph.as_default():
    x = tf.placeholder(tf.float32, [None, 64], name="x")
    y = tf.tanh(tf.exp(-x * 0.5) + 1.0)
    z = tf.reduce_sum(y, axis=1)
with tf.Session(graph) as session:
    session.run(z, {x: np.ones((32, 64), np.float32)})
    first = time.perf_counter()
    session.run(z, {x: np.ones((48, 64), np.float32)})
    again = time.perf_counter()
import resource
print(imported - start, first - imported, again - first, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""

MLP = """
import sys, time
start = time.perf_counter()
sys.path.insert(0, {here!r})
from workloads import w06_mlp_train as w
data = w.inputs()
prepared = time.perf_counter()
run = w.CASES["mlp"].peers["pierian"](data)
run()
print(time.perf_counter() - prepared)
"""


def measure(program: str, runs: int) -> list[list[float]]:
    """What the program prints, run by run, each in a fresh process."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(runs):
            done = subprocess.run(
                [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=folder
            )
            found.append([float(word) for word in done.stdout.split()])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    here = str(Path(__file__).resolve().parent)
    columns = zip(*measure(FIVE, runs), strict=True)
    imported, first, again, memory = (statistics.median(column) for column in columns)
    print(f"five operators: import {imported * 1e3:.0f} ms, first result {first * 1e3:.1f} ms,", end=" ")
    print(f"another batch size {again * 1e3:.2f} ms, resident {memory:.0f} MB")
    step = statistics.median(row[0] for row in measure(MLP.format(here=here), runs))
    print(f"MLP training step: import + build + compile + step {step:.2f} s")


if __name__ == "__main__":
    main()
