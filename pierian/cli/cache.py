"""`pierian cache`: the compiled programs kept on disk."""

from __future__ import annotations

import datetime

import click

from pierian.compiler.errors import ArgumentError
from pierian.runtime.cache import Entry, ProgramCache, default_cache


@click.group("cache")
def command() -> None:
    """The compiled programs kept on disk, so that a second process starts without compiling.

    \b
    They lie in $PIERIAN_CACHE, or else in pierian/ of the user's cache folder; PIERIAN_CACHE=off turns them off,
    PIERIAN_CACHE_MB bounds their size (512 by default).
    """


@command.command("list")
def list_() -> None:
    """Print the entries, those used last first."""
    cache = _cache()
    _table(cache, cache.entries())


@command.command()
def verify() -> None:
    """Read every entry and check it; exit code 1 if one is broken."""
    cache = _cache()
    entries = cache.entries(verify=True)
    _table(cache, entries)
    if any(entry.problem for entry in entries):
        raise click.exceptions.Exit(1)


@command.command()
@click.option("--to", "megabytes", type=click.IntRange(0), default=None, help="Megabytes to keep; default the bound.")
def prune(megabytes: int | None) -> None:
    """Remove what was used longest ago until the rest fits."""
    removed = _cache().prune(None if megabytes is None else megabytes << 20)
    click.echo(f"removed {removed} {'entry' if removed == 1 else 'entries'}")


def _cache() -> ProgramCache:
    found = default_cache()
    if found is None:
        raise ArgumentError("the cache is off", advice="unset PIERIAN_CACHE")
    return found


def _table(cache: ProgramCache, entries: list[Entry]) -> None:
    from rich.console import Console
    from rich.table import Table

    total = sum(entry.bytes for entry in entries)
    table = Table(title=f"{cache.folder}: {len(entries)} programs, {total:,} bytes", title_justify="left")
    for column in ("program", "bytes", "last used", "state"):
        table.add_column(column, justify="right" if column == "bytes" else "left")
    for entry in entries:
        used = datetime.datetime.fromtimestamp(entry.used).isoformat(" ", "seconds")
        table.add_row(entry.key, f"{entry.bytes:,}", used, entry.problem or "")
    console = Console()
    # Keys are not cut in a file.
    (console if console.is_terminal else Console(width=160)).print(table)
    complaint = cache.complaint()
    if complaint:
        click.echo(f"{cache.folder} {complaint}: nothing is kept there")
