"""The schema of the graph IR."""
