"""The quantiser of an activation: uniform, logarithmic, or two regions with a ratio that the data decide (OPT-m).

MPTQ-ViT (arXiv:2401.14895) chooses the ratio of the two regions' scales by the data where its predecessors had rules;
as its equations could not be read, the search below is a reconstruction: every power of two, with every clipping value
of the coarse region, by the squared error, weighted by the output's gradients where they are known.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor, fx

from vitrail.quantization.config import ObserverName, QuantizationConfig
from vitrail.quantization.graph.ops import SHAPE_ONLY, Operand
from vitrail.quantization.quantizers.kinds import Quantizer
from vitrail.quantization.quantizers.log import LogQuantizer
from vitrail.quantization.quantizers.observers import observe_tensor, squared_error
from vitrail.quantization.quantizers.outlier import OutlierQuantizer
from vitrail.quantization.quantizers.two_scale import Regions, TwoScaleQuantizer
from vitrail.quantization.quantizers.uniform import UniformQuantizer

aten = torch.ops.aten

RATIO_EXPONENTS = range(9)
CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Shares of the largest value at which the coarse region may be clipped."""

BASES = tuple(2 ** (eighths / 8) for eighths in range(1, 13))
"""Bases of powers that "best" tries, as AdaLog does (arXiv:2407.12951)."""

OUTLIER_EXPONENTS = range(1, 5)
"""Exponents of two by which the scales of outlying channels may be larger."""

SEARCH_VALUES = 2**16
"""Values on which quantisers are compared."""

REGIONS: dict[str, tuple[Regions, ...]] = {
    "two_scale": ("magnitude",),
    "twin": ("sign",),
    "best": ("magnitude", "sign"),
}

ACTIVATIONS = {aten.gelu.default, aten.silu.default, aten.hardswish.default, aten.mish.default, aten.relu.default}


def source_of(operand: Operand) -> Literal["softmax", "activation", "other"]:
    """The kind of operation that computed an operand, past operations that only move values."""
    node = operand.node
    while getattr(node.target, "overloadpacket", None) in SHAPE_ONLY and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    if node.target is aten.softmax.int:
        return "softmax"
    return "activation" if node.target in ACTIVATIONS else "other"


def fit_activation(
    operand: Operand, values: Tensor, *, bit_width: int, config: QuantizationConfig, importance: Tensor | None = None
) -> Quantizer:
    """The quantiser of an activation with the smallest error, among the kinds that the configuration allows.

    Args:
        values: a sample.
        bit_width: bit width of the codes; those of 8 bits are always uniform, which runtimes execute.
        importance: weights of the squared errors, in the shape of the values.
    """
    choices = config.resolved()
    flat = values.reshape(-1).float()
    weights = None if importance is None else importance.reshape(-1).float()
    uniform = observe_tensor(
        flat,
        bit_width=bit_width,
        signed=operand.signed,
        symmetric=operand.symmetric,
        observer=choices.observer,
        importance=weights,
    )
    source = source_of(operand)
    kind = {"softmax": choices.softmax, "activation": choices.activation, "other": "uniform"}[source]
    if bit_width == 8 or kind == "uniform" or not float(flat.max()) > 0:
        return uniform
    some = torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))[:SEARCH_VALUES]
    sample, sample_weights = flat[some], None if weights is None else weights[some]
    ratios = RATIO_EXPONENTS if config.search_ratio else (bit_width - 2,)  # the middle of the range
    clips = CLIPS if config.search_clip else (1.0,)
    candidates: list[Quantizer] = list(_candidates(source, kind, float(sample.max()), bit_width, ratios, clips))
    if kind == "best":
        candidates.append(uniform)

    def error(quantizer: Quantizer) -> float:
        return squared_error(sample, quantizer.fake_quantize(sample), sample_weights)

    return min(candidates, key=error)


def with_outliers(
    uniform: Quantizer, values: Tensor, *, observer: ObserverName, importance: Tensor | None
) -> Quantizer:
    """A second scale for channels with a much larger range than the others (O-2SF), where it lowers the error.

    Args:
        uniform: quantiser with one scale for all channels; any other kind is returned as it is.
        values: a sample (n, channels).
        observer: observer that chooses the scales.
        importance: weights of the squared errors, in the shape of the values.
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
    source: str, kind: str, largest: float, bit_width: int, ratios: Iterable[int], clips: tuple[float, ...]
) -> Iterator[Quantizer]:
    if source == "softmax" and kind in ("log2", "log_sqrt2"):
        yield LogQuantizer(bit_width=bit_width, base=2.0 if kind == "log2" else 2**0.5)
    elif source == "softmax" and kind == "best":
        for base, clip in itertools.product(BASES, clips):
            yield LogQuantizer(bit_width=bit_width, base=base, maximum=largest * clip)
    if kind in REGIONS and bit_width >= 3:
        signed = source == "activation"
        for regions, ratio, clip in itertools.product(REGIONS[kind], ratios, clips):
            if regions == "sign" and not signed:
                continue
            yield TwoScaleQuantizer(
                bit_width=bit_width,
                regions=regions,
                fine_scale=largest * clip / (2 ** (bit_width - 1) - 1) / 2**ratio,
                ratio_exponent=ratio,
                signed=signed,
            )
