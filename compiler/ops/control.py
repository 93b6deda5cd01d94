"""Structured control flow."""
