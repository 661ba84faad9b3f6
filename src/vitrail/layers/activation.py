"""Activations that PyTorch has, as classes that need no arguments."""

from __future__ import annotations

from torch import nn


class TanhGELU(nn.GELU):
    """GELU by its tanh approximation, as TensorFlow's and JAX's older models compute it."""

    def __init__(self) -> None:
        super().__init__(approximate="tanh")
