"""The passes, in order."""

from __future__ import annotations


def run_passes(graph, options):  # type: ignore[no-untyped-def]
    return graph
