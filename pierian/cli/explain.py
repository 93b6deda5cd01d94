"""`pierian explain FILE`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from pierian.cli.main import load_graph, read_sizes
from pierian.compiler.frozen import values_by_name

if TYPE_CHECKING:
    from pierian.compiler.explain import Explanation


@click.command("explain")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--node", default="", metavar="NAME", help="Only kernels with a node, or an operator, of this name.")
@click.option("--size", "sizes", multiple=True, metavar="NAME=NUMBER", help="A value for an open size.")
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads that times are predicted for."
)
@click.option(
    "--peak",
    "given",
    metavar="GFLOPS,GBYTES",
    help="Float32 GFLOP/s and GB/s of the machine; by default they are measured.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def command(file: str, node: str, sizes: tuple[str, ...], threads: int, given: str | None, as_json: bool) -> None:
    """Print which operators of a graph FILE became which kernel, why not one more, and what each kernel costs.

    \b
    Examples:
      pierian explain model.pb --size batch=128
      pierian explain model.pb --node matmul --peak 118,20
    """
    from pierian.compiler.compile import plan_graph
    from pierian.compiler.cost import Peak
    from pierian.compiler.explain import explain

    graph = load_graph(file)
    known = read_sizes(sizes, graph)
    plan = plan_graph(graph)
    if given is not None:
        try:
            flops, bandwidth = (float(part) * 1e9 for part in given.split(","))
        except ValueError:
            raise click.UsageError(f"--peak takes GFLOPS,GBYTES, not {given!r}") from None
        peak = Peak(flops, bandwidth, bandwidth, 0, "given")
    else:
        from pierian.runtime.peak import measured_peak

        peak = measured_peak(threads)
    found = explain(plan, known, peak, node)
    if as_json:
        kernels = [one.as_json() for one in found]
        whole = {"peak": values_by_name(peak), "two_arrays": plan.program.two_arrays, "kernels": kernels}
        click.echo(json.dumps(whole, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    from pierian.runtime.profile import describe_peak, milliseconds

    table = Table(
        title=f"{len(found)} launches", title_justify="left", caption=describe_peak(peak), caption_justify="left"
    )
    for column in ("kernel", "kind", "flops", "bytes", "at least ms", "bound", "operators, and why they end here"):
        table.add_column(column, justify="right" if column in ("flops", "bytes", "at least ms") else "left")
    for one in found:
        predicted = milliseconds(one.seconds) if one.bound else ""
        table.add_row(one.kernel, one.kind, _number(one.flops), _number(one.bytes), predicted, one.bound, _text(one))
    Console(width=160).print(table)
    for name, reason in plan.program.two_arrays.items():
        click.echo(f"{name} is not updated in place: {reason}")


def _number(size: object) -> str:
    return f"{size:,}" if isinstance(size, int) else str(size)


def _text(one: Explanation) -> str:
    lines = [" ".join(f"{name}:{op}" if name != op else name for name, op in one.nodes)]
    lines += [f"  ends at {value}: {reason}" for value, reason in one.ends.items()]
    lines += [f"  schedule: {note}" for note in one.schedule]
    if one.ways:
        shares = ", ".join(f"{way} {share:.2f}" for way, share in one.ways.items())
        lines.append(f"  predicted, as shares of the time of register tiles: {shares}")
    if one.reads is not None and one.writes is not None:
        lines.append(f"  reads {_number(one.reads)} bytes, writes {_number(one.writes)}")
    lines += [f"  in place: {new} over {old}" for new, old in one.in_place]
    lines += [f"  lines: {one.lines}"] if one.lines else []
    return "\n".join(line for line in lines if line)
