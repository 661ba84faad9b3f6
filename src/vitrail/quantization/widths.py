"""The width of each operand: one for all, or what a budget allows (Greedy MP)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from vitrail.quantization.allocation import Budget, Choice, allocate_exactly, allocate_greedily
from vitrail.quantization.config import QuantizationConfig
from vitrail.quantization.diagnostics import Spent
from vitrail.quantization.graph import tensor_of
from vitrail.quantization.plan import is_weight
from vitrail.quantization.sensitivity import Objective, output_loss, predict_losses
from vitrail.quantization.sites import Site

if TYPE_CHECKING:
    from vitrail.quantization.decide import Chooser

SENSITIVITY_IMAGES = 32
"""Images that sensitivities are measured on, one after the other."""

NUM_DRAWS = 4
"""Backward passes of each of them: with a quarter of the passes, noise decides between tensors (decision 0015)."""

CANDIDATES = (2, 3, 4, 5, 6, 8)
"""Widths that a budget may give; codes of 7 bits save too little to be worth a search."""


def choose_widths(
    graph_module: fx.GraphModule,
    sites: Sequence[Site],
    images: Tensor,
    chooser: Chooser,
    config: QuantizationConfig,
    *,
    progress: bool = False,
) -> tuple[dict[str, int], Spent | None]:
    """Operand name -> bit width; and how the budget was spent, if there is one.

    Raises:
        QuantizationError: a budget that the smallest widths exceed; the message says what they need.
    """
    widths = {name: config.weight_bits if is_weight(name) else config.activation_bits for name in chooser.counts}
    if not config.mixed:
        return widths, None

    few = images[:SENSITIVITY_IMAGES]
    with torch.inference_mode():
        objective: Objective = "probabilities" if graph_module(few[:1]).ndim == 2 else "values"
    losses = _losses(graph_module, sites, few, chooser, config, objective, progress)
    budget = (
        Budget(average_bits=config.average_bits)
        if config.average_bits is not None
        else Budget(
            max_size_bytes=int((config.max_size_mb or 0) * 1e6),
            fixed_size_bytes=_overhead(graph_module, sites, widths),
        )
    )
    choices = _choices(losses, chooser)
    allocation = (allocate_greedily if config.allocation == "greedy" else allocate_exactly)(choices, budget)
    given = allocation.bit_widths
    mixed = {name: given.get(chooser.sources.get(name, name), width) for name, width in widths.items()}
    even = _even_widths(widths, config)
    if even is not None:
        # predictions add up what interacts: where one width for all is measured to be better, it is taken
        measured = [_measure(graph_module, sites, images, chooser, each, objective) for each in (mixed, even)]
        if measured[1] <= measured[0]:
            return even, None
    return mixed, Spent(choices=tuple(choices), budget=budget, allocation=allocation)


def _losses(
    graph_module: fx.GraphModule,
    sites: Sequence[Site],
    images: Tensor,
    chooser: Chooser,
    config: QuantizationConfig,
    objective: Objective,
    progress: bool,
) -> dict[str, tuple[float, ...]]:
    """Operand -> predicted loss at every candidate, of all operands whose width may be chosen."""

    def free(name: str) -> bool:
        return name in chooser.counts and (is_weight(name) or config.mixed_activations)

    def fake_quantize(name: str, x: Tensor, bits: int) -> Tensor:
        return chooser.choose(name, bits).fake_quantize(x) if free(name) else x

    losses = predict_losses(
        graph_module,
        sites,
        images,
        CANDIDATES,
        fake_quantize,
        objective=objective,
        num_draws=NUM_DRAWS,
        progress=progress,
    )
    return {name: row for name, row in losses.items() if free(name)}


def _choices(losses: Mapping[str, tuple[float, ...]], chooser: Chooser) -> list[Choice]:
    """One for each weight, and for each activation that several products may read."""
    choices = []
    for name in losses:
        if chooser.sources.get(name, name) != name:
            continue
        shared = [other for other, source in chooser.sources.items() if source == name] or [name]
        total = tuple(sum(losses[other][index] for other in shared) for index in range(len(CANDIDATES)))
        choices.append(
            Choice(name=name, count=chooser.counts[name], is_weight=is_weight(name), bit_widths=CANDIDATES, loss=total)
        )
    return choices


def _even_widths(widths: Mapping[str, int], config: QuantizationConfig) -> dict[str, int] | None:
    """One width for all that a mean of ``average_bits`` allows; None for other budgets."""
    if config.average_bits is None:
        return None
    even = max(bits for bits in CANDIDATES if bits <= config.average_bits)
    return {name: even if is_weight(name) or config.mixed_activations else width for name, width in widths.items()}


class _Simulation(fx.Interpreter):
    """Runs the float graph with the factors of its products passed through codes."""

    def __init__(
        self, graph_module: fx.GraphModule, sites: Sequence[Site], chooser: Chooser, widths: Mapping[str, int]
    ) -> None:
        super().__init__(graph_module)
        self.sites = {site.node: site for site in sites}
        self.chooser = chooser
        self.widths = widths

    def run_node(self, n: fx.Node) -> Any:
        site = self.sites.get(n)
        if site is None:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        left, right = (
            self.chooser.choose(operand.name, self.widths[operand.name]).fake_quantize(value)
            for operand, value in zip((site.left, site.right), args[:2], strict=True)
        )
        return self.call_function(n.target, (left, right, *args[2:]), kwargs)


def _measure(
    graph_module: fx.GraphModule,
    sites: Sequence[Site],
    images: Tensor,
    chooser: Chooser,
    widths: Mapping[str, int],
    objective: Objective,
) -> float:
    """The loss of the outputs with these widths, weights rounded to the nearest code."""
    with torch.inference_mode():
        output = _Simulation(graph_module, sites, chooser, widths).run(images)
        return output_loss(output, graph_module(images), objective)


def _overhead(graph_module: fx.GraphModule, sites: Sequence[Site], widths: Mapping[str, int]) -> int:
    """Bytes of all constants that are not quantised weights, and of the scales of those that are."""
    total = sum(t.numel() * t.element_size() for t in [*graph_module.parameters(), *graph_module.buffers()])
    for site in sites:
        weight = tensor_of(graph_module, site.right.node)
        if site.weighted and weight is not None and site.right.name in widths:
            total -= weight.numel() * weight.element_size()
            total += 5 * weight.shape[site.right.axis or 0]
    return total
