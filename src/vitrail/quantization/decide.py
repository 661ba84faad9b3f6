"""From calibration images to a plan: smooth, give each operand its codes and its width, round the weights."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, fx

from vitrail.core.errors import QuantizationError
from vitrail.quantization.calibration import Observation, calibrate
from vitrail.quantization.config import QuantizationConfig
from vitrail.quantization.diagnostics import Diagnostics, product_decibels
from vitrail.quantization.graph import tensor_of
from vitrail.quantization.importance import left_importance, right_importance
from vitrail.quantization.nonuniform import GroupQuantizer, Quantizer, as_groups
from vitrail.quantization.observers import observe_channels, observe_tensor
from vitrail.quantization.plan import QuantizationPlan, Rounded, is_weight
from vitrail.quantization.progress import Saved
from vitrail.quantization.quantizers import MAX_BITS
from vitrail.quantization.reconstruction import reconstruct
from vitrail.quantization.regions import choose_codes, with_outliers
from vitrail.quantization.rounding import round_weights
from vitrail.quantization.sites import Operand, Site, fingerprint
from vitrail.quantization.smoothing import (
    Smoothing,
    SmoothingGroup,
    apply_smoothing,
    explicit_group,
    find_norm_groups,
    search_smoothing,
)
from vitrail.quantization.widths import choose_widths

COSTLY = 3.0
"""Times the mean cost of a layer's input from which its channels are scaled one by one."""


def decide_plan(
    graph_module: fx.GraphModule,
    sites: list[Site],
    images: Tensor,
    config: QuantizationConfig,
    *,
    model: str,
    unsupported: list[str],
    few_images: int,
    progress: bool = False,
    resume: Path | None = None,
) -> tuple[QuantizationPlan, Diagnostics]:
    """Everything that :func:`~vitrail.quantization.quantize.quantize` decides; smooths the graph in place.

    Raises:
        QuantizationError: see there.
    """
    kept = {site.path: pattern for site in sites if (pattern := site.matches(config.keep_float)) is not None}
    quantised = [site for site in sites if site.path not in kept]
    identity = fingerprint(graph_module, sites)
    gradients = config.preset != "min_max" or config.mixed
    observations = calibrate(graph_module, quantised, images, gradients=gradients, progress=progress)
    smoothing = _smooth(graph_module, quantised, observations, images, config)
    chooser = Chooser(graph_module, quantised, observations, config)
    widths, spent = choose_widths(graph_module, quantised, images, chooser, config, progress=progress)
    with Saved.open(resume, identity, config) as saved:
        operands, rounded = _fitted(graph_module, chooser, chooser.operands(widths), images, saved, progress)
    few = f"only {len(images)} calibration images were given; {few_images} or more give safer ranges"
    plan = QuantizationPlan(
        model=model,
        fingerprint=identity,
        operands=operands,
        smoothing=smoothing,
        rounded=rounded,
        skipped=(*unsupported, *(f"{path}: kept in float by keep_float '{pattern}'" for path, pattern in kept.items())),
        notes=(few,) if len(images) < few_images else (),
        counts={name: count for name, count in chooser.counts.items() if name in operands},
        num_images=len(images),
        config=config,
    )
    decibels = product_decibels(graph_module, quantised, observations, operands)
    return plan, Diagnostics(decibels=decibels, spent=spent)


def _fitted(
    graph_module: fx.GraphModule,
    chooser: Chooser,
    operands: dict[str, Quantizer],
    images: Tensor,
    saved: Saved,
    progress: bool,
) -> tuple[dict[str, Quantizer], dict[str, Rounded]]:
    """Operands with trained steps, codes that are not the nearest, corrected biases, if the configuration asks."""
    chosen, sites = chooser.chosen, chooser.sites
    rounded: dict[str, Rounded] = {}
    if chosen.rounding != "nearest" or chosen.correction != "none":
        rounded = round_weights(
            graph_module,
            sites,
            operands,
            images,
            chosen,
            felt={name: seen.felt for name, seen in chooser.observations.items()},
            known=saved.rounded,
            on_rounded=saved.add,
            progress=progress,
        )
    if chosen.reconstruction == "blocks" and any(quantizer.bit_width < MAX_BITS for quantizer in operands.values()):
        operands, rounded = reconstruct(
            graph_module,
            sites,
            operands,
            rounded,
            images,
            num_steps=chooser.config.reconstruction_steps,
            sources=chooser.sources,
            known=saved.tuned,
            on_tuned=saved.add_tuned,
            progress=progress,
        )
    return operands, rounded


def _smooth(
    graph_module: fx.GraphModule,
    sites: list[Site],
    observations: dict[str, Observation],
    images: Tensor,
    config: QuantizationConfig,
) -> dict[str, Smoothing]:
    """Fold what helps into norms and their readers, and move the observations with it."""
    found: dict[str, Smoothing] = {}
    if config.resolved().smoothing == "none":
        return found
    bits = (config.weight_bits, config.activation_bits)
    if config.average_bits is not None:
        bits = (int(config.average_bits), int(config.average_bits) if config.mixed_activations else bits[1])
    groups = find_norm_groups(graph_module, sites, images)
    folded = {reader.site.left.name for group in groups for reader in group.readers}
    groups += [
        group
        for site in costly_sites(graph_module, sites, observations, bits[1])
        if site.left.name not in folded and (group := explicit_group(site)) is not None
    ]
    for group in groups:
        smoothing = search_smoothing(
            graph_module,
            group,
            observations,
            method=config.resolved().smoothing,
            weight_bits=bits[0],
            activation_bits=bits[1],
        )
        if smoothing is not None:
            apply_smoothing(graph_module, group, smoothing)
            _move(observations, group, smoothing)
            found[group.name] = smoothing
    graph_module.recompile()
    return found


def costly_sites(
    graph_module: fx.GraphModule, sites: list[Site], observations: Mapping[str, Observation], bit_width: int
) -> list[Site]:
    """Dense layers whose input's codes would cost more than their share, if one step served all channels."""
    losses = {}
    for site in sites:
        if site.dense:
            seen, weight = observations[site.left.name], tensor_of(graph_module, site.right.node)
            assert weight is not None
            inputs = observe_tensor(
                seen.left,
                bit_width=bit_width,
                signed=False,
                symmetric=False,
                importance=seen.weighted(torch.ones_like(seen.left)),
            )
            losses[site.left.name] = seen.loss((inputs.fake_quantize(seen.left) - seen.left) @ site.matrix(weight).t())
    share = COSTLY / max(len(losses), 1) * sum(losses.values())
    return [site for site in sites if losses.get(site.left.name, 0) > share]


def _move(observations: dict[str, Observation], group: SmoothingGroup, smoothing: Smoothing) -> None:
    scale, shift = smoothing.tensors()
    for reader in group.readers:
        name = reader.site.left.name
        seen, columns, channels = observations[name], reader.columns, reader.channels
        observations[name] = replace(
            seen,
            left=(seen.left - shift[columns]) / scale[columns],
            low=(seen.low - shift[channels]) / scale[channels],
            high=(seen.high - shift[channels]) / scale[channels],
        )


class Chooser:
    """Gives each operand its quantiser, for any width.

    Attributes:
        sources: activation operand -> the first one that is the same tensor in the same form; they share codes.
        counts: operand -> elements of a weight, or of an activation for one image.
    """

    def __init__(
        self,
        graph_module: fx.GraphModule,
        sites: list[Site],
        observations: Mapping[str, Observation],
        config: QuantizationConfig,
    ) -> None:
        self.graph_module = graph_module
        self.sites = sites
        self.observations = observations
        self.config = config
        self.chosen = config.resolved()
        self.places: dict[str, tuple[Site, Operand]] = {}
        self.sources: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        first: dict[tuple[fx.Node, bool, bool], str] = {}
        for site in sites:
            seen = observations[site.left.name]
            for operand, count in ((site.left, seen.left_count), (site.right, seen.right_count)):
                self.places[operand.name] = (site, operand)
                self.counts[operand.name] = count
                if operand.axis is None:
                    key = (operand.node, operand.signed, operand.symmetric)
                    self.sources[operand.name] = first.setdefault(key, operand.name)
        self.choose = functools.cache(self._choose)

    def operands(self, widths: Mapping[str, int]) -> dict[str, Quantizer]:
        """The quantisers of all operands, in the order of the graph."""
        result: dict[str, Quantizer] = {}
        for site in self.sites:
            for operand in (site.left, site.right):
                result[operand.name] = self.choose(operand.name, widths[operand.name])
            if site.output is not None and widths[site.left.name] == MAX_BITS and not self.config.group_size:
                result[site.output.name] = self._output(site, site.output)
        return result

    def _choose(self, name: str, bit_width: int) -> Quantizer:
        if self.sources.get(name, name) != name:
            result: Quantizer = self.choose(self.sources[name], bit_width)
            return result
        site, operand = self.places[name]
        try:
            if is_weight(name):
                return self._weight(site, operand, bit_width)
            return self._activation(site, operand, bit_width)
        except QuantizationError as error:
            raise QuantizationError(f"{name}: {error}") from error

    def _weight(self, site: Site, operand: Operand, bit_width: int) -> Quantizer:
        weight = tensor_of(self.graph_module, operand.node)
        assert weight is not None
        assert operand.axis is not None
        seen = self.observations[site.left.name]
        importance = (
            seen.weighted(seen.left.square()).sum(0) if site.dense and self.chosen.observer == "hessian" else None
        )
        if self.config.group_size and operand.axis == 0:
            groups = as_groups(weight, self.config.group_size)
            inner = observe_channels(groups, 0, bit_width=bit_width, observer=self.chosen.observer)
            return GroupQuantizer(group_size=self.config.group_size, channels=len(weight), inner=inner)
        return observe_channels(
            weight, operand.axis, bit_width=bit_width, observer=self.chosen.observer, importance=importance
        )

    def _activation(self, site: Site, operand: Operand, bit_width: int) -> Quantizer:
        seen = self.observations[site.left.name]
        left = operand.name == site.left.name
        gradients = self.chosen.needs_gradients
        values, importance = seen.left, None
        if left:
            importance = left_importance(self.graph_module, site, seen, gradients=gradients)
        elif seen.right is not None:
            values, importance = seen.right, right_importance(seen, gradients=gradients)
        if self.chosen.observer == "min_max":  # a sample would miss the extremes
            low, high = (seen.low, seen.high) if left else (seen.right_low, seen.right_high)
            values, importance = torch.stack([low.min(), high.max()]), None
        codes = choose_codes(
            operand,
            values,
            bit_width=bit_width,
            observer=self.chosen.observer,
            softmax=self.chosen.softmax,
            act=self.chosen.act,
            search_ratio=self.config.search_ratio,
            search_clip=self.config.search_clip,
            importance=importance,
        )
        outlying = self.chosen.channels == "outlier" and bit_width < MAX_BITS
        if outlying and left and site.kind in ("linear", "matmul") and site.weighted:
            return with_outliers(codes, values, observer=self.chosen.observer, importance=importance)
        return codes

    def _output(self, site: Site, operand: Operand) -> Quantizer:
        """Of a convolution, which ONNX Runtime wants in codes too; always 8 bits."""
        values = self.observations[site.left.name].output
        assert values is not None
        observer = "min_max" if self.chosen.observer == "min_max" else "mse"
        return observe_tensor(
            values, bit_width=MAX_BITS, signed=operand.signed, symmetric=operand.symmetric, observer=observer
        )
