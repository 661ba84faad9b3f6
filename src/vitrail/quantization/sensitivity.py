"""How much the loss rises when one tensor gets coarser: what an allocation of bit widths is made from.

``predict_losses`` needs one forward and a few backward passes an image, for all tensors and widths together. With y the
output, J its Jacobian in a tensor x, F the curvature of the loss in y, and d the error of quantising x, the increase of
the loss is about 1/2 d^T J^T F J d: gradients of a suitably random function of y have the covariance J^T F J, so that
the mean of (gradient . d)^2 estimates it (the sampled Fisher information of Martens 2014, arXiv:1412.1193; in
quantisation, HAWQ and BRECQ go the same way).

``measure_losses`` really quantises one tensor after the other; it is exact, and slower by the number of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from rich.progress import track
from torch import Tensor, fx
from torch.nn import functional as F

from vitrail.core.errors import QuantizationError
from vitrail.quantization.graph import tensor_of
from vitrail.quantization.sites import Site

Objective = Literal["probabilities", "values"]
"""What must be kept: the class probabilities of logits (..., c), or the values of any other output."""

Losses = dict[str, tuple[float, ...]]
"""By name of the tensor, one a bit width."""


def output_loss(output: Tensor, reference: Tensor, objective: Objective) -> float:
    """How far the outputs (n, ...) are from those of the float model, which needs no labels.

    "probabilities": mean Kullback-Leibler divergence of softmax over the last axis, in nats. "values": mean squared
    error by the mean square of the reference (0.01 is a signal to noise ratio of 20 dB).
    """
    output, reference = output.double(), reference.double()
    if objective == "values":
        return float((output - reference).square().mean() / reference.square().mean().clamp(min=1e-300))
    expected, found = reference.log_softmax(-1), output.log_softmax(-1)
    return float(F.kl_div(found, expected, reduction="none", log_target=True).sum(-1).mean())


def predict_losses(
    graph_module: fx.GraphModule,
    sites: Sequence[Site],
    images: Tensor,
    bit_widths: Sequence[int],
    fake_quantize: Callable[[str, Tensor, int], Tensor],
    *,
    objective: Objective = "probabilities",
    num_draws: int = 4,
    seed: int = 0,
    progress: bool = False,
) -> Losses:
    """Predict the increase of :func:`output_loss` for every operand of every site at every width.

    Args:
        graph_module: the float graph that the sites were found in.
        sites: the operations whose operands are to be quantised.
        images: normalised calibration images (n, c, h, w); 16 to 64 are enough.
        bit_widths: candidates.
        fake_quantize: what is left of a tensor (by operand name, for one image) at a bit width.
        objective: what the loss compares.
        num_draws: backward passes an image; more lower the noise of the estimate.
        seed: of the draws.
        progress: show a bar.

    Raises:
        QuantizationError: a prediction is not finite; the message names the operand.
    """
    generator = torch.Generator().manual_seed(seed)
    taps = _Taps(graph_module, sites)
    sums = {operand.name: [0.0] * len(bit_widths) for site in sites for operand in site.operands}
    weights = _weight_errors(graph_module, sites, bit_widths, fake_quantize)
    signal = 0.0
    # one image at a time: the gradient of a weight then belongs to one image, too
    for image in track(images.split(1), "sensitivity", disable=not progress):
        with torch.enable_grad():
            output = taps.run(image.detach().clone().requires_grad_())
            seen = dict(taps.seen)
            scalars = [_random_scalar(output, objective, generator) for _ in range(num_draws)]
            tensors = list(seen.values())
            gradients = [torch.autograd.grad(s, tensors, retain_graph=True, allow_unused=True) for s in scalars]
        with torch.no_grad():
            signal += float(output.square().sum())
            for place, (name, value) in enumerate(seen.items()):
                for index, bits in enumerate(bit_widths):
                    errors = weights.get(name)
                    error = errors[index] if errors else fake_quantize(name, value.detach(), bits) - value.detach()
                    sums[name][index] += sum(_squared_dot(row[place], error) for row in gradients)
    # a divergence is half its curvature's form, on average over images; a squared error the form itself, by the signal
    divisor = num_draws * (2 * len(images) if objective == "probabilities" else max(signal, 1e-30))
    losses = {name: tuple(total / divisor for total in row) for name, row in sums.items()}
    for name, row in losses.items():
        if not all(map(math.isfinite, row)):
            raise QuantizationError(f"the sensitivity of {name} is {max(row)}; check the model and the images")
    return losses


def measure_losses(
    names: Sequence[str],
    bit_widths: Sequence[int],
    measure: Callable[[Mapping[str, int]], float],
    *,
    known: Mapping[str, Mapping[int, float]] | None = None,
    on_result: Callable[[dict[str, dict[int, float]]], None] | None = None,
    progress: bool = False,
) -> Losses:
    """Measure the increase of the loss for every tensor alone at every width.

    Args:
        names: of the tensors.
        bit_widths: candidates.
        measure: the loss with these tensors quantised and all others in float; ``measure({})`` is subtracted.
        known: results of an interrupted call, as ``on_result`` got them.
        on_result: gets all results so far after every measurement, e.g. to save them.
        progress: show a bar.

    Raises:
        QuantizationError: a loss is not finite; the message names the tensor.
    """
    results = {name: dict(rows) for name, rows in (known or {}).items()}
    start = measure({})
    wanted = [(name, bits) for name in names for bits in bit_widths if bits not in results.get(name, {})]
    for name, bits in track(wanted, "sensitivity", disable=not progress):
        loss = measure({name: bits}) - start
        if not math.isfinite(loss):
            raise QuantizationError(f"the loss with {name} at {bits} bits is {loss}; check the model and the images")
        results.setdefault(name, {})[bits] = max(loss, 0.0)
        if on_result is not None:
            on_result(results)
    return {name: tuple(results[name][bits] for bits in bit_widths) for name in names}


class _Taps(fx.Interpreter):
    """Runs the graph so that the gradient in each operand of each site, as that site alone uses it, can be had.

    Attributes:
        seen: operand name -> tensor of the last run.
    """

    def __init__(self, graph_module: fx.GraphModule, sites: Sequence[Site]) -> None:
        super().__init__(graph_module)
        self.sites = {site.node: site for site in sites}
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        site = self.sites.get(n)
        if site is None:
            return super().run_node(n)
        fetched, kwargs = self.fetch_args_kwargs_from_env(n)
        args = list(fetched)
        args[0] = self._tap(site.left.name, args[0])
        if len(args) > 1:
            args[1] = self._tap(site.right.name, args[1])
        else:
            kwargs = {**kwargs, "weight": self._tap(site.right.name, kwargs["weight"])}
        output = self.call_function(n.target, tuple(args), kwargs)
        return output if site.output is None else self._tap(site.output.name, output)

    def _tap(self, name: str, value: Tensor) -> Tensor:
        tap = value.clone() if value.requires_grad else value.detach().clone().requires_grad_()
        self.seen[name] = tap
        return tap


def _weight_errors(
    graph_module: fx.GraphModule,
    sites: Sequence[Site],
    bit_widths: Sequence[int],
    fake_quantize: Callable[[str, Tensor, int], Tensor],
) -> dict[str, list[Tensor]]:
    """Errors of the weights, which are the same for every image."""
    found = {}
    for site in sites:
        weight = tensor_of(graph_module, site.right.node) if site.weighted else None
        if weight is not None:
            exact = weight.detach()
            found[site.right.name] = [fake_quantize(site.right.name, exact, bits) - exact for bits in bit_widths]
    return found


def _random_scalar(output: Tensor, objective: Objective, generator: torch.Generator) -> Tensor:
    """A random function of the output whose gradient's covariance is the curvature of the loss, up to a factor."""
    if objective == "values":
        return (output * torch.randn(output.shape, generator=generator).to(output)).sum()
    rows = output.reshape(-1, output.shape[-1])
    drawn = torch.multinomial(rows.detach().softmax(-1).cpu(), 1, generator=generator).to(output.device)
    # independent draws of many positions add up to their mean divergence
    return rows.log_softmax(-1).gather(1, drawn).sum() / math.sqrt(len(rows))


def _squared_dot(gradient: Tensor | None, error: Tensor) -> float:
    return 0.0 if gradient is None else float((gradient * error).sum()) ** 2
