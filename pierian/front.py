"""Joins the front end to the rooms below: eager mode is the default builder, and Sessions find the default graph."""

from pierian import eager, graph_mode
from pierian.runtime import hooks

hooks.set_default_graph(graph_mode.default_graph)

__all__ = ["eager"]
