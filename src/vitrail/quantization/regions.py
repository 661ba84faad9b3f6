"""Which kind of codes suits an activation: even steps, powers, or two regions whose ratio the data decide (OPT-m).

MPTQ-ViT (arXiv:2401.14895) chooses the ratio of the two regions' steps by the data where its predecessors had rules;
as its equations could not be read, the search below is a reconstruction: every power of two, with every clipping of
the coarse region, by the squared error that is left, weighted by the output's gradients where they are known.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, fx

from vitrail.quantization.nonuniform import LogQuantizer, OutlierQuantizer, Quantizer, TwoScaleQuantizer
from vitrail.quantization.observers import observe_tensor, squared_error
from vitrail.quantization.quantizers import UniformQuantizer
from vitrail.quantization.sites import SHAPE_ONLY, Operand

aten = torch.ops.aten

SoftmaxName = Literal["uniform", "log2", "log_sqrt2", "two_scale", "best"]
ActName = Literal["uniform", "twin", "two_scale", "best"]
ChannelsName = Literal["uniform", "outlier"]

RATIO_EXPONENTS = range(9)
CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Shares of the largest value at which the coarse region may end."""

BASES = tuple(2 ** (eighths / 8) for eighths in range(1, 13))
"""Bases of powers that "best" tries, as AdaLog does (arXiv:2407.12951)."""

OUTLIER_EXPONENTS = range(1, 5)
"""Powers of two by which the steps of outlying channels may be larger."""

SEARCH_VALUES = 2**16
"""Values on which kinds of codes are compared."""

ACTIVATIONS = {aten.gelu.default, aten.silu.default, aten.hardswish.default, aten.mish.default, aten.relu.default}


def source_of(operand: Operand) -> Literal["softmax", "act", "other"]:
    """What computed an operand, looking through operations that only move values."""
    node = operand.node
    while getattr(node.target, "overloadpacket", None) in SHAPE_ONLY and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    if node.target is aten.softmax.int:
        return "softmax"
    return "act" if node.target in ACTIVATIONS else "other"


def choose_codes(
    operand: Operand,
    values: Tensor,
    *,
    bit_width: int,
    observer: str,
    softmax: str = "uniform",
    act: str = "uniform",
    search_ratio: bool = True,
    search_clip: bool = True,
    importance: Tensor | None = None,
) -> Quantizer:
    """The quantiser for an activation that leaves the smallest error, among the kinds that are allowed.

    Args:
        values: a sample.
        bit_width: 8 bits are always even steps, which runtimes execute.
        observer: of even steps, see :mod:`~vitrail.quantization.observers`.
        softmax, act: kinds for attention probabilities, and for what an activation function gives.
        search_ratio: OPT-m; otherwise the ratio is 2^(bits - 2), the middle of its range.
        search_clip: also look where the coarse region should end; otherwise at the largest value.
        importance: weights of the squared errors, as ``values``.
    """
    flat = values.reshape(-1).float()
    weights = None if importance is None else importance.reshape(-1).float()
    uniform = observe_tensor(
        flat,
        bit_width=bit_width,
        signed=operand.signed,
        symmetric=operand.symmetric,
        observer=observer,
        importance=weights,
    )
    source = source_of(operand)
    kinds = {"softmax": softmax, "act": act, "other": "uniform"}[source]
    if bit_width == 8 or kinds == "uniform" or not float(flat.max()) > 0:
        return uniform
    some = torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))[:SEARCH_VALUES]
    sample, sample_weights = flat[some], None if weights is None else weights[some]
    ratios = RATIO_EXPONENTS if search_ratio else (bit_width - 2,)
    clips = CLIPS if search_clip else (1.0,)
    candidates: list[Quantizer] = list(_candidates(source, kinds, sample, bit_width, ratios, clips))
    if kinds == "best":
        candidates.append(uniform)
    error: Callable[[Quantizer], float] = lambda q: squared_error(sample, q.fake_quantize(sample), sample_weights)  # noqa: E731
    return min(candidates, key=error)


def with_outliers(uniform: Quantizer, values: Tensor, *, observer: str, importance: Tensor | None) -> Quantizer:
    """Larger steps for channels that reach much further than the others (O-2SF), where they leave a smaller error.

    Args:
        uniform: one step for all channels; codes in regions stay as they are.
        values: a sample (n, channels).
        observer: of the steps.
        importance: weights of the squared errors, as ``values``.
    """
    if not isinstance(uniform, UniformQuantizer):
        return uniform
    weights = torch.ones_like(values) if importance is None else importance
    extent = values.abs().amax(0)
    best: Quantizer = uniform
    least = squared_error(values, uniform.fake_quantize(values), weights)
    for exponent in OUTLIER_EXPONENTS:
        outliers = tuple((extent > extent.max() / 2**exponent).nonzero().flatten().tolist())
        factors = OutlierQuantizer(inner=uniform, outliers=outliers, ratio_exponent=exponent).factors(len(extent))
        inner = observe_tensor(
            values / factors,
            bit_width=uniform.bit_width,
            signed=uniform.signed,
            symmetric=uniform.symmetric,
            observer=observer,
            importance=weights * factors.square(),
        )
        quantizer = OutlierQuantizer(inner=inner, outliers=outliers, ratio_exponent=exponent)
        if (error := squared_error(values, quantizer.fake_quantize(values), weights)) < least:
            best, least = quantizer, error
    return best


def _candidates(
    source: str,
    kinds: str,
    sample: Tensor,
    bit_width: int,
    ratios: Iterator[int] | range | tuple[int, ...],
    clips: tuple[float, ...],
) -> Iterator[Quantizer]:
    largest = float(sample.max())
    if source == "softmax" and kinds in ("log2", "log_sqrt2"):
        yield LogQuantizer(bit_width=bit_width, base=2.0 if kinds == "log2" else 2**0.5)
    elif source == "softmax" and kinds == "best":
        for base, clip in itertools.product(BASES, clips):
            yield LogQuantizer(bit_width=bit_width, base=base, maximum=largest * clip)
    if kinds in ("two_scale", "twin", "best") and bit_width >= 3:
        regions = {"two_scale": ("magnitude",), "twin": ("sign",), "best": ("magnitude", "sign")}[kinds]
        signed = source == "act"
        for name, ratio, clip in itertools.product(regions, ratios, clips):
            if name == "sign" and not signed:
                continue
            coarse = largest * clip / (2 ** (bit_width - 1) - 1)
            yield TwoScaleQuantizer(
                bit_width=bit_width,
                regions=name,  # type: ignore[arg-type]
                fine_scale=coarse / 2**ratio,
                ratio_exponent=ratio,
                signed=signed,
            )
