"""Run images through the float graph and let an observer watch every activation that is to be quantised."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, fx

from vitrail.core.errors import QuantizationError
from vitrail.quantization.observers import Observer
from vitrail.quantization.sites import Operand

BATCH_SIZE = 8


class _Watch(fx.Interpreter):
    """Runs the graph and shows the outputs of the chosen nodes to their observers."""

    def __init__(self, graph_module: fx.GraphModule, observers: dict[fx.Node, tuple[str, Observer]]) -> None:
        super().__init__(graph_module)
        self.observers = observers

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.observers:
            name, observer = self.observers[n]
            try:
                observer.update(value)
            except QuantizationError as error:
                raise QuantizationError(
                    f"activation {name} {error}; check the model and the calibration images"
                ) from error
        return value


def calibrate(
    graph_module: fx.GraphModule,
    operands: Iterable[Operand],
    images: Tensor,
    make_observer: Callable[[], Observer],
    *,
    progress: bool = False,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Ranges (minimum, maximum) of activations, by operand name.

    Args:
        images: normalised (n, c, h, w).
        progress: show a bar.

    Raises:
        QuantizationError: an activation is NaN, infinite, or one constant for all images; the message names it.
    """
    wanted = list(operands)
    observers: dict[fx.Node, tuple[str, Observer]] = {}
    for operand in wanted:
        observers.setdefault(operand.node, (operand.name, make_observer()))
    watch = _Watch(graph_module, observers)
    with torch.inference_mode():
        for batch in track(images.split(BATCH_SIZE), "calibrating", disable=not progress):
            watch.run(batch)
    ranges = {operand.name: observers[operand.node][1].range() for operand in wanted}
    for name, (low, high) in ranges.items():
        # attention over a single token has the constant probability 1, and that is right
        if low == high and ":softmax" not in name:
            raise QuantizationError(
                f"activation {name} is {float(low):g} everywhere on all {len(images)} calibration images; pass real, "
                f"normalised images and a trained model, or name the module in keep_float"
            )
    return ranges
