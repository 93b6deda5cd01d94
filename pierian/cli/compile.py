"""`pierian compile FILE -o PREFIX`."""

from __future__ import annotations

import click

from pierian.cli.main import load_graph


@click.command("compile")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("-o", "--output", "prefix", required=True, metavar="PREFIX", help="Where to write PREFIX.o, .h and .so.")
@click.option("--name", help="Prefix of the C names; default from PREFIX.")
def command(file: str, prefix: str, name: str | None) -> None:
    """Compile a graph FILE ahead of time to a C library that needs neither Python nor Pierian.

    \b
    Example:
      pierian compile model.pb -o build/model
      cc main.c build/model.o -lm -o main
    """
    from pierian.compiler.aot.library import compile_library

    for path in compile_library(load_graph(file), prefix, name):
        click.echo(str(path))
