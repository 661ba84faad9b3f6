"""Convolutions of mobile networks: padding, folding of norms, costs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitrail.layers import ConvNormAct, InvertedResidual, MBConv, SqueezeExcite
from vitrail.layers.conv import Conv2dSame


def _lively(module: nn.Module) -> nn.Module:
    """BatchNorms with statistics that matter."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
    return module.double().eval()


@pytest.mark.parametrize(("size", "first"), [(6, [0, 1, 2]), (7, [0, 1])])
def test_same_padding_puts_the_odd_pixel_after(size: int, first: list[int]) -> None:
    conv = Conv2dSame(1, 1, 3, 2, bias=False)
    nn.init.ones_(conv.weight)
    out = conv(torch.arange(float(size)).expand(1, 1, size, size))
    assert out.shape[-1] == -(-size // 2)
    assert out[0, 0, 1, 0] == 3 * sum(first)  # row 1 has no padding; column 0 shows what came before


def test_same_padding_at_stride_1_is_symmetric() -> None:
    conv, x = Conv2dSame(2, 3, 3), torch.randn(1, 2, 5, 8)
    expected = nn.functional.conv2d(x, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize(
    "layer",
    [
        ConvNormAct(4, 6, 3, 2),
        ConvNormAct(4, 6, 3, 2, tf_padding=True, bias=True, eps=1e-3),
        MBConv(4, 8, 2),
        MBConv(8, 8),
    ],
)
def test_folding_the_norms_keeps_the_output(layer: nn.Module) -> None:
    layer = _lively(layer)
    x = torch.randn(2, 8 if isinstance(layer, MBConv) and not layer.shortcut else 4, 9, 8).double()
    with torch.no_grad():
        expected = layer(x)
        for _ in range(2):  # the second time there is nothing left to fold
            layer.fuse()
            torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in layer.modules())


def test_the_shortcut_averages_only_pixels_that_exist() -> None:
    block = MBConv(1, 1, 2, se_ratio=1.0)
    out = block.shortcut(torch.arange(9.0).view(1, 1, 3, 3))
    assert out.flatten().tolist() == [2.0, 3.5, 6.5, 8.0]
    assert not list(MBConv(4, 4).shortcut.children())
    assert [name for name, _ in MBConv(4, 8, 2).shortcut.named_children()] == ["pool", "proj"]


def test_a_residual_only_where_the_shape_is_kept() -> None:
    assert InvertedResidual(8, 8, 1, 2.0).has_residual
    assert not InvertedResidual(8, 8, 2, 2.0).has_residual
    assert not InvertedResidual(8, 16, 1, 2.0).has_residual


def _macs(layer: nn.Module, dim: int, height: int, width: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer.eval()(torch.zeros(1, dim, height, width))
    return counter.get_total_flops() / 2


def test_costs_are_as_documented() -> None:
    assert _macs(ConvNormAct(4, 8, 3, 2), 4, 8, 12) == 4 * 6 * 4 * 8 * 9
    hidden, n = 16, 4 * 6
    expected = 4 * n * 8 * hidden + 9 * n * hidden + n * hidden * 12
    assert _macs(InvertedResidual(8, 12, 2, 2.0), 8, 8, 12) == expected
    assert _macs(SqueezeExcite(8, 2), 8, 4, 4) == 2 * 8 * 2  # the counter leaves out the product with the map
