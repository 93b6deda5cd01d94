"""`pierian profile FILE`."""

from __future__ import annotations

import json

import click

from pierian.cli.main import load_graph
from pierian.cli.run import load_feeds
from pierian.compiler.frozen import values_by_name


@click.command("profile")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=FILE.npy", help="A fed array; once for each placeholder."
)
@click.option(
    "--runs", type=click.IntRange(1), default=5, show_default=True, help="How often to run; the fastest counts."
)
@click.option("--threads", type=int, help="Threads to use; default all CPUs this process may use.")
@click.option("--trace", type=click.Path(dir_okay=False), help="Write a trace for chrome://tracing or Perfetto here.")
@click.option(
    "--peak/--no-peak", "measure", default=True, help="Measure what the machine can do, and print percentages of it."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(
    file: str, inputs: tuple[str, ...], runs: int, threads: int | None, trace: str | None, measure: bool, as_json: bool
) -> None:
    """Run a graph FILE and print where its time goes, kernel by kernel.

    \b
    Example:
      pierian profile model.pb --input x=x.npy --trace trace.json
    """
    from pierian.runtime.profile import Profile
    from pierian.runtime.session import Session

    graph = load_graph(file)
    feeds = load_feeds(inputs)
    found = []
    with Session(graph, threads) as session:
        for _ in range(runs):
            found.append(Profile())
            session.run(list(graph.outputs), feeds, profile=found[-1])
    profile = min(found, key=lambda one: sum(kernel.seconds for kernel in one.kernels))
    peak = None
    if measure:
        from pierian.runtime.peak import measured_peak

        peak = measured_peak(profile.threads)
    if as_json:
        known = {"peak": values_by_name(peak)} if peak else {}
        whole = {"seconds": profile.seconds, "threads": profile.threads, **known, "kernels": profile.rows(peak)}
        click.echo(json.dumps(whole, indent=1))
    else:
        click.echo(profile.table(peak), nl=False)
    if trace is not None:
        profile.save_trace(trace)
        click.echo(f"{trace}: {len(profile.kernels)} events", err=as_json)
