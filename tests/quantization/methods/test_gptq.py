"""Weights that make up for quantised inputs, and rounding that makes up for itself."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from vitrail.core.errors import QuantizationError
from vitrail.quantization import observe_channels
from vitrail.quantization.config import QuantizationConfig
from vitrail.quantization.methods.correction import Moments, Rows, ridge_target
from vitrail.quantization.methods.gptq import _rows, best_rounding, gptq_codes
from vitrail.quantization.plan import Rounding

generator = torch.Generator().manual_seed(0)
MIXING = torch.randn(48, 48, generator=generator)
WEIGHT = torch.randn(24, 48, generator=generator)


def inputs(count: int) -> Tensor:
    """Rows whose columns are strongly correlated, as activations are."""
    return torch.randn(count, 12, generator=generator) @ MIXING[:12] + 0.1 * torch.randn(count, 48, generator=generator)


def rows(x: Tensor, z: Tensor) -> Rows:
    return Rows(exact=x, quantized=z, sample_weight=torch.ones(len(x)))


def output_error(matrix: Tensor, approximate: Tensor, x: Tensor, z: Tensor) -> float:
    return float((x @ matrix.t() - z @ approximate.t()).square().mean())


@pytest.mark.parametrize("bits", [3, 4])
def test_gptq_lowers_the_output_error(bits: int) -> None:
    x = inputs(512)
    quantizer = observe_channels(WEIGHT, 0, bit_width=bits)
    codes = gptq_codes(WEIGHT, quantizer, Moments.of([rows(x, x)]).gram)
    assert codes.dtype == torch.int8
    assert int(codes.abs().max()) <= quantizer.quant_max
    fresh = inputs(512)
    rounded = output_error(WEIGHT, quantizer.dequantize(codes), fresh, fresh)
    assert rounded < 0.5 * output_error(WEIGHT, quantizer.fake_quantize(WEIGHT), fresh, fresh)


def test_gptq_of_uncorrelated_inputs_is_nearest() -> None:
    quantizer = observe_channels(WEIGHT, 0, bit_width=4)
    assert torch.equal(gptq_codes(WEIGHT, quantizer, torch.eye(48)), quantizer.quantize(WEIGHT))


def test_the_ridge_is_the_minimum_of_its_objective() -> None:
    x = inputs(256)
    z = (x * 2).round() / 2
    moments = Moments.of([rows(x, z)])
    target = ridge_target(WEIGHT, moments, 0.1)
    strength = 0.1 * float(moments.gram.diagonal().mean())

    def objective(weight: Tensor) -> float:
        fit = (x @ WEIGHT.t() - z @ weight.t()).square().sum() / len(x)
        return float(fit + strength * (weight - WEIGHT).square().sum())

    least = objective(target)
    assert least < objective(WEIGHT)
    for _ in range(5):
        assert objective(target + 0.01 * torch.randn(WEIGHT.shape, generator=generator)) > least


def test_rows_without_weight_do_not_count() -> None:
    x = inputs(128)
    loud = x.clone()
    loud[::2] *= 100
    weight = torch.ones(128)
    weight[::2] = 0
    quiet = Moments.of([Rows(exact=loud, quantized=loud, sample_weight=weight)])
    torch.testing.assert_close(quiet.gram, Moments.of([rows(x[1::2], x[1::2])]).gram, rtol=1e-4, atol=1e-4)


def test_a_biased_input_is_corrected_by_the_bias() -> None:
    x = inputs(256)
    z = x + 0.5  # what clipping does to the mean
    quantizer = observe_channels(WEIGHT, 0, bit_width=8)
    chosen = QuantizationConfig(preset="fast", correction="bias").resolved()
    batches = [rows(a, b) for a, b in zip(x.split(64), z.split(64), strict=True)]
    codes, bias = best_rounding(WEIGHT, None, quantizer, batches, chosen)
    assert bias is not None
    torch.testing.assert_close(bias, -0.5 * quantizer.dequantize(codes).sum(1), rtol=0.05, atol=0.2)


def test_what_does_not_help_on_other_images_is_left() -> None:
    x = inputs(64)
    quantizer = observe_channels(WEIGHT, 0, bit_width=8)
    # the fitted batches have an offset that the judging one lacks
    batches = [rows(part, part + 1.0) for part in x.split(16)]
    batches[3] = rows(x[48:], x[48:])
    codes, bias = best_rounding(WEIGHT, torch.zeros(24), quantizer, batches, QuantizationConfig().resolved())
    assert bias is None
    assert torch.equal(codes, quantizer.quantize(WEIGHT)) or output_error(
        WEIGHT, quantizer.dequantize(codes), x[48:], x[48:]
    ) < output_error(WEIGHT, quantizer.fake_quantize(WEIGHT), x[48:], x[48:])


def test_codes_survive_the_plan_and_damage_is_refused() -> None:
    nearest = torch.randint(-7, 8, (5, 6), dtype=torch.int8, generator=generator)
    codes = (nearest + torch.randint(-2, 3, (5, 6), generator=generator)).to(torch.int8)
    rounding = Rounding.from_dict(Rounding.of(codes, nearest, torch.ones(5)).to_dict())
    assert torch.equal(rounding.codes(nearest), codes)
    assert rounding.bias is not None
    assert rounding.bias.tolist() == [1.0] * 5
    assert Rounding.of(nearest, nearest, None).to_dict() == Rounding().to_dict()
    assert Rounding().codes(nearest) is nearest
    with pytest.raises(QuantizationError, match="30 codes for a weight of 20"):
        rounding.codes(nearest[:, :4])
    with pytest.raises(QuantizationError, match="damaged"):
        Rounding(code_offsets="!!").codes(nearest)


def test_without_fisher_information_all_rows_count_alike() -> None:
    """A level of a detector without chosen proposals: weights of zero would divide by zero."""
    op, x = SimpleNamespace(rows=lambda rows: rows), [inputs(6), inputs(6)]
    alike = _rows(op, x, x, torch.zeros(12))  # type: ignore[arg-type]
    assert [batch.sample_weight.tolist() for batch in alike] == [[1.0] * 6] * 2
    weighted = _rows(op, x, x, torch.arange(12.0))  # type: ignore[arg-type]
    assert weighted[1].sample_weight[0] > weighted[0].sample_weight[0] > 0
