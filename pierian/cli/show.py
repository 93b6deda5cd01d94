"""`pierian show FILE`."""

from __future__ import annotations

from typing import Any

import click

from pierian.cli.main import load_graph, read_sizes


@click.command("show")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--text/--no-text", default=True, help="Print the typed text.")
@click.option("--table/--no-table", default=True, help="Print the table of operators and parameters.")
@click.option("--locations/--no-locations", default=False, help="With the user's lines behind nodes.")
@click.option("--memory/--no-memory", default=True, help="Print the memory a run takes.")
@click.option("--size", "sizes", multiple=True, metavar="NAME=NUMBER", help="A value for an open size.")
@click.option("--threads", type=click.IntRange(1), help="Threads of the run; default all CPUs this process may use.")
def command(
    file: str, text: bool, table: bool, locations: bool, memory: bool, sizes: tuple[str, ...], threads: int | None
) -> None:
    """Print a graph FILE: its typed text, its parameters, what each operator costs, and the memory a run takes.

    \b
    Examples:
      pierian show model.pb --no-text
      pierian show model.pb --no-text --no-table --size batch=128
    """
    from pierian.compiler.graph.printer import print_graph

    graph = load_graph(file)
    if text:
        click.echo(print_graph(graph, locations))
    if table:
        _tables(graph)
    if memory:
        _memory(graph, read_sizes(sizes, graph), threads)


def _tables(graph: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from pierian.compiler.cost import bytes_of, flops

    console = Console()
    variables = Table(title="variables", title_justify="left")
    for column in ("name", "type", "elements", "bytes", "trainable"):
        variables.add_column(column, justify="right" if column in ("elements", "bytes") else "left")
    for declaration in graph.variables.values():
        size, total = declaration.type.size, bytes_of(declaration.type)
        variables.add_row(
            declaration.name, str(declaration.type), str(size), str(total), "yes" if declaration.trainable else ""
        )
    if graph.variables:
        console.print(variables)
    operators = Table(title="operators", title_justify="left")
    for column in ("operator", "nodes", "flops", "result bytes"):
        operators.add_column(column, justify="left" if column == "operator" else "right")
    rows: dict[str, list[Any]] = {}
    for node in graph.walk():
        row = rows.setdefault(node.op.name, [0, 0, 0])
        row[0] += 1
        row[1] = flops(node) + row[1]
        row[2] = sum((bytes_of(value.type) for value in node.outputs), row[2])
    for name, row in sorted(rows.items(), key=lambda item: -item[1][0]):
        operators.add_row(name, *map(str, row))
    sums: list[Any] = [0, 0, 0]
    for counts in rows.values():
        sums = [one + more for one, more in zip(sums, counts, strict=True)]
    operators.add_row("all", *map(str, sums), end_section=True)
    console.print(operators)


def _memory(graph: Any, sizes: dict[str, int], requested: int | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from pierian.compiler.compile import plan_graph
    from pierian.compiler.dim import Dim
    from pierian.compiler.footprint import at_sizes
    from pierian.runtime.threads import thread_count

    found = plan_graph(graph).footprint
    threads = thread_count(requested)
    table = Table(title=f"memory of a run, threads: {threads}", title_justify="left")
    table.add_column("what")
    table.add_column("bytes", justify="right", overflow="fold")

    def add(what: str, size: Dim, last: bool = False) -> None:
        known = at_sizes(size, sizes)
        table.add_row(what, f"{known:,}" if isinstance(known, int) else str(known), end_section=last)

    add("inputs", found.inputs)
    add("results", found.results)
    add("variables", found.variables)
    add("second arrays of variables not updated in place", found.second_arrays)
    add("constants", found.constants)
    add("workspace: temporaries", found.temporaries)
    add("workspace: shared by the threads of a kernel", found.shared)
    add("workspace: scratch of each thread", found.scratch, last=True)
    add("workspace", found.workspace(threads))
    add("all", found.peak(threads))
    console = Console()
    # Formulas may be long, and a file has room for them.
    (console if console.is_terminal else Console(width=160)).print(table)
