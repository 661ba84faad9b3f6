"""Weights that make up for what quantisation changes: rounding by second order, ridge correction, bias correction.

Sources: second-order rounding as in GPTQ, arXiv:2210.17323 (each column's rounding error is spread over the columns
that follow, by the inverse Hessian of the layer's output error); ridge regression of the weights on quantised inputs
as in ERQ, arXiv:2407.06794; the mean of the output error into the bias as in data-free quantisation, arXiv:1906.04721.
Whatever is tried is kept only if it lowers the layer's output error on images that it was not fitted to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from vitrail.quantization.config import Chosen
from vitrail.quantization.graph import tensor_of
from vitrail.quantization.nonuniform import Quantizer
from vitrail.quantization.plan import Rounded
from vitrail.quantization.quantizers import UniformQuantizer
from vitrail.quantization.sites import Site
from vitrail.quantization.walk import layer_bias, walk

RIDGES = (0.03, 0.3, 3.0)
"""Strengths of the ridge, as shares of the mean squared input, that are tried."""

DAMPING = 0.01
"""Share of the mean squared input added to the Hessian's diagonal, as GPTQ does."""

BLOCK = 64
"""Columns whose errors are spread at once."""

ROWS = 4096
"""Rows of a batch that are used; a convolution on a large picture has many alike."""

FLOOR = 0.1
"""Share of the mean that is added to how much each place is felt: gradients speak of small errors only."""

HELD_OUT = 4
"""One batch in this many judges and is not fitted to."""


@dataclass
class Rows:
    """What a layer reads from one batch: float x and quantised z, (n, d), and how much each row counts, (n,)."""

    exact: Tensor
    quantized: Tensor
    weight: Tensor


@dataclass
class Moments:
    """Weighted second moments of a layer's inputs, float x and quantised z of width d.

    Attributes:
        gram: mean z^T z, (d, d).
        cross: mean (x - z)^T z, (d, d).
        mean, mean_quantized: of x and of z, (d,).
    """

    gram: Tensor
    cross: Tensor
    mean: Tensor
    mean_quantized: Tensor

    @classmethod
    def of(cls, batches: list[Rows]) -> Moments:
        """Over all batches."""
        width = batches[0].exact.shape[1]
        gram, cross = torch.zeros(width, width), torch.zeros(width, width)
        mean, mean_quantized = torch.zeros(width), torch.zeros(width)
        total = sum(float(rows.weight.sum()) for rows in batches)
        for rows in batches:
            weighted = rows.quantized * rows.weight[:, None]
            gram += weighted.t() @ rows.quantized / total
            cross += (rows.exact - rows.quantized).t() @ weighted / total
            mean += rows.weight @ rows.exact / total
            mean_quantized += weighted.sum(0) / total
        return cls(gram=gram, cross=cross, mean=mean, mean_quantized=mean_quantized)


def round_weights(
    graph_module: fx.GraphModule,
    sites: list[Site],
    operands: Mapping[str, Quantizer],
    images: Tensor,
    chosen: Chosen,
    *,
    felt: Mapping[str, Tensor | None],
    known: Mapping[str, Rounded] | None = None,
    on_rounded: Callable[[str, Rounded], None] | None = None,
    progress: bool = False,
) -> dict[str, Rounded]:
    """Codes and biases of all quantised dense layers.

    Args:
        sites: the products that are quantised.
        operands: operand name -> quantiser, of weights and activations.
        images: normalised (n, c, h, w); a quarter of them judges only.
        chosen: how to round and to correct.
        felt: left operand -> how much the model's output feels an error at each place, see
            :class:`~vitrail.quantization.calibration.Observation`; None counts all alike.
        known: weight operand -> what an earlier, interrupted call decided.
        on_rounded: is told each decision as it is made.
    """
    results: dict[str, Rounded] = dict(known or {})

    def decide(site: Site, exact: list[Tensor], quantized: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        weight, bias = tensor_of(graph_module, site.right.node), layer_bias(graph_module, site)
        assert weight is not None
        quantizer, name = operands[site.right.name], site.right.name
        if not isinstance(quantizer, UniformQuantizer) or not site.dense:
            return quantizer.fake_quantize(weight), bias
        nearest = quantizer.quantize(weight)
        if name not in results:
            batches = _rows(site, exact, quantized, felt[site.left.name])
            codes, new_bias = best_rounding(site.matrix(weight), bias, _by_rows(quantizer), batches, chosen)
            results[name] = Rounded.of(site.weight(codes, weight.shape), nearest, new_bias)
            if on_rounded is not None:
                on_rounded(name, results[name])
        rounded = results[name]
        final = bias if rounded.bias is None else torch.tensor(rounded.bias)
        return quantizer.dequantize(rounded.codes(nearest)), final

    walk(graph_module, {site.node: site for site in sites}, operands, images, decide, progress=progress)
    return results


def best_rounding(
    matrix: Tensor,
    bias: Tensor | None,
    quantizer: UniformQuantizer,
    batches: list[Rows],
    chosen: Chosen,
) -> tuple[Tensor, Tensor | None]:
    """The codes (outputs, d) and the bias, None for the old one, that disturb a layer's outputs least.

    Args:
        matrix: float weight (outputs, d).
        quantizer: of its rows, symmetric.
        batches: the layer's inputs.
    """
    fitted = [rows for index, rows in enumerate(batches) if index % HELD_OUT != HELD_OUT - 1]
    held = batches[HELD_OUT - 1 :: HELD_OUT] or fitted
    moments = Moments.of(fitted)
    best: tuple[Tensor, Tensor | None] | None = None
    least = float("inf")
    for codes in _candidates(matrix, quantizer, moments, chosen):
        approximate = quantizer.dequantize(codes)
        offset = matrix @ moments.mean - approximate @ moments.mean_quantized
        corrections = [None] if chosen.correction == "none" else [None, offset]
        for correction in corrections:
            error = _output_error(matrix, approximate, correction, held)
            if error < least:
                new_bias = None if correction is None else correction + (0 if bias is None else bias)
                least, best = error, (codes, new_bias)
    assert best is not None
    return best


def _candidates(matrix: Tensor, quantizer: UniformQuantizer, moments: Moments, chosen: Chosen) -> Iterator[Tensor]:
    targets = [matrix]
    if chosen.correction == "ridge":
        targets += [ridge_target(matrix, moments, strength) for strength in RIDGES]
    for target in targets:
        yield quantizer.quantize(target)
        if chosen.rounding == "second_order":
            yield second_order_codes(target, quantizer, moments.gram)


def ridge_target(matrix: Tensor, moments: Moments, strength: float) -> Tensor:
    """The weight that gives, from quantised inputs, the float outputs best, kept near the float weight.

    It minimises mean |W x - V z|^2 + r |V - W|^2 over V, with r = ``strength`` times the mean squared input.
    """
    size = len(moments.gram)
    ridge = strength * moments.gram.diagonal().mean() * torch.eye(size)
    correction = torch.linalg.solve((moments.gram + ridge).double(), moments.cross.t().double()).float()
    return matrix + matrix @ correction.t()


def second_order_codes(matrix: Tensor, quantizer: UniformQuantizer, gram: Tensor) -> Tensor:
    """Codes (outputs, d) rounded column by column, each column's error made up for by those that follow."""
    order = gram.diagonal().argsort(descending=True)  # the columns that matter most while all others can still help
    hessian = gram[order][:, order].double()
    damping = DAMPING * hessian.diagonal().mean().clamp(min=1e-12)
    hessian.diagonal().add_(damping)
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True).float()
    weight = matrix[:, order].clone()
    codes = torch.empty_like(weight)
    scale = torch.tensor(quantizer.scale)
    for start in range(0, weight.shape[1], BLOCK):
        end = min(start + BLOCK, weight.shape[1])
        errors = torch.empty(len(weight), end - start)
        for column in range(start, end):
            values = weight[:, column]
            codes[:, column] = torch.round(values / scale).clamp_(quantizer.quant_min, quantizer.quant_max)
            errors[:, column - start] = (values - codes[:, column] * scale) / factor[column, column]
            weight[:, column:end] -= errors[:, column - start, None] * factor[column, column:end]
        weight[:, end:] -= errors @ factor[start:end, end:]
    result = torch.empty(codes.shape, dtype=quantizer.dtype)
    result[:, order] = codes.to(quantizer.dtype)
    return result


def _output_error(matrix: Tensor, approximate: Tensor, correction: Tensor | None, batches: list[Rows]) -> float:
    total = 0.0
    for rows in batches:
        difference = rows.exact @ matrix.t() - rows.quantized @ approximate.t()
        if correction is not None:
            difference -= correction
        total += float(difference.square_().sum(1).double() @ rows.weight.double())
    return total


def _rows(site: Site, exact: list[Tensor], quantized: list[Tensor], felt: Tensor | None) -> list[Rows]:
    """At most ``ROWS`` of each batch's rows, evenly spread."""
    batches, start = [], 0
    for x, z in zip(exact, quantized, strict=True):
        rows, other = site.rows(x), site.rows(z)
        step = max(-(-len(rows) // ROWS), 1)
        weight = torch.ones(len(rows))
        if felt is not None and felt.mean() > 0:  # a level none of whose proposals was chosen is felt nowhere
            weight = felt[start : start + len(rows)] + FLOOR * felt.mean()
        start += len(rows)
        batches.append(Rows(rows[::step], other[::step], weight[::step]))
    return batches


def _by_rows(quantizer: UniformQuantizer) -> UniformQuantizer:
    """The same scales for the layer's matrix, whose channels are on axis 0."""
    return UniformQuantizer(
        bit_width=quantizer.bit_width,
        signed=quantizer.signed,
        symmetric=quantizer.symmetric,
        axis=0,
        scale=quantizer.scale,
        zero_point=quantizer.zero_point,
    )
