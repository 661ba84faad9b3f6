"""Window attention: partitions, padding, shifts, bias tables, costs."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vitrail.core.errors import ConfigError
from vitrail.layers import WindowAttention, resize_rel_pos_bias
from vitrail.layers.window import (
    merge_windows,
    partition_windows,
    relative_position_index,
    shift_mask,
    symmetric_padding,
)

SIDE = st.integers(1, 4)


@given(SIDE, SIDE, SIDE)
def test_partitions_invert(rows: int, columns: int, window: int) -> None:
    x = torch.arange(2 * rows * columns * window**2 * 3.0).reshape(2, rows * window, columns * window, 3)
    windows = partition_windows(x, window)
    assert windows.shape == (2, rows * columns, window**2, 3)
    assert torch.equal(windows[0, -1, -1], x[0, -1, -1])
    assert torch.equal(windows[0, 0], x[0, :window, :window].reshape(-1, 3))
    assert torch.equal(merge_windows(windows, window, (rows * window, columns * window)), x)


@given(st.integers(1, 60), st.integers(1, 9))
def test_padding_is_symmetric_and_the_odd_zero_goes_after(side: int, window: int) -> None:
    before, after = symmetric_padding(side, window)
    assert (before + side + after) % window == 0
    assert before + after < window
    assert after - before in (0, 1)


@pytest.mark.parametrize("window", [1, 2, 3, 7])
def test_relative_positions_number_the_table_row_by_row(window: int) -> None:
    index = relative_position_index(window)
    places = list(product(range(window), range(window)))
    for (i, (qr, qc)), (j, (kr, kc)) in product(enumerate(places), enumerate(places)):
        assert index[i, j] == (qr - kr + window - 1) * (2 * window - 1) + (qc - kc + window - 1)


@pytest.mark.parametrize(("height", "width", "window", "shift"), [(6, 9, 3, 1), (8, 8, 4, 2), (14, 14, 7, 3)])
def test_the_mask_parts_what_the_roll_brought_together(height: int, width: int, window: int, shift: int) -> None:
    mask = shift_mask(height, width, window, shift)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([rows, columns], -1).roll((-shift, -shift), (0, 1))[None].float()
    windows = partition_windows(places, window)[0]
    apart = (windows[:, :, None] - windows[:, None, :]).abs().amax(-1) >= window
    assert torch.equal(mask, -100.0 * apart)


def _brute_force(layer: WindowAttention, x: Tensor) -> Tensor:
    """Every token against every other one of the (h, w, c) map; who shares a window is worked out by coordinates."""
    height, width = x.shape[:2]
    (top, bottom), (left, right) = (symmetric_padding(side, layer.window_size) for side in (height, width))
    padded = torch.zeros(top + height + bottom, left + width + right, x.shape[2], dtype=x.dtype)
    padded[top : top + height, left : left + width] = x
    shift = layer.shift_size if min(padded.shape[:2]) > layer.window_size else 0
    places = list(product(range(padded.shape[0]), range(padded.shape[1])))
    m, rows, columns = layer.window_size, *padded.shape[:2]
    q, k, v = layer.qkv(padded.flatten(0, 1)).unflatten(-1, (3, layer.num_heads, -1)).permute(1, 2, 0, 3)
    logits = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    for (i, (r, c)), (j, (kr, kc)) in product(enumerate(places), enumerate(places)):
        rolled = [((a - shift) % rows, (b - shift) % columns) for a, b in ((r, c), (kr, kc))]
        same = [(a // m, b // m) for a, b in rolled]
        near = abs(r - kr) < m and abs(c - kc) < m
        if same[0] != same[1] or not near:
            logits[:, i, j] = -torch.inf
        elif layer.rel_pos_bias is not None:
            logits[:, i, j] += layer.rel_pos_bias[(r - kr + m - 1) * (2 * m - 1) + c - kc + m - 1]
    out = layer.proj((logits.softmax(-1) @ v).transpose(0, 1).flatten(1))
    return out.unflatten(0, (rows, columns))[top : top + height, left : left + width]


@pytest.mark.parametrize(
    ("size", "window", "shift", "bias"),
    [
        ((6, 6), 3, 0, False),
        ((6, 9), 3, 1, True),
        ((5, 7), 3, 0, False),  # padded
        ((5, 8), 4, 2, True),  # padded and shifted
        ((4, 8), 4, 2, True),  # one window high: not shifted
        ((2, 3), 5, 0, False),  # smaller than a window
    ],
)
def test_attention_equals_brute_force(size: tuple[int, int], window: int, shift: int, bias: bool) -> None:
    layer = WindowAttention(6, 2, window, out_dim=8, shift_size=shift, rel_pos_bias=bias).double()
    if bias:
        torch.nn.init.normal_(layer.rel_pos_bias)
    torch.nn.init.normal_(layer.qkv.bias)  # padded tokens are nothing but the bias
    x = torch.randn(2, *size, 6, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), torch.stack([_brute_force(layer, one) for one in x]))


def test_padding_elsewhere_would_be_another_result(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = WindowAttention(4, 1, 4)
    x = torch.randn(1, 6, 6, 4)
    symmetric = layer(x)
    monkeypatch.setattr("vitrail.layers.window.symmetric_padding", lambda side, window: (0, -side % window))
    assert (layer(x) - symmetric).abs().max() > 1e-3


@pytest.mark.parametrize(("size", "window"), [((12, 12), 3), ((12, 24), 3), ((12, 12), 6), ((10, 11), 6)])
def test_the_cost_is_as_documented(size: tuple[int, int], window: int) -> None:
    with torch.device("meta"):
        layer = WindowAttention(8, 2, window, out_dim=16)
        with FlopCounterMode(display=False) as counter:
            layer(torch.empty(1, *size, 8))
    n = (-(-size[0] // window) * window) * (-(-size[1] // window) * window)
    assert counter.get_total_flops() / 2 == n * (3 * 8 * 16 + 16 * 16) + 2 * n * window**2 * 16


def test_tables_are_resized_by_bicubic_interpolation() -> None:
    table = torch.randn(25, 2)
    resized = resize_rel_pos_bias(table, 169)
    expected = torch.nn.functional.interpolate(table.T.reshape(1, 2, 5, 5), (13, 13), mode="bicubic")
    torch.testing.assert_close(resized, expected.reshape(2, 169).T)
    torch.testing.assert_close(resize_rel_pos_bias(table, 25), table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"num_heads": 3}, "choose a divisor of 8"), ({"shift_size": 4}, "shift_size=4"), ({"shift_size": -1}, "-1")],
)
def test_impossible_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WindowAttention(8, **({"num_heads": 2, "window_size": 4} | arguments))
