"""Deciding which operators become one kernel."""

from pierian.compiler.fusion.cluster import Cluster, Fusion, fuse

__all__ = ["Cluster", "Fusion", "fuse"]
