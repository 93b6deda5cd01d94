"""Caches and cores of the machine this process runs on."""

from __future__ import annotations

import os
from pathlib import Path

from pierian.compiler.errors import ArgumentError

_DEFAULT = (32 * 1024, 1024 * 1024, 8 * 1024 * 1024)
_UNITS = {"K": 1024, "M": 1024 * 1024, "G": 1024 * 1024 * 1024}


def cache_sizes() -> tuple[int, int, int]:
    """Data cache sizes in bytes of levels 1 to 3, as the kernel reports them; common sizes where it does not."""
    found = dict(enumerate(_DEFAULT, 1))
    for entry in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level = int((entry / "level").read_text())
            kind = (entry / "type").read_text().strip()
            text = (entry / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and level in found and text[-1:] in _UNITS:
            found[level] = int(text[:-1]) * _UNITS[text[-1]]
    return found[1], found[2], found[3]


def default_threads() -> int:
    """How many threads work uses where nobody says: `PIERIAN_NUM_THREADS`, `OMP_NUM_THREADS`, or the CPUs this process may use.

    Raises:
        ArgumentError: a variable that is not a positive number.
    """
    for name in ("PIERIAN_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "").split(",")[0].strip()
        if text:
            if not text.isdigit() or int(text) < 1:
                raise ArgumentError(f"{name} must be a positive number", got=text)
            return int(text)
    return available_cpus()


def available_cpus() -> int:
    """How many CPUs this process may use: its affinity mask, cut by the control group's quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(count, quota) if quota else count)


def _cgroup_quota() -> int | None:
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else max(1, int(limit) // int(period))
    except (OSError, ValueError):
        return None
