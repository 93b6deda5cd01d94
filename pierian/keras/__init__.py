"""Keras's names for what stands elsewhere: `keras.losses`, `keras.optimizers`, `keras.activations`."""

from pierian import losses, optimizers
from pierian import nn as activations

__all__ = ["activations", "losses", "optimizers"]
