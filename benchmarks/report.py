"""Tables and pictures of measured runs: python benchmarks/report.py RUN.json ... [--table accuracy] [--plot FOLDER]"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers import PACKAGES
from rich.console import Console
from rich.table import Table
from targets import target

Row = dict[str, Any]


def read(paths: Sequence[Path]) -> tuple[list[dict[str, Any]], list[Row]]:
    """The runs, and their rows together; a case measured again counts only as it was last."""
    runs = [json.loads(path.read_text()) for path in paths]
    rows = {(row["workload"], row["case"], row["threads"]): row for run in runs for row in run["rows"]}
    return runs, [rows[key] for key in sorted(rows, key=lambda key: (key[2], key[0]))]


def timed(row: Row) -> dict[str, float]:
    """Seconds of the peers that gave right results, the fastest first."""
    found = {peer: entry["min"] for peer, entry in row["peers"].items() if "min" in entry and "error" not in entry}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def others(row: Row) -> list[tuple[str, float]]:
    """The ranked peers, the fastest first."""
    return [(peer, seconds) for peer, seconds in timed(row).items() if peer != "pierian" and peer not in row["floor"]]


def ratio(row: Row) -> float | None:
    """Best peer's time over ours."""
    ours, rest = timed(row).get("pierian"), others(row)
    return rest[0][1] / ours if ours and rest else None


def verdict(row: Row) -> str:
    """Whether the target is met, or what is missing."""
    wanted, found = target(row["workload"], row["case"]), ratio(row)
    if wanted.speed is None:
        return ""
    if found is None:
        return "missing"
    missing = []
    if found < wanted.speed:
        missing.append(f"x{wanted.speed / found:.2f}")
    if wanted.peak and row.get("peak", 1.0) < wanted.peak:
        missing.append(f"below {wanted.peak:.0%}")
    return ", ".join(missing) or "met"


def case_name(workload: str, case: str) -> str:
    """A case as people call it: the workload's number is enough."""
    return f"{workload.partition('_')[0]}/{case}"


def duration(seconds: float) -> str:
    for factor, unit in ((1e6, "us"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def summary(rows: Sequence[Row]) -> Table:
    """One line for each case: us, the two best peers, the ratio, the part of the peak, and the targets."""
    table = Table(title="minimum times; ratio = best peer / pierian; peak = part of what flops or bytes allow at most")
    for column in (
        "case",
        "thr",
        "pierian",
        "best peer",
        "next peer",
        "ratio",
        "peak",
        "bound",
        "after spine",
        "after speed",
    ):
        table.add_column(column, no_wrap=True, justify="left" if column in ("case", "bound") else "right")
    table.add_column("target", no_wrap=True)
    for row in rows:
        ours, rest, wanted, found = (
            timed(row).get("pierian"),
            others(row),
            target(row["workload"], row["case"]),
            ratio(row),
        )
        state = verdict(row)
        colour = "green" if state == "met" else "red"
        table.add_row(
            case_name(row["workload"], row["case"]), str(row["threads"]), duration(ours) if ours else "-",
            *(f"{peer} {duration(seconds)}" for peer, seconds in rest[:2]), *([""] * (2 - len(rest[:2]))),
            number(found), f"{row['peak']:.0%}" if "peak" in row else "", row.get("bound", ""), number(wanted.spine),
            number(wanted.speed), f"[{colour}]{state}[/]" if state else "",
        )  # fmt: skip
    return table


def _by_peer(title: str, rows: Sequence[Row]) -> tuple[list[str], Table]:
    """A table to be filled with a line for each case and a column for each peer that any case has."""
    peers = [peer for peer in PACKAGES if any(peer in row["peers"] for row in rows)]
    table = Table(title=title)
    table.add_column("case", no_wrap=True)
    for peer in peers:
        table.add_column(peer, justify="right")
    return peers, table


def times(rows: Sequence[Row]) -> Table:
    """Every peer's minimum and, in brackets, median."""
    peers, table = _by_peer("minimum (median) of every peer; the fastest in bold", rows)
    for row in rows:
        best = next(iter(timed(row)), None)
        cells = []
        for peer in peers:
            entry = row["peers"].get(peer, {})
            cell = f"{duration(entry['min'])} ({duration(entry['median'])})" if "min" in entry else ""
            cells.append("[red]failed[/]" if "error" in entry else f"[bold]{cell}[/]" if peer == best else cell)
        table.add_row(case_name(row["workload"], row["case"]), *cells)
    return table


def first_calls(rows: Sequence[Row]) -> Table:
    """Build, compile and first run."""
    peers, table = _by_peer("build, compile and first call (imports excluded)", rows)
    for row in rows:
        entries = [row["peers"].get(peer, {}) for peer in peers]
        table.add_row(
            case_name(row["workload"], row["case"]),
            *(duration(entry["first"]) if "first" in entry else "" for entry in entries),
        )
    return table


def accuracy(rows: Sequence[Row]) -> Table:
    """Errors against the reference in the next wider type: largest over the largest magnitude, and root mean square."""
    table = Table(
        title="largest (root mean square) relative error; NumPy float32 is the reference's own formula in float32"
    )
    peers = [
        peer for peer in PACKAGES if peer != "numpy" and any("max_error" in row["peers"].get(peer, {}) for row in rows)
    ]
    for column in ("case", "NumPy float32", *peers):
        table.add_column(column, no_wrap=True, justify="left" if column == "case" else "right")

    def cell(entry: dict[str, Any]) -> str:
        return f"{entry['max_error']:.1e} ({entry['rms_error']:.1e})" if "max_error" in entry else ""

    for row in rows:
        cells = [cell(row["numpy_float32"]), *(cell(row["peers"].get(peer, {})) for peer in peers)]
        table.add_row(case_name(row["workload"], row["case"]), *cells)
    return table


def complaints(rows: Sequence[Row]) -> list[str]:
    """Peers that failed, and peers that used more processors than they may have."""
    found = []
    for row in rows:
        for peer, entry in row["peers"].items():
            name = f"{row['workload']}/{row['case']}: {peer}"
            if "error" in entry:
                found.append(f"{name}: {' '.join(entry['error'].split())[:150]}")
            elif entry.get("cpus", 0) > row["threads"] * 1.1:
                found.append(f"{name} used {entry['cpus']:.1f} processors with {row['threads']} threads")
    return found


def show(rows: Sequence[Row], tables: Sequence[str] = ("summary",), file: Any = None) -> None:
    """Print tables, the geometric mean of the ratios, how many targets are met, and complaints."""
    console = Console(file=file, width=None if sys.stdout.isatty() and file is None else 220)
    for name in tables:
        console.print(TABLES[name](rows))
    ratios = [found for row in rows if (found := ratio(row))]
    if ratios:
        states = [state for row in rows if (state := verdict(row))]
        console.print(
            f"geometric mean of {len(ratios)} ratios: {statistics.geometric_mean(ratios):.2f}; "
            f"targets met: {states.count('met')} of {len(states)}"
        )
    for line in complaints(rows):
        console.print(line, markup=False, highlight=False)


TABLES = {"summary": summary, "times": times, "first": first_calls, "accuracy": accuracy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--table", action="append", choices=TABLES, help="which tables; default summary")
    parser.add_argument("--plot", type=Path, help="folder for pictures")
    options = parser.parse_args()
    runs, rows = read(options.files)
    show(rows, options.table or ["summary"])
    if options.plot:
        from plots import plot

        plot(runs, rows, options.plot)


if __name__ == "__main__":
    main()
