"""What the machine can do at most, measured by a C program in the same run; left out where there is no compiler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from measure import processors

SOURCE = Path(__file__).with_name("ceilings.c")
ROOFS = ("l2", "l3", "memory")


class Ceilings:
    """The best figures seen so far: multiply-adds per second by element type, bytes read per second by size of the data.

    Attributes:
        found: `{"float32": FLOP/s, "float64": FLOP/s, "read": {bytes: bytes per second}}`; empty without a C compiler.
    """

    def __init__(self, threads: int, sizes: Iterable[float]) -> None:
        self._threads = threads
        self._sizes = sorted({int(size) for size in sizes if size} | set(cache_sizes(threads).values()))
        self.found: dict[str, Any] = {}

    def measure(self) -> None:
        """Measure once more and keep what is better."""
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None:
            return
        cpus = processors(self._threads)
        with tempfile.TemporaryDirectory() as folder:
            program = f"{folder}/ceilings"
            build = [compiler, "-O3", "-march=native", "-pthread", str(SOURCE), "-o", program]
            if subprocess.run(build, capture_output=True).returncode:
                return
            done = subprocess.run(
                [program, str(self._threads), *map(str, self._sizes)], capture_output=True, text=True, check=True,
                preexec_fn=lambda: os.sched_setaffinity(0, cpus),
            )  # fmt: skip
        new, old = json.loads(done.stdout), self.found
        self.found = {
            **{kind: max(new[kind], old.get(kind, 0.0)) for kind in ("float32", "float64")},
            "read": {size: max(rate, old.get("read", {}).get(size, 0.0)) for size, rate in new["read"].items()},
            "roofs": {level: str(size) for level, size in cache_sizes(self._threads).items()},
        }

    def apply(self, row: dict[str, Any]) -> None:
        """Add to a row the shortest possible time, what binds it, and which part of that our time reaches."""
        ours = row["peers"].get("pierian", {}).get("min")
        if not self.found or not (row["flops"] or row["bytes"]):
            return
        flops = row["flops"] / self.found["float64" if row["wide"] else "float32"]
        bytes_ = row["bytes"] / self.found["read"][str(int(row["bytes"]))] if row["bytes"] else 0.0
        row["ceiling"], row["bound"] = max((flops, "flops"), (bytes_, "bytes"))
        if ours:
            row["peak"] = row["ceiling"] / ours


def cache_sizes(threads: int) -> dict[str, int]:
    """Sizes of data that lies in the second and last cache and in memory: half of the cache, eight times the last."""
    sizes = {"l2": 1 << 20, "l3": 32 << 20}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        level = f"l{(folder / 'level').read_text().strip()}"
        if level in sizes:
            sizes[level] = int((folder / "size").read_text().strip().removesuffix("K")) * 1024
    memory = min(max(8 * sizes["l3"], 1 << 28), 1 << 30)
    return {"l2": sizes["l2"] // 2 * threads, "l3": sizes["l3"] // 2, "memory": memory}
