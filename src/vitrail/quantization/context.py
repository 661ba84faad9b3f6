"""What every method of quantisation reads: the graph, its operations, and what calibration observed of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx

from vitrail.quantization.config import QuantizationConfig
from vitrail.quantization.graph.ops import QuantizedOp
from vitrail.quantization.resume import ResumeFile


@dataclass
class Observation:
    """Sampled factors and gradients of one operation on the calibration images.

    Attributes:
        left: sampled rows (n, d) that meet the weight; of a product of two activations whole matrices (t, n, k).
        right: matrices (t, k, m) that meet those of ``left``; None where the right factor is a weight.
        sample_weight: number of rows (or matrices) of all images that each sample stands for, (n,). The rows with the
            largest values are all kept, with weight 1: a few tokens of a trained transformer are a hundred times
            larger than the others, and their errors decide.
        image: index of the calibration image that each sample comes from, (n,).
        fisher: mean squared gradient of the output at every position of every image, in order, (positions,); None
            without gradients or where the operation is not dense.
        gradient: gradient of the output at the sampled positions, (n, outputs) or (t, n, m); None without gradients.
        low, high: smallest and largest value of each input channel over all images (one where there is no weight).
        right_low, right_high: smallest and largest value of a right factor that is no weight.
        output: sample of a convolution's output; None for other operations.
        left_count, right_count: number of elements of a weight, or of an activation for one image.
    """

    left: Tensor
    sample_weight: Tensor
    image: Tensor
    right: Tensor | None = None
    fisher: Tensor | None = None
    gradient: Tensor | None = None
    output: Tensor | None = None
    low: Tensor = field(default_factory=lambda: torch.tensor(0.0))
    high: Tensor = field(default_factory=lambda: torch.tensor(0.0))
    right_low: Tensor = field(default_factory=lambda: torch.tensor(0.0))
    right_high: Tensor = field(default_factory=lambda: torch.tensor(0.0))
    left_count: int = 0
    right_count: int = 0

    def weighted(self, x: Tensor) -> Tensor:
        """Values of the samples (n, ...) times the sample weights."""
        return x * self.sample_weight.view(-1, *[1] * (x.ndim - 1))

    def of_images(self, wanted: Tensor) -> Observation:
        """The samples of some images only.

        Args:
            wanted: whether each image is one of them, (images,), boolean.
        """
        kept = wanted[self.image]
        names = ("left", "sample_weight", "image", "right", "gradient")
        parts = {name: value[kept] for name in names if (value := getattr(self, name)) is not None}
        return replace(self, **parts)

    def loss(self, error: Tensor) -> float:
        """The increase of the loss by an error of the output at the sampled positions, summed over all images.

        It is half the sum of squared products with the gradients (the diagonal of the Fisher information); without
        gradients half the sum of squared errors.
        """
        weighted_error = error if self.gradient is None else error * self.gradient
        return 0.5 * float(self.weighted(weighted_error.square()).sum(dtype=torch.float64))


@dataclass
class Context:
    """State of one quantisation.

    Attributes:
        graph_module: float graph; smoothing changes it in place.
        ops: operations that are quantised, in the order of the graph.
        images: normalised calibration images (n, c, h, w).
        config: configuration of the quantisation.
        observations: left operand -> observation.
        resume: file of intermediate results.
        seed: seed of all random choices.
        progress: show bars.
    """

    graph_module: fx.GraphModule
    ops: list[QuantizedOp]
    images: Tensor
    config: QuantizationConfig
    observations: dict[str, Observation] = field(default_factory=dict)
    resume: ResumeFile = field(default_factory=ResumeFile)
    seed: int = 0
    progress: bool = False
