"""Two revisions of Pierian side by side: python benchmarks/regress.py REV [REV2] [--cases w03 w05/sq] [--margin 0.05]

Without REV2 the working tree is compared with REV. Both run the workloads of the working tree, in turns. A case counts as slower
when its time has grown by more than the margin beyond doubt: by more than the noise of the rounds, and again in a second
measurement. Ends with status 1 if one has.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from measure import HERE, Options, Worker, as_list, prepare
from report import case_name, duration
from rich.console import Console
from rich.table import Table
from run import chosen
from workloads import Case, widened


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One case in two revisions: seconds, the ratio new / old, and how uncertain that is (both relative)."""

    old: float
    new: float
    ratio: float
    noise: float

    def slower(self, margin: float) -> bool:
        return self.ratio - self.noise > 1 + margin

    def faster(self, margin: float) -> bool:
        return self.ratio + self.noise < 1 / (1 + margin)


@contextlib.contextmanager
def tree(revision: str | None) -> Iterator[Path]:
    """The files of a revision, in a worktree that is removed at the end; the working tree itself for none."""
    if revision is None:
        yield HERE.parent
        return
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/tree"
        git = ["git", "-C", str(HERE), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", place, revision], check=True)
        try:
            yield Path(place)
        finally:
            subprocess.run([*git, "remove", "--force", place], check=True)


def compare(old: Worker, new: Worker, options: Options) -> Comparison:
    """Rounds in turns, the order reversed each time, so that a drift of the machine meets both alike."""
    best: dict[Worker, list[float]] = {old: [], new: []}
    for number in range(options.rounds):
        for worker in (old, new) if number % 2 else (new, old):
            answer = worker.ask(do="round", seconds=options.seconds)
            if "error" in answer:
                raise RuntimeError(answer["error"])
            best[worker].append(min(answer["times"]))
    ratios = [b / a for a, b in zip(best[old], best[new], strict=True)]
    middle = statistics.median(ratios)
    spread = 1.4826 * statistics.median(abs(ratio - middle) for ratio in ratios)  # a standard deviation
    return Comparison(min(best[old]), min(best[new]), middle, 2 * 1.2533 * spread / math.sqrt(len(ratios)))


def check(
    workload: str, name: str, case: Case, workers: Sequence[Worker], options: Options, margin: float
) -> Comparison | str:
    """The comparison, measured again if it says slower; or what is wrong."""
    right = as_list(case.reference(**widened(case.inputs())))
    with tempfile.TemporaryDirectory() as folder:
        for which, worker in zip(("old", "new"), workers, strict=True):
            entry = prepare(worker, workload, name, case, right, folder)
            if "error" in entry:
                return f"{which}: {' '.join(entry['error'].split())[:80]}"
    found = compare(workers[0], workers[1], options)
    if found.slower(margin):
        again = compare(workers[0], workers[1], dataclasses.replace(options, rounds=2 * options.rounds))
        found = min(found, again, key=lambda one: one.ratio - one.noise)
    for worker in workers:
        worker.ask(do="drop")
    return found


def show(found: dict[str, Comparison | str], margin: float) -> int:
    """Print the table; the number of cases that are slower, or fail only in the new revision."""
    table = Table(title="old and new revision; new / old, above 1 is slower")
    for column in ("case", "old", "new", "new / old", "noise", ""):
        table.add_column(column, no_wrap=True, justify="right" if column else "left")
    bad = 0
    for name, one in found.items():
        if isinstance(one, str):
            bad += one.startswith("new")
            table.add_row(name, "", "", "", "", f"[red]{one}[/]" if one.startswith("new") else one)
            continue
        bad += one.slower(margin)
        verdict = "[red]slower[/]" if one.slower(margin) else "[green]faster[/]" if one.faster(margin) else ""
        row = (duration(one.old), duration(one.new), f"{one.ratio:.3f}", f"±{one.noise:.3f}", verdict)
        table.add_row(name, *row)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    ratios = [one.ratio for one in found.values() if isinstance(one, Comparison)]
    if ratios:
        console.print(f"geometric mean of {len(ratios)} cases: {statistics.geometric_mean(ratios):.3f}")
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="a revision")
    parser.add_argument("new", nargs="?", help="another; default the working tree")
    parser.add_argument("--cases", nargs="*", default=[], help="beginnings of workload/case, such as w03 or w05/sq")
    parser.add_argument("--margin", type=float, default=0.05, help="how much slower is too slow (0.05)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.05, help="per revision and round")
    options = parser.parse_args()
    settings = Options(options.threads, options.rounds, options.seconds)
    found: dict[str, Any] = {}
    with tree(options.old) as old, tree(options.new) as new:
        workers = [Worker("pierian", options.threads, root=root) for root in (old, new)]
        for workload, name, case in chosen(options.cases):
            one = found[case_name(workload, name)] = check(workload, name, case, workers, settings, options.margin)
            text = one if isinstance(one, str) else f"{one.ratio:.3f}"
            print(f"{workload}/{name}: {text}", file=sys.stderr, flush=True)
        for worker in workers:
            worker.close()
    return 1 if show(found, options.margin) else 0


if __name__ == "__main__":
    sys.exit(main())
