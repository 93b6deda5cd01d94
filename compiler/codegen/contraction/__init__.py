"""Contractions: packed blocks, a register-tiled microkernel, and fused epilogues."""
