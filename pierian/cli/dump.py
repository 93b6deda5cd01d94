"""`pierian dump FILE`."""

from __future__ import annotations

import click

from pierian.cli.main import load_graph


@click.command("dump")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "--after", metavar="PASS", help="The graph after that pass; `all` after every pass, `none` before the first."
)
@click.option(
    "--emit", type=click.Choice(["kernels", "plan", "llvm", "asm", "schedule"]), help="A stage behind the passes."
)
@click.option("--passes", is_flag=True, help="List the passes and why they stand where they stand.")
def command(file: str, after: str | None, emit: str | None, passes: bool) -> None:
    """Print FILE at a stage of compilation; without options after all passes.

    \b
    Examples:
      pierian dump model.pb --after cse
      pierian dump model.pb --emit kernels
    """
    from pierian.compiler.compile import compile_graph
    from pierian.compiler.graph.printer import print_graph
    from pierian.compiler.options import CompileOptions
    from pierian.compiler.pipeline import pipeline, run_passes
    from pierian.compiler.state import close_for_compilation

    options = CompileOptions()
    steps = pipeline(options)
    if passes:
        for step, reason in steps:
            click.echo(f"{step.name:16} {reason}")
        return
    graph = load_graph(file)
    if emit is not None:
        click.echo(_stage(compile_graph(graph, options), emit))
        return
    closed, _ = close_for_compilation(graph)
    if after == "none":
        click.echo(print_graph(closed, locations=False))
    elif after == "all":
        for step, _ in steps:
            click.echo(f"# after {step.name}")
            click.echo(print_graph(run_passes(closed, options, step.name), locations=False))
    else:
        click.echo(print_graph(run_passes(closed, options, after), locations=False))


def _stage(compiled: object, emit: str) -> str:
    from pierian.compiler.compile import Compiled
    from pierian.compiler.kernel.printer import print_kernel, print_program

    assert isinstance(compiled, Compiled)
    if emit == "llvm":
        return compiled.image.llvm()
    if emit == "asm":
        return compiled.image.assembly()
    if emit == "plan":
        return print_program(compiled.program)
    parts = []
    for kernel, (name, code) in compiled.image.kernels.items():
        notes = "\n".join(f"# {note}" for note in code.schedule)
        parts.append(notes + "\n" + (print_kernel(kernel, name) if emit == "kernels" else ""))
    return "\n".join(parts)
