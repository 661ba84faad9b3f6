"""Performer attention: order of the projection, kernel, costs."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitrail.layers import PerformerAttention


def test_attention_equals_the_quadratic_form() -> None:
    layer = PerformerAttention(6, 8).double().eval()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    k, q, v = layer.kqv(x).split(8, -1)

    def phi(z: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.exp(z @ w - z.square().sum(-1) / 2) for w in layer.w], -1) / len(layer.w) ** 0.5

    weights = phi(q) @ phi(k).transpose(1, 2)
    mean = weights @ v / (weights.sum(-1, keepdim=True) + 1e-8)
    torch.testing.assert_close(layer(x), v + layer.proj(mean))


def test_the_kernel_estimates_the_softmax() -> None:
    layer = PerformerAttention(4, 4, kernel_ratio=20_000.0)
    layer.w.data = torch.randn_like(layer.w)
    q, k = 0.5 * torch.randn(1, 3, 4), 0.5 * torch.randn(1, 3, 4)
    estimate = layer.features(q) @ layer.features(k).transpose(1, 2)
    torch.testing.assert_close(estimate, torch.exp(q @ k.transpose(1, 2)), rtol=0.05, atol=0.02)


def test_directions_are_orthogonal_fixed_and_saved() -> None:
    layer = PerformerAttention(6, 8)
    torch.testing.assert_close(layer.w @ layer.w.T, 4 * torch.eye(4))
    assert not layer.w.requires_grad
    assert "w" in layer.state_dict()


def test_underflow_gives_the_values_not_nan() -> None:
    layer = PerformerAttention(4, 4).eval()
    layer.kqv.weight.data *= 100
    x = torch.randn(1, 3, 4)
    assert layer(x).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_of_half_precision_are_widened(dtype: torch.dtype) -> None:
    layer = PerformerAttention(4, 4).to(dtype).eval()
    assert layer.features(torch.randn(1, 3, 4, dtype=dtype)).dtype == torch.float32
    assert layer(torch.randn(1, 3, 4, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("n", [10, 20, 40])
def test_the_cost_is_linear_and_as_documented(n: int) -> None:
    with torch.device("meta"):
        layer = PerformerAttention(12, 8)
        with FlopCounterMode(display=False) as counter:
            layer(torch.empty(1, n, 12))
    assert counter.get_total_flops() / 2 == n * (3 * 12 * 8 + 8 * 8) + n * 4 * (4 * 8 + 1)
