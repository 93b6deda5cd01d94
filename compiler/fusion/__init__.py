"""Deciding which operators become one kernel."""

from pierian.compiler.fusion.cluster import Cluster, Fusion
from pierian.compiler.fusion.fuser import fuse

__all__ = ["Cluster", "Fusion", "fuse"]
