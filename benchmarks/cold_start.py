"""Cold start, each figure the median of fresh processes: import, first result of a five-operator graph, MLP step; first with
nothing on disk, then with the programs that an earlier process has left in the cache.

python benchmarks/cold_start.py [--runs 5]
"""

from __future__ import annotations

import argparse
import os
import shutil
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
run = w.CASES["mlp"].peers["pierian"](data)
run()
print(time.perf_counter() - start)
"""


def measure(program: str, runs: int, warm: bool) -> list[float]:
    """The medians of what the program prints over fresh processes, with or without programs on disk.

    One process goes before, so that Python's own compiled files are there in both cases.
    """
    found = []
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ, PYTHONPYCACHEPREFIX=f"{folder}/python", PIERIAN_CACHE=f"{folder}/programs")
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for run in range(runs + 1):
            if not warm:
                shutil.rmtree(f"{folder}/programs", ignore_errors=True)
            command = [sys.executable, "-c", program]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env=environment)
            if run:
                found.append([float(word) for word in done.stdout.split()])
    return [statistics.median(column) for column in zip(*found, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    here = str(Path(__file__).resolve().parent)
    for warm in (False, True):
        imported, first, again, memory = measure(FIVE, runs, warm)
        print("programs from disk" if warm else "nothing on disk")
        print(f"  five operators: import {imported * 1e3:.0f} ms, first result {first * 1e3:.1f} ms,", end=" ")
        print(f"another batch size {again * 1e3:.2f} ms, resident {memory:.0f} MB")
        (step,) = measure(MLP.format(here=here), runs, warm)
        print(f"  MLP training step: import + build + compile + step {step:.2f} s")


if __name__ == "__main__":
    main()
