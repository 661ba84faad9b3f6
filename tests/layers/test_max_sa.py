"""Block and grid attention: who hears whom, and what it costs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitrail.core.errors import ConfigError, ImageSizeError
from vitrail.layers import BlockAttention, GridAttention, MaxSA, resize_bias_table
from vitrail.layers.max_sa import merge_map, partition_map, relative_bias

SIDE = st.integers(1, 4)


@given(st.sampled_from(["block", "grid"]), SIDE, SIDE, SIDE, SIDE)
def test_partitions_invert(partition: str, rows: int, columns: int, height: int, width: int) -> None:
    x = torch.arange(2 * rows * height * columns * width * 3.0).reshape(2, rows * height, columns * width, 3)
    groups = partition_map(x, (height, width), partition)
    assert groups.shape == (2 * rows * columns, height * width, 3)
    assert torch.equal(merge_map(groups, (height, width), partition, (rows * height, columns * width)), x)


def test_a_block_is_a_window_and_a_grid_is_spread_over_the_map() -> None:
    x = torch.arange(16.0).reshape(1, 4, 4, 1)
    assert partition_map(x, (2, 2), "block")[0].flatten().tolist() == [0, 1, 4, 5]
    assert partition_map(x, (2, 2), "grid")[0].flatten().tolist() == [0, 2, 8, 10]
    wide = torch.arange(24.0).reshape(1, 4, 6, 1)
    assert partition_map(wide, (2, 3), "grid")[1].flatten().tolist() == [1, 3, 5, 13, 15, 17]


def _heard(mixer: nn.Module, side: int, row: int, column: int) -> torch.Tensor:
    """Which tokens the output at one place depends on."""
    x = torch.randn(1, side, side, 32, requires_grad=True)
    mixer(x)[0, row, column].sum().backward()
    return x.grad[0].abs().sum(-1) > 1e-9


def test_block_hears_its_window_grid_its_positions_and_both_everything() -> None:
    block = _heard(BlockAttention(32, 2), 6, 0, 0)
    assert block[:2, :2].all()
    assert block.sum() == 4
    grid = _heard(GridAttention(32, 2), 6, 0, 0)
    assert grid[::3, ::3].all()
    assert grid.sum() == 4
    # Max-SA on 4x4: the grid hears four windows, and each of these all of its tokens.
    assert _heard(MaxSA(32, 2), 4, 1, 2).all()


def test_the_bias_is_looked_up_by_key_minus_query() -> None:
    table = torch.randn(2, 5, 7)
    bias = relative_bias(table, (3, 4))
    for query in range(12):
        for key in range(12):
            (qy, qx), (ky, kx) = divmod(query, 4), divmod(key, 4)
            assert torch.equal(bias[:, query, key], table[:, ky - qy + 2, kx - qx + 3])


def test_tables_are_resized_between_half_pixel_centres() -> None:
    ramp = torch.arange(13.0).expand(1, 13, 13)
    resized = resize_bias_table(ramp, (12, 16))
    assert resized.shape == (1, 23, 31)
    expected = ((torch.arange(31) + 0.5) * 13 / 31 - 0.5).clamp(0, 12)
    torch.testing.assert_close(resized[0, 4], expected, rtol=0, atol=1e-5)
    assert torch.equal(resize_bias_table(ramp, (7, 7)), ramp)


def _macs(mixer: nn.Module, height: int, width: int, dim: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        mixer(torch.zeros(1, height, width, dim))
    return counter.get_total_flops() / 2


def test_cost_grows_linearly_with_the_map_as_documented() -> None:
    for height, width in ((8, 8), (16, 8), (16, 16)):
        n, c = height * width, 64
        assert _macs(BlockAttention(c, 4), height, width, c) == 4 * n * c**2 + 2 * n * 16 * c
        assert _macs(GridAttention(c, 2), height, width, c) == 4 * n * c**2 + 2 * n * 4 * c
        assert _macs(MaxSA(c, 4, 2), height, width, c) == 8 * n * c**2 + 2 * n * (16 + 4) * c


def test_maps_and_widths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ImageSizeError, match=r"map of 9x8 .* grids of 4x4"):
        GridAttention(32, 4)(torch.zeros(1, 9, 8, 32))
    with pytest.raises(ConfigError, match="width 48"):
        BlockAttention(48, 4)
