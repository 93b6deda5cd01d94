"""The command `pierian`."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

_COMMANDS = {
    "show": "Print a graph file: typed text, and a table of operators, sizes and flops.",
    "dump": "Print a graph after a pass, or its kernels, plan, LLVM IR or assembly.",
    "explain": "Print which operators became which kernel, why not one more, and the cost of each.",
    "run": "Run a graph file on .npy inputs.",
    "profile": "Run a graph file and print the time of every kernel.",
    "compile": "Compile a graph file to a C library.",
    "cache": "List, verify or prune the programs kept on disk.",
}


class _Lazy(click.Group):
    """Imports a command only when it is called, so that `--help` is quick."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        return importlib.import_module(f"pierian.cli.{name}").command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pierian")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Look at, run and compile Pierian graph files (.pb, .pbtxt, .pir).

    \b
    Examples:
      pierian show model.pb
      pierian dump model.pb --after simplify
      pierian run model.pb --input x=x.npy --output results
      pierian compile model.pb -o build/model

    Exit codes: 0 done, 1 an error in what was given, 2 wrong use of the command.
    """
    context.ensure_object(dict)["debug"] = debug


def main() -> None:
    """Entry point: errors of ours are one line on standard error and exit code 1."""
    debug = "--debug" in sys.argv
    try:
        sys.exit(cli.main(standalone_mode=False, obj={}))  # a command that asks for an exit code gives it here
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        from pierian.compiler.errors import PierianError

        if debug or not isinstance(error, (PierianError, OSError)):
            raise
        text = error.one_line() if isinstance(error, PierianError) else str(error)
        click.echo(f"pierian: {text}", err=True)
        sys.exit(1)


def load_graph(path: str) -> Any:
    """The graph of a file given on the command line."""
    from pierian.compiler.graph.files import load

    return load(path)


def read_sizes(options: tuple[str, ...], graph: Any) -> dict[str, int]:
    """The values of `--size NAME=NUMBER` options, by name of the graph's open sizes."""
    from pierian.compiler.errors import ArgumentError

    sizes, names = {}, graph.dims()
    for item in options:
        name, _, number = item.partition("=")
        if not number.isdigit():
            raise click.UsageError(f"--size takes NAME=NUMBER, not {item!r}")
        if name not in names:
            raise ArgumentError(f"the graph has no open size named {name!r}", expected=", ".join(names) or "none")
        sizes[name] = int(number)
    return sizes


if __name__ == "__main__":
    main()
