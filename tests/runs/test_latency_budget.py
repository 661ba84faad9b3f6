"""What a latency allows to stay in float."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vitrail.core.errors import QuantizationError
from vitrail.models import create_model
from vitrail.quantization import QuantizationConfig, QuantizedModel, quantize
from vitrail.quantization.float_fallback import leave_in_float, rank_products
from vitrail.runs.latency_budget import fit_latency, latency_ms


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return create_model("vit_nano_patch4", num_classes=10, depth=2, embed_dim=32, num_heads=2, image_size=16).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def quantized(model: nn.Module, images: Tensor) -> QuantizedModel:
    return quantize(model, images, config=QuantizationConfig(preset="min_max"))


def test_products_are_ranked_by_loss_for_their_work(
    model: nn.Module, images: Tensor, quantized: QuantizedModel
) -> None:
    ranked = rank_products(model, images, quantized.plan)
    assert {name for product in ranked for name in product.operands} == set(quantized.plan.operands)
    shares = [product.loss / product.num_macs for product in ranked]
    assert shares == sorted(shares, reverse=True)
    macs = {product.operands[0]: product.num_macs for product in ranked}
    tokens = 17
    assert macs["blocks.0.mlp.fc1:input"] == tokens * 32 * 128
    assert macs["blocks.0.token_mixer:query"] == tokens * tokens * 32
    assert macs["head:input"] == 32 * 10


def test_a_plan_without_some_products(model: nn.Module, images: Tensor, quantized: QuantizedModel) -> None:
    ranked = rank_products(model, images, quantized.plan)
    plan = leave_in_float(quantized.plan, ranked)
    assert not plan.operands
    with torch.inference_mode():
        torch.testing.assert_close(quantize(model, images, plan=plan)(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("allowed", [0, 5, *(pytest.param(one, marks=pytest.mark.slow) for one in (1, 9))])
def test_as_many_products_as_the_latency_allows(
    allowed: int, model: nn.Module, images: Tensor, quantized: QuantizedModel
) -> None:
    total = len(quantized.plan.operands)

    def latency_of(each: QuantizedModel) -> float:
        return 10.0 + (total - len(each.plan.operands)) / 2  # two operands a product here

    budget = 10.0 + allowed + 0.5
    fitted = fit_latency(model, quantized, images, max_latency_ms=budget, latency_of=latency_of)
    assert fitted.num_float == allowed
    assert fitted.latency_ms == 10.0 + allowed <= budget
    assert len(fitted.probes) <= 6
    ranked = rank_products(model, images, quantized.plan)
    gone = {name for product in ranked[:allowed] for name in product.operands}
    assert set(fitted.quantized.plan.operands) == set(quantized.plan.operands) - gone
    assert f"{allowed} of {len(ranked)} products went back to float" in fitted.quantized.plan.notes[-1]


def test_a_latency_that_cannot_be_met(model: nn.Module, images: Tensor, quantized: QuantizedModel) -> None:
    with pytest.raises(QuantizationError, match=r"max_latency_ms=0\.5 cannot be met: .* takes 0\.7 ms in openvino"):
        fit_latency(model, quantized, images, max_latency_ms=0.5, runtime="openvino", latency_of=lambda _: 0.7)


def test_what_cannot_be_measured(model: nn.Module, images: Tensor, quantized: QuantizedModel) -> None:
    simulated = quantize(model, images, config=QuantizationConfig(preset="min_max", activation_bits=6))
    with pytest.raises(QuantizationError, match=r"no runtime executes.*activation_bits=8"):
        fit_latency(model, simulated, images, max_latency_ms=1)
    with pytest.raises(QuantizationError, match="runtime 'torch' executes no codes of ours; choose onnxruntime or"):
        fit_latency(model, quantized, images, max_latency_ms=1, runtime="torch")


def test_a_real_measurement(model: nn.Module, images: Tensor, quantized: QuantizedModel) -> None:
    assert 0 < latency_ms(model, quantized, images, runtime="onnxruntime", threads=1) < 1e4
