"""Peers side by side: their processes, rounds that take turns, results checked against the reference before anything counts."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accuracy import errors
from peers import PACKAGES
from workloads import Case, widened

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Options:
    """How to measure: threads for each peer, rounds, and seconds for each peer in a round."""

    threads: int = 1
    rounds: int = 5
    seconds: float = 0.1


def processors(threads: int) -> list[int]:
    """The processors that `threads` threads are bound to."""
    return sorted(os.sched_getaffinity(0))[:threads]


class Worker:
    """A peer's process, bound to as many processors as it may have threads.

    Args:
        peer: its name in `PACKAGES`.
        threads: how many threads it may use.
        python: the interpreter to run it with.
        root: the source tree that `pierian` is imported from.
    """

    def __init__(self, peer: str, threads: int, python: str = sys.executable, root: Path = HERE.parent) -> None:
        environment = dict(os.environ, BENCH_THREADS=str(threads), JAX_PLATFORMS="cpu", TF_CPP_MIN_LOG_LEVEL="3")
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "NPROC"):
            environment[name] = str(threads)
        if threads == 1:
            environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        if peer == "pierian":
            environment.update(PYTHONPATH=str(root), PIERIAN_CACHE="off")
        self.peer = peer
        self._environment, self._python, self._cpus = environment, python, processors(threads)
        self.start()

    def start(self) -> None:
        """A new process."""
        cpus = self._cpus
        self._process = subprocess.Popen(
            [self._python, str(HERE / "worker.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=self._environment, cwd=tempfile.gettempdir(),
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )  # fmt: skip
        self.hello = self.ask(do="hello", package=PACKAGES[self.peer])

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to one request; an error if the process has ended, and a new one for the next case."""
        if request["do"] == "prepare" and self._process.poll() is not None:
            self.start()
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"error": "the process has ended"}
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": "the process has ended"}

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def start(peers: Sequence[str], threads: int, pythons: dict[str, str], say: Callable[[str], None]) -> dict[str, Worker]:
    """A worker for each peer whose package its interpreter has; `pythons` is by peer or by package."""
    workers = {}
    for peer in peers:
        python = pythons.get(peer, pythons.get(PACKAGES[peer], sys.executable))
        worker = Worker(peer, threads, python)
        if "error" in worker.hello:
            say(f"{peer}: left out ({worker.hello['error']})")
            worker.close()
        else:
            workers[peer] = worker
    return workers


def prepare(worker: Worker, workload: str, name: str, case: Case, right: list[Any], folder: str) -> dict[str, Any]:
    """Let a worker prepare a case and compare its results with the right ones."""
    import numpy as np

    path = Path(folder) / "results.npz"
    path.unlink(missing_ok=True)
    answer = worker.ask(do="prepare", workload=workload, case=name, peer=worker.peer, results=str(path))
    if "error" in answer:
        return {"error": answer["error"], "trace": answer.get("trace")}
    with np.load(path) as file:
        found = [file[key] for key in file.files]
    if len(found) != len(right):
        return {"error": f"{len(found)} results instead of {len(right)}"}
    entry = {"first": answer["first"], **errors(found, right)}
    if not entry["max_error"] <= case.tolerance:
        entry["error"] = f"result is off by {entry['max_error']:.1e}"
    return entry


def interleave(workers: Sequence[Worker], options: Options) -> dict[str, list[dict[str, Any]]]:
    """The answers of each worker's rounds, which take turns A B C A B C."""
    found: dict[str, list[dict[str, Any]]] = {worker.peer: [] for worker in workers}
    for _ in range(options.rounds):
        for worker in workers:
            found[worker.peer].append(worker.ask(do="round", seconds=options.seconds))
    return found


def measure(workload: str, name: str, case: Case, workers: dict[str, Worker], options: Options) -> dict[str, Any]:
    """One row: for each peer minimum and median seconds, errors, first call; the work of the case."""
    row: dict[str, Any] = {
        "workload": workload, "case": name, "threads": options.threads, "flops": case.flops, "bytes": case.bytes,
        "wide": case.wide, "floor": case.floor, "peers": {},
    }  # fmt: skip
    given = case.inputs()
    right = as_list(case.reference(**widened(given)))
    row["numpy_float32"] = errors(as_list(case.reference(**given)), right)
    ready = []
    with tempfile.TemporaryDirectory() as folder:
        for peer, worker in workers.items():
            if peer in case.peers:
                row["peers"][peer] = entry = prepare(worker, workload, name, case, right, folder)
                if "error" not in entry:
                    ready.append(worker)
    del given, right
    for peer, answers in interleave(ready, options).items():
        entry = row["peers"][peer]
        rounds = [answer["times"] for answer in answers if "times" in answer]
        if len(rounds) < len(answers):
            entry["error"] = next(answer["error"] for answer in answers if "error" in answer)
            continue
        times = [seconds for one in rounds for seconds in one]
        entry.update(
            min=min(times), median=statistics.median(times), rounds=[min(one) for one in rounds],
            cpus=statistics.median(answer["cpus"] for answer in answers),
        )  # fmt: skip
    for worker in ready:
        worker.ask(do="drop")
    return row


def as_list(results: Any) -> list[Any]:
    return list(results) if isinstance(results, (list, tuple)) else [results]
