"""Chains of two products: blocks of scores that stay in the caches, the work on their rows, and the second product."""
