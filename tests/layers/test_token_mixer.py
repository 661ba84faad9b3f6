"""Pooling, and every mixer in the place of another."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitrail.core.errors import UnknownNameError
from vitrail.layers import TOKEN_MIXERS, MixerOptions, PoolingMixer, make_token_mixer


def test_pooling_is_the_mean_of_neighbours_that_exist_less_the_token() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)
    out = PoolingMixer()(x)[0, 0]
    assert out[0, 0] == (0 + 1 + 4 + 5) / 4 - 0
    assert out[1, 1] == x[0, 0, :3, :3].mean() - 5
    assert out[2, 1] == pytest.approx(x[0, 0, 1:, :3].mean() - 9)
    assert torch.equal(PoolingMixer(5)(torch.ones(1, 2, 3, 3)), torch.zeros(1, 2, 3, 3))


@pytest.mark.parametrize("name", TOKEN_MIXERS)
def test_every_mixer_keeps_the_shape_and_learns(name: str) -> None:
    mixer = make_token_mixer(name, 64, MixerOptions(window_size=4))
    x = torch.randn(2, 64, 8, 12, requires_grad=True)
    out = mixer(x)
    assert out.shape == x.shape
    out.square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None for p in mixer.parameters() if p.requires_grad)
    assert 8 % mixer.divisor == 12 % mixer.divisor == 0


@pytest.mark.parametrize(
    ("name", "grows"),
    [
        ("pooling", 0),
        ("block", 2),
        ("grid", 2),
        ("max_sa", 2),
        ("window", 2),
        ("performer", 2),
        ("local_aggregation", 2),
    ],
)
def test_linear_mixers_cost_twice_as_much_on_twice_the_map(name: str, grows: int) -> None:
    mixer, macs = make_token_mixer(name, 32, MixerOptions(window_size=4)), []
    for width in (8, 16):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            mixer(torch.zeros(1, 32, 8, width))
        macs.append(counter.get_total_flops())
    assert macs[1] == grows * macs[0]


def test_unknown_mixers_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown token mixer 'no_such_mixer'; known: .*attention"):
        make_token_mixer("no_such_mixer", 64)
