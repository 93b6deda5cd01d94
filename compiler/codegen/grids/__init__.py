"""Grids: blocks of matrices that stay in the caches, products that fill them, and products that sum over them."""
