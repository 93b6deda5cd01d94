"""The one version: read by the build, cache keys and compiled artefacts."""

VERSION = "0.1.0"
