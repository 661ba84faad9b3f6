"""One pass of the calibration images through the float graph: samples of every product's factors and output gradients.

All later decisions (scales, regions, smoothing, widths) are made on these samples. The gradients say how much the
model's output feels an error: those of the log-likelihood of labels drawn from the model's own prediction, whose mean
square is the Fisher information, or of a random projection where the output is no row of logits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, fx
from torch.nn import functional as F

from vitrail.core.errors import QuantizationError
from vitrail.quantization.sites import Operand, Site

BATCH_SIZE = 8

SAMPLE_ELEMENTS = 2**19
"""Values of an operand that are kept, spread over all images."""


@dataclass
class Observation:
    """What the calibration images did at one product.

    Attributes:
        left: sampled rows (n, d) that meet the weight; of a product of two activations whole matrices (t, n, k).
        right: the matrices (t, k, m) that meet those of ``left``; None where the right factor is a weight.
        weight: how many rows (or matrices) of all images each one stands for, (n,). Those with the largest values are
            all kept, and stand for themselves: a few tokens of a trained transformer are a hundred times larger than
            the others, and what becomes of them decides.
        felt: mean squared gradient of the output at every place of every image, in order, (places,); None likewise.
        gradient: of the output at the same places, (n, outputs) or (t, n, m); None if they were not asked for.
        low, high: smallest and largest value of each input channel over all images (one where there is no weight).
        right_low, right_high: smallest and largest value of a right factor that is no weight.
        output: a sample of a convolution's output; None for other products.
        left_count, right_count: elements of a weight, or of an activation for one image.
    """

    left: Tensor
    weight: Tensor
    right: Tensor | None = None
    felt: Tensor | None = None
    gradient: Tensor | None = None
    output: Tensor | None = None
    low: Tensor = field(default_factory=lambda: torch.tensor(0.0))
    high: Tensor = field(default_factory=lambda: torch.tensor(0.0))
    right_low: Tensor = field(default_factory=lambda: torch.tensor(0.0))
    right_high: Tensor = field(default_factory=lambda: torch.tensor(0.0))
    left_count: int = 0
    right_count: int = 0

    def weighted(self, x: Tensor) -> Tensor:
        """Something for each sampled row, times how many it stands for."""
        return x * self.weight.view(-1, *[1] * (x.ndim - 1))

    def loss(self, error: Tensor) -> float:
        """What an error of the output at the sampled places costs, summed over all places of all images.

        Half the squared product with the gradients (the Fisher information's diagonal); without gradients half the
        squared error itself.
        """
        felt = error if self.gradient is None else error * self.gradient
        return 0.5 * float(self.weighted(felt.square()).sum(dtype=torch.float64))


def calibrate(
    graph_module: fx.GraphModule,
    sites: Iterable[Site],
    images: Tensor,
    *,
    gradients: bool = True,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Observation]:
    """Observations by the name of the left operand.

    Args:
        images: normalised (n, c, h, w).
        gradients: also run backwards.
        seed: of the choice of rows and of the drawn labels.
        progress: show a bar.

    Raises:
        QuantizationError: an activation is NaN, infinite, or one constant for all images; the message names it.
    """
    wanted = list(sites)
    batches = images.split(BATCH_SIZE)
    recorder = _Recorder(graph_module, wanted, len(batches), seed)
    for batch in track(batches, "calibrating", disable=not progress):
        recorder.see(batch, gradients)
    return {site.left.name: recorder.observation(site, len(images)) for site in wanted}


class _Recorder(fx.Interpreter):
    """Runs the graph and samples the factors of the chosen products."""

    def __init__(self, graph_module: fx.GraphModule, sites: list[Site], num_batches: int, seed: int) -> None:
        super().__init__(graph_module)
        self.sites = {site.node: site for site in sites}
        self.limit = max(SAMPLE_ELEMENTS // num_batches, 1)
        self.generator = torch.Generator().manual_seed(seed)
        self.parts: dict[str, list[Observation]] = {site.left.name: [] for site in sites}
        self.outputs: list[tuple[str, Site, Tensor, Tensor]] = []

    def see(self, batch: Tensor, gradients: bool) -> None:
        with torch.set_grad_enabled(gradients):
            output = self.run(batch.detach().clone().requires_grad_(gradients))
            if gradients:
                objective(output, self.generator).backward()
        for name, site, chosen, result in self.outputs:
            gradient = torch.zeros_like(result) if result.grad is None else result.grad
            if gradients:
                places = _output_rows(site, gradient)
                self.parts[name][-1].gradient = places[chosen]
                self.parts[name][-1].felt = places.square().flatten(1).mean(1) if site.dense else None
        self.outputs.clear()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.sites:
            site = self.sites[n]
            args, _ = self.fetch_args_kwargs_from_env(n)
            self._record(site, args, value)
        return value

    def _record(self, site: Site, args: tuple[Any, ...], value: Tensor) -> None:
        left, right = args[0].detach(), args[1].detach()
        _check_finite(site.left, left)
        if not site.weighted:
            _check_finite(site.right, right)
        channels = left.movedim(1 if "conv" in site.kind else -1, 0) if site.weighted else left.reshape(1, -1)
        low, high = channels.flatten(1).aminmax(dim=1)
        right_low, right_high = right.aminmax()
        rows = site.rows(left) if site.weighted else _matrices(left, value)
        size = max(rows[0].numel(), 0 if site.weighted else _matrices(right, value)[0].numel())
        chosen, weight = _choose(rows, max(self.limit // size, 1), self.generator)
        if value.requires_grad:
            value.retain_grad()
        self.outputs.append((site.left.name, site, chosen, value))
        self.parts[site.left.name].append(
            Observation(
                left=rows[chosen].clone(),
                weight=weight,
                right=None if site.weighted else _matrices(right, value)[chosen].clone(),
                output=self._sample(value) if site.output is not None else None,
                low=low,
                high=high,
                right_low=right_low,
                right_high=right_high,
                left_count=left.numel(),
                right_count=right.numel(),
            )
        )

    def _sample(self, value: Tensor) -> Tensor:
        """Some values and both extremes."""
        flat = value.detach().reshape(-1)
        some = torch.randint(len(flat), (min(self.limit, len(flat)),), generator=self.generator)
        return torch.cat([flat[some], flat.amin()[None], flat.amax()[None]])

    def observation(self, site: Site, num_images: int) -> Observation:
        parts = self.parts[site.left.name]
        rights = [part.right for part in parts if part.right is not None]
        outputs = [part.output for part in parts if part.output is not None]
        felt = [part.felt for part in parts if part.felt is not None]
        gradients = [part.gradient for part in parts if part.gradient is not None]
        joined = Observation(
            left=torch.cat([part.left for part in parts]),
            weight=torch.cat([part.weight for part in parts]),
            right=torch.cat(rights) if rights else None,
            gradient=torch.cat(gradients) if gradients else None,
            felt=torch.cat(felt) if felt else None,
            output=torch.cat(outputs) if outputs else None,
            low=torch.stack([part.low for part in parts]).amin(0),
            high=torch.stack([part.high for part in parts]).amax(0),
            right_low=torch.stack([part.right_low for part in parts]).amin(),
            right_high=torch.stack([part.right_high for part in parts]).amax(),
            left_count=sum(part.left_count for part in parts) // num_images,
            right_count=parts[0].right_count if site.weighted else sum(p.right_count for p in parts) // num_images,
        )
        _check_alive(site.left, joined.low.min(), joined.high.max(), num_images)
        if joined.right is not None:
            _check_alive(site.right, joined.right_low, joined.right_high, num_images)
        return joined


def objective(output: Tensor, generator: torch.Generator) -> Tensor:
    """A scalar whose gradients' squares weigh errors, summed over the images."""
    if output.ndim == 2 and output.shape[1] > 1:
        drawn = torch.multinomial(output.detach().float().softmax(-1), 1, generator=generator)[:, 0]
        return F.cross_entropy(output.float(), drawn, reduction="sum")
    direction = torch.randn(output.shape, generator=generator) * output[0].numel() ** -0.5
    return (output * direction).sum()


def _choose(rows: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of the rows with the largest values and of some others, and how many rows each stands for."""
    if count >= len(rows):
        return torch.arange(len(rows)), torch.ones(len(rows))
    order = rows.flatten(1).abs().amax(1).argsort(descending=True)
    top, others = order[: count // 4], order[count // 4 :]
    some = others[torch.randperm(len(others), generator=generator)[: count - len(top)]]
    weight = torch.cat([torch.ones(len(top)), torch.full((len(some),), len(others) / len(some))])
    return torch.cat([top, some]), weight


def _matrices(factor: Tensor, product: Tensor) -> Tensor:
    """A factor of a matrix product as a list of matrices, repeated as the product broadcasts it."""
    return factor.expand(*product.shape[:-2], *factor.shape[-2:]).reshape(-1, *factor.shape[-2:])


def _output_rows(site: Site, output: Tensor) -> Tensor:
    """The places of an output in the order of the factor's rows."""
    if not site.weighted:
        return output.reshape(-1, *output.shape[-2:])
    last = output.movedim(1, -1) if "conv" in site.kind else output
    return last.reshape(-1, last.shape[-1])


def _check_finite(operand: Operand, x: Tensor) -> None:
    low, high = x.aminmax()
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise QuantizationError(
            f"activation {operand.name} holds NaN or infinity; check the model and the calibration images"
        )


def _check_alive(operand: Operand, low: Tensor, high: Tensor, num_images: int) -> None:
    # attention over a single token has the constant probability 1, and that is right
    if low == high and ":softmax" not in operand.name:
        raise QuantizationError(
            f"activation {operand.name} is {float(low):g} everywhere on all {num_images} calibration images; pass "
            f"real, normalised images and a trained model, or name the module in keep_float"
        )
