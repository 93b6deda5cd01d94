"""Measures us and the installed peers side by side and prints ratios. See README.md in this folder."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

NEEDS = {
    "pierian": "pierian",
    "numpy": "numpy",
    "torch": "torch",
    "torch_compile": "torch",
    "jax": "jax",
    "numba": "numba",
}


def installed(peer: str) -> bool:
    return importlib.util.find_spec(NEEDS.get(peer, peer)) is not None


class Worker:
    """A peer's process."""

    def __init__(self, peer: str, threads: int, folder: str) -> None:
        environment = dict(os.environ, BENCH_THREADS=str(threads), JAX_PLATFORMS="cpu")
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
            environment[name] = str(threads)
        if threads == 1:
            environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        self.peer = peer
        command = [sys.executable, str(HERE / "worker.py")]
        if threads == 1:
            command = ["taskset", "-c", "0", *command]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=environment, cwd=folder,
        )  # fmt: skip

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended"}

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def disagreement(case: Any, path: Path) -> float:
    """The largest error against the float64 reference, relative to the largest magnitude."""
    import numpy as np

    if case.reference is None:
        return 0.0
    expected = case.reference(**case.inputs())
    expected = list(expected) if isinstance(expected, (list, tuple)) else [expected]
    worst = 0.0
    with np.load(path) as file:
        for name, wanted in zip(file.files, expected, strict=True):
            wanted = np.asarray(wanted, dtype=np.float64)
            error = np.max(np.abs(file[name].astype(np.float64).reshape(wanted.shape) - wanted), initial=0.0)
            worst = max(worst, float(error / max(np.max(np.abs(wanted), initial=0.0), 1e-30)))
    return worst


def run_case(workload: str, name: str, case: Any, peers: list[str], threads: int, rounds: int, seconds: float) -> Any:
    """Minimum and median seconds of each peer on one case."""
    row: dict[str, Any] = {"workload": workload, "case": name, "threads": threads, "peers": {}}
    with tempfile.TemporaryDirectory() as folder:
        workers = []
        for peer in peers:
            if peer not in case.peers:
                continue
            worker = Worker(peer, threads, folder)
            path = Path(folder) / f"{peer}.npz"
            answer = worker.ask(do="prepare", workload=workload, case=name, peer=peer, results=str(path))
            entry = row["peers"][peer] = {"first": answer.get("first")}
            if "error" in answer:
                entry["error"] = answer["error"]
                worker.close()
                continue
            entry["disagreement"] = disagreement(case, path)
            if entry["disagreement"] > case.tolerance:
                entry["error"] = f"result is off by {entry['disagreement']:.1e}"
                worker.close()
                continue
            workers.append(worker)
        times: dict[str, list[float]] = {worker.peer: [] for worker in workers}
        for _ in range(rounds):
            for worker in workers:
                answer = worker.ask(do="round", seconds=seconds)
                times[worker.peer] += answer.get("times", [])
        for worker in workers:
            worker.close()
            measured = times[worker.peer]
            if measured:
                row["peers"][worker.peer].update(min=min(measured), median=statistics.median(measured))
    timed = {peer: entry["min"] for peer, entry in row["peers"].items() if "min" in entry}
    others = {peer: value for peer, value in timed.items() if peer != "pierian"}
    if "pierian" in timed and others:
        best = min(others, key=lambda peer: others[peer])
        row.update(best=best, ratio=others[best] / timed["pierian"])
    if "pierian" in timed:
        row.update(gflops=case.flops / timed["pierian"] / 1e9, gbytes=case.bytes / timed["pierian"] / 1e9)
    return row


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for factor, unit in ((1e6, "us"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.2f} {unit}"
    return f"{seconds:.2f} s"


def print_table(rows: list[dict[str, Any]], peers: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="seconds per call, minimum (median); ratio = best peer / pierian")
    for column in ("workload", "case", "threads", *peers, "ratio", "best peer", "GFLOP/s", "GB/s"):
        table.add_column(column)
    for row in rows:
        cells = []
        for peer in peers:
            entry = row["peers"].get(peer, {})
            if "min" in entry:
                cells.append(f"{duration(entry['min'])} ({duration(entry['median'])})")
            else:
                cells.append(entry.get("error", "-")[:40])
        gflops, gbytes = row.get("gflops", 0.0), row.get("gbytes", 0.0)
        table.add_row(
            row["workload"], row["case"], str(row["threads"]), *cells,
            f"{row['ratio']:.2f}" if "ratio" in row else "-", row.get("best", "-"),
            f"{gflops:.1f}" if gflops else "", f"{gbytes:.1f}" if gbytes else "",
        )  # fmt: skip
    Console(width=200 if not sys.stdout.isatty() else None).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", help="beginnings of workload names, or workload/case")
    parser.add_argument("--peers", default=",".join(NEEDS), help="comma separated")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="per peer and round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    import workloads

    peers = [peer for peer in options.peers.split(",") if installed(peer)]
    rows = []
    for workload, cases in workloads.load().items():
        for name, case in cases.items():
            wanted = options.workloads or [""]
            if not any(workload.startswith(w) or f"{workload}/{name}".startswith(w) for w in wanted):
                continue
            rows.append(run_case(workload, name, case, peers, options.threads, options.rounds, options.seconds))
            print(f"{workload}/{name}: ratio {rows[-1].get('ratio', float('nan')):.2f}", file=sys.stderr, flush=True)
    print_table(rows, peers)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
