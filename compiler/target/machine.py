"""Caches and cores of the machine this process runs on."""

from __future__ import annotations

import functools
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
    """How many CPUs this process may use: its affinity mask, cut by the quota of its control groups."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, min(count, quota) if quota else count)


@functools.lru_cache(maxsize=1)
def cgroup_quota(root: Path = Path("/")) -> int | None:
    """Whole CPUs that the control groups allow: the smallest quota of this process's group and those around it; None without one.
    Looked up once, in half a millisecond.

    Args:
        root: where `proc` and `sys` are.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    found: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if not controllers:
            top, read = root / "sys/fs/cgroup", _quota
        elif "cpu" in names:
            top, read = next((m for m in _mounts(root, controllers) if m.is_dir()), root), _quota_of_version_1
        else:
            continue
        # In a container the path may be that of the host, which is not there; the container's own group is the top one.
        group = top / path.strip("/")
        for place in (group, *group.parents):
            if place.is_relative_to(top):
                found += read(place)
    return max(1, min(found)) if found else None


def _mounts(root: Path, controllers: str) -> list[Path]:
    return [root / "sys/fs/cgroup" / name for name in (controllers, "cpu", "cpu,cpuacct")]


def _quota(group: Path) -> list[int]:
    try:
        limit, period = (group / "cpu.max").read_text().split()
        return [] if limit == "max" else [int(limit) // int(period)]
    except (OSError, ValueError, ZeroDivisionError):
        return []


def _quota_of_version_1(group: Path) -> list[int]:
    try:
        limit = int((group / "cpu.cfs_quota_us").read_text())
        return [] if limit <= 0 else [limit // int((group / "cpu.cfs_period_us").read_text())]
    except (OSError, ValueError, ZeroDivisionError):
        return []
