"""MobileViT's block and ExMobileViT's head."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitrail.core.errors import ConfigError
from vitrail.layers import ExShortcut, MobileViTBlock
from vitrail.layers.mobilevit import fold_patches, unfold_patches
from vitrail.models import create_model


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_folding_inverts_unfolding(patch: int, rows: int, columns: int) -> None:
    x = torch.arange(2 * 3 * patch**2 * rows * columns * 1.0).reshape(2, 3, patch * rows, patch * columns)
    tokens = unfold_patches(x, patch)
    assert tokens.shape == (2 * patch**2, rows * columns, 3)
    assert torch.equal(fold_patches(tokens, patch, (patch * rows, patch * columns)), x)


def test_sequences_hold_one_position_of_every_patch() -> None:
    tokens = unfold_patches(torch.arange(16.0).reshape(1, 1, 4, 4), 2)
    assert tokens[:, :, 0].tolist() == [[0, 2, 8, 10], [1, 3, 9, 11], [4, 6, 12, 14], [5, 7, 13, 15]]


@pytest.mark.parametrize("size", [(6, 8), (5, 8), (5, 7), (1, 1)])
def test_odd_maps_keep_their_size(size: tuple[int, int]) -> None:
    block = MobileViTBlock(8, 16, 1).eval()
    assert block(torch.randn(2, 8, *size)).shape == (2, 8, *size)


def test_cost_is_as_documented() -> None:
    c, d, depth = 8, 16, 2
    block = MobileViTBlock(c, d, depth).eval()
    for height, width in ((4, 4), (8, 4), (8, 8)):
        n = height * width
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            block(torch.zeros(1, c, height, width))
        expected = n * (27 * c**2 + 2 * c * d) + depth * (8 * n * d**2 + n**2 * d / 2)
        assert counter.get_total_flops() / 2 == expected


def _levels() -> list[torch.Tensor]:
    return [torch.randn(2, 4, 8, 12), torch.randn(2, 6, 4, 6), torch.randn(2, 8, 2, 3)]


def test_the_shortcut_appends_the_means_of_all_levels() -> None:
    head, levels = ExShortcut((4, 6, 8), (3, 5, 7)).eval(), _levels()
    vector, as_map = head(levels), head.forward_map(levels)
    expected = [head.projections[i](levels[i]).mean((2, 3)) for i in range(3)]
    torch.testing.assert_close(vector, torch.cat(expected, 1))
    assert as_map.shape == (2, 15, 2, 3)
    torch.testing.assert_close(as_map.mean((2, 3)), vector)


def test_crops_see_the_top_left_only() -> None:
    head, levels = ExShortcut((4, 6, 8), (3, 5, 7), crops=(5, 3, None)).eval(), _levels()
    before = head(levels)
    levels[0][:, :, 5:] += 1
    levels[1][:, :, :, 3:] += 1
    assert torch.equal(head(levels), before)
    assert torch.equal(head.forward_map(levels)[:, :8, 0, 0], before[:, :8])


def test_the_shortcut_fits_any_pyramid() -> None:
    backbone = create_model("edgevit_nano_stride2", num_classes=0).eval()
    info = backbone.feature_info[-3:]
    head = ExShortcut([level.channels for level in info], (16, 32, 64)).eval()
    levels = backbone.forward_intermediates(torch.randn(2, 3, 48, 48), 3, intermediates_only=True)
    logits = nn.Linear(head.num_features, 5)(head(levels))
    assert logits.shape == (2, 5)
    with pytest.raises(ConfigError, match="2 levels, 3 widths"):
        ExShortcut((4, 6), (3, 5, 7))
