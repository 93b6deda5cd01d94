"""Measures us and the installed peers side by side. See README.md in this folder.

python benchmarks/run.py [w03 w05/sq ...] [--threads 2] [--python torch=/path/to/python] [--json RUN.json] [--plot FOLDER]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import workloads
from ceilings import Ceilings
from measure import HERE, Options, measure, start
from peers import PACKAGES
from report import TABLES, case_name, ratio, show


def machine() -> dict[str, Any]:
    """What was measured on."""
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "processor": model, "processors": len(os.sched_getaffinity(0)), "architecture": platform.machine(),
        "system": platform.platform(),
    }  # fmt: skip


def revision() -> str:
    """The commit measured, marked if there are changes."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def chosen(wanted: Sequence[str]) -> list[tuple[str, str, workloads.Case]]:
    """The cases whose `workload/case` (the workload's number is enough) begins with one of the words, or is one of them."""
    cases = {
        case_name(workload, name): (workload, name, case)
        for workload, cases in workloads.load().items()
        for name, case in cases.items()
    }
    found: dict[str, tuple[str, str, workloads.Case]] = {}
    for word in wanted or [""]:
        number, slash, case = word.partition("/")
        short = f"{number.split('_')[0]}{slash}{case}"
        names = [short] if short in cases else [name for name in cases if name.startswith(short)]
        if not names:
            raise SystemExit(f"no case begins with {word!r}")
        found.update({name: cases[name] for name in names})
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, fromfile_prefix_chars="@")
    parser.add_argument("cases", nargs="*", help="beginnings of workload/case, such as w03 or w05/sq")
    parser.add_argument("--peers", default=",".join(PACKAGES), help="comma separated")
    parser.add_argument(
        "--python", action="append", default=[], metavar="NAME=PATH",
        help="the interpreter of a peer, or of all peers of a package (torch, tensorflow, ...); may be repeated",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1, help="per peer and round")
    parser.add_argument("--json", type=Path, help="where to write the run")
    parser.add_argument("--table", action="append", choices=TABLES, help="which tables; default summary")
    parser.add_argument("--plot", type=Path, help="folder for pictures")
    options = parser.parse_args()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    cases = chosen(options.cases)
    wanted = [peer for peer in options.peers.split(",") if any(peer in case.peers for _, _, case in cases)]
    pythons = dict(given.split("=", 1) for given in options.python)
    ceilings = Ceilings(options.threads, [case.bytes for _, _, case in cases])
    ceilings.measure()
    workers = start(wanted, options.threads, pythons, say)
    run: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "machine": machine(),
        "revision": revision(), "threads": options.threads,
        "versions": {peer: worker.hello["version"] for peer, worker in workers.items()}, "rows": [],
    }  # fmt: skip
    settings = Options(options.threads, options.rounds, options.seconds)
    for workload, name, case in cases:
        row = measure(workload, name, case, workers, settings)
        run["rows"].append(row)
        found = ratio(row)
        say(f"{workload}/{name}: " + (f"ratio {found:.2f}" if found else "no ratio"))
    for worker in workers.values():
        worker.close()
    ceilings.measure()
    run["ceilings"] = ceilings.found
    for row in run["rows"]:
        ceilings.apply(row)
    if options.json:
        options.json.write_text(json.dumps(run, indent=1) + "\n")
    show(run["rows"], options.table or ["summary"])
    if options.plot:
        from plots import plot

        plot([run], run["rows"], options.plot)


if __name__ == "__main__":
    main()
