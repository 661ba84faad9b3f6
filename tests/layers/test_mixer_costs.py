"""What every mixer costs, counted, is what the formula in its docstring says, at several sizes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vitrail import layers
from vitrail.layers import (
    TOKEN_MIXERS,
    Attention,
    AxialAttention,
    BlockAttention,
    GlobalSparseAttention,
    GridAttention,
    LocalAggregation,
    MapAttention,
    MaxSA,
    MixerOptions,
    PerformerAttention,
    PooledResidualAttention,
    PoolingMixer,
    RelativeAttention,
    ResidualAttention,
    ResidualWindowAttention,
    ValueSkipAttention,
    WindowAttention,
    make_token_mixer,
)

SIZES = [(8, 8, 32), (16, 8, 32), (8, 24, 64), (24, 16, 96)]
"""Rows, columns, width."""


def macs(mixer: nn.Module, *inputs: object) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        mixer(*inputs)
    return counter.get_total_flops() / 2


def full(n: int, c: int) -> int:
    return 4 * n * c**2 + 2 * n**2 * c


def window(n: int, c: int, d: int, m: int) -> int:
    return n * (3 * c * d + d**2) + 2 * n * m**2 * d


def sparse(n: int, c: int, r: int) -> int:
    delegates = n // r**2
    return 3 * delegates * c**2 + 2 * delegates**2 * c + (n * c if r > 1 else 0) + n * c**2


Case = tuple[Callable[[int], nn.Module], str, Callable[[int, int, int], int]]

# Mixer of width c, the layout of its input, and the formula of rows h, columns w and width c.
CASES: dict[str, Case] = {
    "full": (lambda c: Attention(c, 2), "tokens", lambda h, w, c: full(h * w, c)),
    "full, on maps": (lambda c: MapAttention(c, 2), "channels_last", lambda h, w, c: full(h * w, c)),
    "value skip": (
        lambda c: ValueSkipAttention(c, c // 2, 2),
        "channels_last",
        lambda h, w, c: h * w * (3 * c * c // 2 + (c // 2) ** 2) + (h * w) ** 2 * c,
    ),
    "local aggregation": (LocalAggregation, "map", lambda h, w, c: h * w * (2 * c**2 + 25 * c)),
    "global sparse 1": (lambda c: GlobalSparseAttention(c, 2, 1), "channels_last", lambda h, w, c: sparse(h * w, c, 1)),
    "global sparse 2": (lambda c: GlobalSparseAttention(c, 2, 2), "channels_last", lambda h, w, c: sparse(h * w, c, 2)),
    "global sparse 4": (lambda c: GlobalSparseAttention(c, 2, 4), "channels_last", lambda h, w, c: sparse(h * w, c, 4)),
    "block": (
        lambda c: BlockAttention(c, 4),
        "channels_last",
        lambda h, w, c: 4 * h * w * c**2 + 2 * h * w * 16 * c,
    ),
    "grid": (
        lambda c: GridAttention(c, (8, 4)),
        "channels_last",
        lambda h, w, c: 4 * h * w * c**2 + 2 * h * w * 32 * c,
    ),
    "max-sa": (
        lambda c: MaxSA(c, 4, 8),
        "channels_last",
        lambda h, w, c: 8 * h * w * c**2 + 2 * h * w * (16 + 64) * c,
    ),
    "window": (lambda c: WindowAttention(c, 2, 4), "channels_last", lambda h, w, c: window(h * w, c, c, 4)),
    "window, shifted": (
        lambda c: WindowAttention(c, 2, 4, shift_size=2, rel_pos_bias=True),
        "channels_last",
        lambda h, w, c: window(h * w, c, c, 4),
    ),
    "window, padded": (
        lambda c: WindowAttention(c, 2, 7, out_dim=2 * c),
        "channels_last",
        lambda h, w, c: window(-(-h // 7) * -(-w // 7) * 49, c, 2 * c, 7),
    ),
    "axial, rows": (
        lambda c: AxialAttention(c, 2, "row"),
        "channels_last",
        lambda h, w, c: 4 * h * w * c**2 + 2 * h * w**2 * c,
    ),
    "axial, columns": (
        lambda c: AxialAttention(c, 2, "column"),
        "channels_last",
        lambda h, w, c: 4 * h * w * c**2 + 2 * h**2 * w * c,
    ),
    "performer": (
        lambda c: PerformerAttention(c, c // 2),
        "tokens",
        lambda h, w, c: h * w * (3 * c * c // 2 + (c // 2) ** 2) + h * w * (c // 4) * (4 * c // 2 + 1),
    ),
    "pooling": (lambda c: PoolingMixer(1 + 2 * (c > 32)), "map", lambda h, w, c: 0 * h * w * c),
}

SHAPES: dict[str, Callable[[int, int, int], tuple[int, ...]]] = {
    "tokens": lambda h, w, c: (1, h * w, c),
    "channels_last": lambda h, w, c: (1, h, w, c),
    "map": lambda h, w, c: (1, c, h, w),
}


@pytest.mark.parametrize(("height", "width", "dim"), SIZES)
@pytest.mark.parametrize("name", CASES)
def test_the_count_is_the_docstrings_formula(name: str, height: int, width: int, dim: int) -> None:
    make, layout, formula = CASES[name]
    assert macs(make(dim), torch.zeros(SHAPES[layout](height, width, dim))) == formula(height, width, dim)


@pytest.mark.parametrize(("height", "width", "dim"), SIZES)
def test_relative_attention_adds_a_product_with_every_offset(height: int, width: int, dim: int) -> None:
    n = height * width
    mixer = RelativeAttention(dim, 2, n)
    assert macs(mixer, torch.zeros(1, n, dim)) == full(n, dim) + n * (2 * n - 1) * dim


@pytest.mark.parametrize("carry", [True, False])
@pytest.mark.parametrize(("height", "width", "dim"), SIZES)
def test_residual_attention_costs_what_attention_costs(height: int, width: int, dim: int, carry: bool) -> None:
    n = height * width
    carried = torch.zeros(1, 2, n, n)
    assert macs(ResidualAttention(dim, 2), torch.zeros(1, n, dim), carried, 0.5, carry) == full(n, dim)
    mixer, x = ResidualWindowAttention(dim, 2, 4, 2), torch.zeros(1, height, width, dim)
    logits: Tensor = torch.zeros(1, 2 * n // 16, 16, 16)
    assert macs(mixer, x, logits, 0.5, carry) == window(n, dim, dim, 4)


@pytest.mark.parametrize(("stride_q", "stride_kv"), [(1, 1), (1, 4), (2, 2)])
@pytest.mark.parametrize(("height", "width", "dim"), SIZES)
def test_pooled_residual_attention(height: int, width: int, dim: int, stride_q: int, stride_kv: int) -> None:
    n, d = height * width, 2 * dim
    q, k = n // stride_q**2, n // stride_kv**2
    expected = 3 * n * dim * d + 9 * d * (q + 2 * k) + 2 * q * k * d
    expected += q * d * (height // stride_kv + width // stride_kv) + q * d**2
    mixer = PooledResidualAttention(dim, d, 2, (height, width), stride_q, stride_kv)
    assert macs(mixer, torch.zeros(1, height, width, dim), None, 0.5) == expected


@pytest.mark.parametrize("name", TOKEN_MIXERS)
def test_mixers_by_name_cost_what_their_classes_cost(name: str) -> None:
    n, c, m = 8 * 12, 64, 4
    expected = {
        "identity": 0,
        "pooling": 0,
        "depthwise": n * 9 * c,
        "local_aggregation": n * (2 * c**2 + 25 * c),
        "global_sparse": sparse(n, c, 2),
        "attention": full(n, c),
        "axial": 8 * n * c**2 + 2 * n * (8 + 12) * c,
        "performer": 4 * n * c**2 + n * (c // 2) * (4 * c + 1),
        "window": window(n, c, c, m),
        "block": window(n, c, c, m),
        "grid": window(n, c, c, m),
        "max_sa": 2 * window(n, c, c, m),
    }
    assert macs(make_token_mixer(name, c, MixerOptions(window_size=m)), torch.zeros(1, c, 8, 12)) == expected[name]


def test_every_mixer_states_its_cost() -> None:
    mixers = [
        value
        for name, value in vars(layers).items()
        if inspect.isclass(value) and name.endswith(("Attention", "Mixer", "SA", "Aggregation"))
    ]
    assert len(mixers) >= 14
    silent = [mixer.__name__ for mixer in mixers if not re.search("MACs|Cost as above", mixer.__doc__)]
    assert not silent, "a mixer's docstring says what it costs"
