"""One peer in a process of its own, for all cases of a run: prepares a case, then times rounds as the coordinator asks.

Speaks JSON lines on standard input and output: `{"do": "hello" | "prepare" | "round" | "drop", ...}`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

WARM_SECONDS, WARM_CALLS = 0.05, 20
BATCH_SECONDS = 50e-6
"""Shorter calls are timed several at a time."""
LONGEST_REST, GLANCE = 1.0, 0.005
IDLE = 0.1
"""The part of a processor below which a process rests."""


class Worker:
    """What a peer's process does when asked."""

    def __init__(self) -> None:
        self._run: Any = None

    def hello(self, package: str) -> dict[str, Any]:
        """Import the peer's package."""
        start = time.perf_counter()
        module = importlib.import_module(package)
        version = str(getattr(module, "__version__", "?"))
        return {"version": version, "import": time.perf_counter() - start, "python": sys.version.split()[0]}

    def prepare(self, workload: str, case: str, peer: str, results: str) -> dict[str, Any]:
        """Build, compile and run a case; write its results for the coordinator to check; warm up."""
        import numpy as np
        import workloads

        self.drop()
        found = workloads.load(workload)[workload][case]
        inputs = found.inputs()
        start = time.perf_counter()
        run = found.peers[peer](inputs)
        first = run()
        np.asarray(first[0] if isinstance(first, (list, tuple)) else first)
        seconds = time.perf_counter() - start
        if found.calls > 1:
            run = found.peers[peer](inputs)  # a state that begins anew
        np.savez(results, *workloads.results(found, run))
        start = time.perf_counter()
        for _ in range(WARM_CALLS):
            run()
            if time.perf_counter() - start > WARM_SECONDS:
                break
        self._run = run
        _rest()
        return {"first": seconds}

    def drop(self) -> dict[str, Any]:
        """Forget the case, so that its memory is free."""
        self._run = None
        gc.collect()
        return {}

    def round(self, seconds: float) -> dict[str, Any]:
        """Times of single calls for about `seconds`, and the processor time over the wall time meanwhile."""
        run, clock = self._run, time.perf_counter
        start = clock()
        run()
        once = clock() - start
        batch = max(1, int(BATCH_SECONDS / max(once, 1e-9)))
        times: list[float] = []
        gc.disable()
        used, begin = time.process_time(), clock()
        end = begin + seconds
        while clock() < end or not times:
            start = clock()
            for _ in range(batch):
                run()
            times.append((clock() - start) / batch)
        used, wall = time.process_time() - used, clock() - begin
        gc.enable()
        _rest()
        return {"times": times, "cpus": used / wall}


def _rest() -> None:
    """Wait until the threads of this process sleep: many pools spin for a while (OpenMP's for 200 ms, say), and would take the
    processors away from whoever is measured next."""
    end = time.perf_counter() + LONGEST_REST
    while time.perf_counter() < end:
        used, begin = time.process_time(), time.perf_counter()
        time.sleep(GLANCE)
        if time.process_time() - used < IDLE * (time.perf_counter() - begin):
            return


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a peer prints does not disturb the conversation
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
