"""Residual attention: mixing, carrying over changes of shape, the fused path, costs."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st
from torch.utils.flop_counter import FlopCounterMode

from vitrail.core.errors import ConfigError
from vitrail.layers import (
    CarriedLogits,
    PooledResidualAttention,
    ResidualAttention,
    ResidualWindowAttention,
    resize_rel_pos,
)
from vitrail.layers.residual_attention import (
    pooled_distance_index,
    residual_attention,
    resize_logits,
    resize_window_logits,
)


def _tensors(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


def test_mixing_is_a_weighted_mean_of_logits() -> None:
    q, k, v, carried = _tensors((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 4), (2, 3, 5, 6))
    alpha = torch.tensor([0.3])
    out, logits = residual_attention(q, k, v, carried, alpha)
    for b, h in product(range(2), range(3)):
        mixed = 0.3 * (q[b, h] @ k[b, h].T) / 2 + 0.7 * carried[b, h]
        torch.testing.assert_close(logits[b, h], mixed, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(out[b, h], mixed.softmax(-1) @ v[b, h], rtol=1e-6, atol=1e-6)


def test_the_first_block_keeps_its_own_logits() -> None:
    q, k, v = _tensors((1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8))
    out, logits = residual_attention(q, k, v, None, 0.1)
    torch.testing.assert_close(logits, q @ k.transpose(-2, -1) / 8**0.5)
    torch.testing.assert_close(out, F.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("with_carried", [False, True])
def test_what_is_carried_has_the_biases_but_not_the_mask(with_carried: bool) -> None:
    q, k, v, bias, late, mask = _tensors(*[(1, 2, 4, 4)] * 6)
    carried = torch.randn(1, 1, 4, 4, dtype=torch.float64) if with_carried else None
    out, logits = residual_attention(q, k, v, carried, 0.25, bias=bias, late_bias=late, mask=mask)
    own = q @ k.transpose(-2, -1) / 2 + bias
    expected = (own if carried is None else 0.25 * own + 0.75 * carried) + late
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(out, (expected + mask).softmax(-1) @ v)


@given(st.tuples(*[st.booleans()] * 4), st.booleans())
def test_the_fused_path_computes_the_same(present: tuple[bool, ...], learned: bool) -> None:
    q, k, v, *extras = _tensors((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4), *[(2, 2, 3, 5)] * 4)
    carried, bias, late, mask = (extra if there else None for extra, there in zip(extras, present, strict=True))
    alpha = torch.tensor([0.4], dtype=torch.float64) if learned else 0.4
    arguments = {"bias": bias, "late_bias": late, "mask": mask}
    plain, _ = residual_attention(q, k, v, carried, alpha, **arguments)
    fused, logits = residual_attention(q, k, v, carried, alpha, carry=False, **arguments)
    assert logits is None
    torch.testing.assert_close(fused, plain)


def test_a_chain_is_an_exponential_moving_average() -> None:
    mixers = [ResidualAttention(8, 2).double() for _ in range(4)]
    x = torch.randn(1, 5, 8, dtype=torch.float64)
    carried, average = None, None
    for mixer in mixers:
        own = mixer(x, None, 0.5)[1]
        average = own if average is None else 0.3 * own + 0.7 * average
        _, carried = mixer(x, carried, 0.3)
    torch.testing.assert_close(carried, average)


def test_gradients_reach_alpha_and_earlier_blocks_through_both_paths() -> None:
    first, second = ResidualAttention(8, 2), ResidualAttention(8, 2)
    x, gradients = torch.randn(2, 5, 8), []
    for carry in (True, False):
        alpha = torch.tensor([0.4], requires_grad=True)
        first.zero_grad()
        _, carried = first(x, None, alpha)
        second(x, carried, alpha, carry)[0].square().sum().backward()
        gradients.append((alpha.grad, first.qkv.weight.grad.clone()))
    for plain, fused in zip(*gradients, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(plain, fused, rtol=1e-4, atol=1e-6)


@given(st.integers(1, 40), st.integers(1, 40))
def test_pairs_of_window_and_head_take_the_nearest(had: int, wanted: int) -> None:
    logits = torch.arange(float(had)).reshape(1, had, 1, 1)
    resized = resize_window_logits(logits, wanted)
    assert resized.flatten().tolist() == [i * had // wanted for i in range(wanted)]


@pytest.mark.parametrize("had", [192, 96, 48, 24, 12])
@pytest.mark.parametrize("wanted", [96, 48, 24])
def test_pairs_are_chosen_as_torch_chooses_them(had: int, wanted: int) -> None:
    logits = torch.randn(2, had, 3, 3)
    expected = F.interpolate(logits[:, None], (wanted, 3, 3))[:, 0]
    assert torch.equal(resize_window_logits(logits, wanted), expected)


@pytest.mark.parametrize(
    ("grids", "wanted"),
    [
        (((4, 6), (2, 3)), ((4, 6), (2, 3))),
        (((4, 6), (2, 3)), ((2, 3), (2, 3))),
        (((4, 6), (4, 6)), ((4, 6), (2, 3))),
        (((4, 6), (2, 3)), ((2, 3), (4, 6))),
        (((8, 4), (4, 2)), ((2, 1), (4, 2))),
    ],
)
@pytest.mark.parametrize("heads", [2, 4])
def test_logits_are_fitted_to_other_maps(grids: tuple, wanted: tuple, heads: int) -> None:
    queries, keys = grids
    values = torch.randn(1, 2, queries[0] * queries[1], keys[0] * keys[1], dtype=torch.float64)
    fitted = resize_logits(CarriedLogits(values, *grids), heads, *wanted)
    source = values if heads == 2 else values.mean(1, keepdim=True)
    assert fitted.shape == (1, source.shape[1], wanted[0][0] * wanted[0][1], wanted[1][0] * wanted[1][1])
    source, fitted = (
        source.unflatten(2, queries).unflatten(4, keys),
        fitted.unflatten(2, wanted[0]).unflatten(4, wanted[1]),
    )

    def covered(place: int, had: int, want: int) -> slice:
        return slice(place * had // want, max((place + 1) * had // want, place * had // want + 1))

    for y, x, ky, kx in product(*map(range, fitted.shape[2:])):
        cells = source[
            0,
            :,
            covered(y, queries[0], wanted[0][0]),
            covered(x, queries[1], wanted[0][1]),
            covered(ky, keys[0], wanted[1][0]),
            covered(kx, keys[1], wanted[1][1]),
        ]
        torch.testing.assert_close(fitted[0, :, y, x, ky, kx], cells.mean((1, 2, 3, 4)))


@pytest.mark.parametrize(("queries", "keys"), [(56, 14), (28, 28), (14, 28), (7, 14), (1, 1), (2, 1)])
def test_distances_count_in_steps_of_the_finer_map(queries: int, keys: int) -> None:
    index = pooled_distance_index(queries, keys)
    for y, ky in product(range(queries), range(keys)):
        step_q, step_k = max(keys / queries, 1), max(queries / keys, 1)
        assert index[y, ky] == int(y * step_q - ky * step_k + (keys - 1) * step_k)
    assert index.min() == 0
    assert index.max() <= 2 * max(queries, keys) - 2


def test_pooled_attention_carries_its_bias() -> None:
    layer = PooledResidualAttention(8, 8, 2, (4, 6)).double()
    x = torch.randn(1, 4, 6, 8, dtype=torch.float64)
    carried = layer(x, None, 0.5)[1]
    for table in (layer.rel_pos_h, layer.rel_pos_w):
        torch.nn.init.zeros_(table)
    without = layer(x, None, 0.5)[1]
    assert (carried.values - without.values).abs().max() > 1e-3
    assert carried.query_grid == carried.key_grid == (4, 6)


def test_window_attention_carries_no_mask_and_mixes_windows_in_place() -> None:
    layer = ResidualWindowAttention(4, 1, 3, shift_size=1).double()
    x = torch.randn(1, 6, 6, 4, dtype=torch.float64)
    _, logits = layer(x, None, 0.5)
    assert logits.shape == (1, 4, 9, 9)
    assert logits.abs().max() < 50  # the mask is -100
    other = torch.randn_like(logits)
    _, mixed = layer(x, other, 0.25)
    torch.testing.assert_close(mixed, 0.25 * logits + 0.75 * other)


@pytest.mark.parametrize("n", [6, 12])
def test_full_cost_is_as_documented(n: int) -> None:
    with torch.device("meta"):
        layer = ResidualAttention(8, 2)
        with FlopCounterMode(display=False) as counter:
            _, logits = layer(torch.empty(1, n, 8), torch.empty(1, 2, n, n), 0.5)
    assert counter.get_total_flops() / 2 == 4 * n * 8**2 + 2 * n**2 * 8
    assert logits.numel() == 2 * n**2


@pytest.mark.parametrize("side", [12, 24])
def test_window_cost_is_as_documented(side: int) -> None:
    with torch.device("meta"):
        layer = ResidualWindowAttention(8, 2, 4, shift_size=2)
        with FlopCounterMode(display=False) as counter:
            _, logits = layer(torch.empty(1, side, side, 8), None, 0.5)
    n = side**2
    assert counter.get_total_flops() / 2 == 4 * n * 8**2 + 2 * n * 16 * 8
    assert logits.numel() == 2 * n * 16


@pytest.mark.parametrize(("grid", "stride_q", "stride_kv"), [((8, 8), 1, 4), ((8, 12), 2, 2), ((8, 8), 1, 1)])
def test_pooled_cost_is_as_documented(grid: tuple[int, int], stride_q: int, stride_kv: int) -> None:
    c, d, n = 6, 8, grid[0] * grid[1]
    q = n // stride_q**2
    h_k, w_k = grid[0] // stride_kv, grid[1] // stride_kv
    k = h_k * w_k
    with torch.device("meta"):
        layer = PooledResidualAttention(c, d, 2, grid, stride_q, stride_kv)
        with FlopCounterMode(display=False) as counter:
            layer(torch.empty(1, *grid, c), None, 0.5)
    expected = 3 * n * c * d + 9 * d * (q + 2 * k) + 2 * q * k * d + q * d * (h_k + w_k) + q * d**2
    assert counter.get_total_flops() / 2 == expected


def test_tables_are_resized_by_linear_interpolation() -> None:
    table = torch.arange(5.0)[:, None].expand(5, 3)
    resized = resize_rel_pos(table, 9)
    assert resized.shape == (9, 3)
    torch.testing.assert_close(resized[4], table[2])
    torch.testing.assert_close(resized, F.interpolate(table.T[None], 9, mode="linear")[0].T)


def test_heads_must_share_the_width() -> None:
    for build in (lambda: ResidualAttention(8, 3), lambda: PooledResidualAttention(8, 8, 3, (4, 4))):
        with pytest.raises(ConfigError, match="choose a divisor of 8"):
            build()
