"""One peer in a process of its own: prepares a case, then times rounds as the coordinator asks.

Speaks JSON lines on standard input and output: `{"do": "prepare", ...}` and `{"do": "round", "seconds": s}`.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a peer prints does not disturb the conversation
    run = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "prepare":
                run, answer = prepare(request)
            else:
                assert run is not None
                answer = {"times": measure(run, request["seconds"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        out.write(json.dumps(answer) + "\n")
        out.flush()


def prepare(request: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    import numpy as np
    import workloads
    from frameworks import as_arrays

    case = workloads.load(request["workload"])[request["workload"]][request["case"]]
    inputs = case.inputs()
    start = time.perf_counter()
    run = case.peers[request["peer"]](inputs)
    result = as_arrays(run())
    first = time.perf_counter() - start
    np.savez(request["results"], *result)
    for _ in range(3):
        run()
    return run, {"first": first}


def measure(run: Any, seconds: float) -> list[float]:
    """Times of single calls for about `seconds`; short calls are timed in batches of at least 20 microseconds."""
    clock = time.perf_counter
    start = clock()
    run()
    once = clock() - start
    batch = max(1, int(50e-6 / max(once, 1e-9)))
    times = []
    end = clock() + seconds
    while clock() < end or len(times) < 3:
        start = clock()
        for _ in range(batch):
            run()
        times.append((clock() - start) / batch)
    return times


if __name__ == "__main__":
    main()
