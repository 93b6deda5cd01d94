"""`pierian run FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pierian.cli.main import load_graph


@click.command("run")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=FILE.npy", help="A fed array; once for each placeholder."
)
@click.option(
    "--output", type=click.Path(file_okay=False), help="Folder for the results, NAME.npy each; else they are printed."
)
@click.option("--fetch", "fetches", multiple=True, metavar="NAME", help="What to compute; default the graph's outputs.")
@click.option("--threads", type=int, help="Threads to use; default all CPUs this process may use.")
def command(
    file: str, inputs: tuple[str, ...], output: str | None, fetches: tuple[str, ...], threads: int | None
) -> None:
    """Run a graph FILE once.

    \b
    Example:
      pierian run model.pb --input x=x.npy --output results
    """
    import numpy as np

    from pierian.compiler.graph.files import write_atomically
    from pierian.runtime.session import Session

    graph = load_graph(file)
    feeds = load_feeds(inputs)
    wanted = (
        dict(zip(graph.output_names, graph.outputs, strict=True)) if not fetches else {name: name for name in fetches}
    )
    with Session(graph, threads) as session:
        results = session.run(wanted, feeds)
    for name, array in results.items():
        if output is None:
            click.echo(f"{name} = {np.asarray(array)}")
            continue
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        import io

        content = io.BytesIO()
        np.save(content, array)
        target = folder / f"{name.replace('/', '_').replace(':', '_')}.npy"
        write_atomically(target, content.getvalue())
        click.echo(f"{target}: {np.asarray(array).dtype}{list(np.shape(array))}")


def load_feeds(inputs: tuple[str, ...]) -> dict[str, Any]:
    """The arrays of `--input NAME=FILE.npy` options, by name."""
    import numpy as np

    from pierian.compiler.errors import ArgumentError

    feeds = {}
    for item in inputs:
        name, separator, path = item.partition("=")
        if not separator:
            raise click.UsageError(f"--input takes NAME=FILE.npy, not {item!r}")
        try:
            feeds[name] = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ArgumentError(f"input {name!r} cannot be read", where=path, got=str(error)) from None
    return feeds
