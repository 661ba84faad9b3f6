"""Which range the codes cover."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from vitrail.core.errors import QuantizationError
from vitrail.quantization import OBSERVERS, observe_channels, observe_tensor
from vitrail.quantization.quantizers.observers import squared_error

generator = torch.Generator().manual_seed(0)
bell = torch.randn(4096, generator=generator)


@given(st.integers(2, 8), st.sampled_from([(False, False), (True, True)]), st.floats(-3, 3))
@settings(max_examples=20)
def test_searching_is_never_worse_than_the_whole_range(bits: int, kind: tuple[bool, bool], offset: float) -> None:
    x = bell + offset
    error = {
        name: squared_error(
            x, observe_tensor(x, bit_width=bits, signed=kind[0], symmetric=kind[1], observer=name).fake_quantize(x)
        )
        for name in ("min_max", "mse")
    }
    assert error["mse"] <= error["min_max"] * (1 + 1e-6)


def test_four_bits_of_a_bell_are_clipped_near_the_known_optimum() -> None:
    quantizer = observe_tensor(bell, bit_width=4, signed=True, symmetric=True)
    # the best uniform quantiser of a normal with 15 levels clips at about 2.5 standard deviations
    assert 2.2 < quantizer.scale * quantizer.quant_max < 2.9


def test_min_max_clips_nothing_and_percentile_only_the_rarest() -> None:
    x = torch.cat([bell, torch.tensor([100.0])])
    widest = observe_tensor(x, bit_width=8, signed=True, symmetric=True, observer="min_max")
    assert widest.scale * 127 == pytest.approx(100, rel=1e-5)
    many = torch.cat([bell.repeat(8), torch.tensor([100.0])])
    assert observe_tensor(many, bit_width=8, signed=True, symmetric=True, observer="percentile").scale * 127 < 5


def test_importance_decides_what_is_clipped() -> None:
    x = torch.cat([bell, torch.full((4,), 30.0)])
    matters = torch.ones(len(x))
    matters[-4:] = 1e6
    careless = observe_tensor(x, bit_width=4, signed=True, symmetric=True, importance=2 - matters.clamp(max=2))
    careful = observe_tensor(x, bit_width=4, signed=True, symmetric=True, importance=matters)
    assert careless.scale * 7 < 5
    assert float((careful.fake_quantize(x[-4:]) - 30).abs().max()) < 1


@pytest.mark.parametrize("observer", OBSERVERS)
def test_every_channel_of_a_weight_has_its_own_scale(observer: str) -> None:
    weight = torch.randn(3, 64, generator=generator) * torch.tensor([[1.0], [10.0], [100.0]])
    quantizer = observe_channels(weight, 0, bit_width=8, observer=observer)
    relative = (quantizer.fake_quantize(weight) - weight).square().sum(1) / weight.square().sum(1)
    assert float(relative.max()) < 1e-3
    assert len(quantizer.scale) == 3


def test_columns_that_matter_widen_a_channel_of_a_weight() -> None:
    weight = torch.cat([torch.randn(2, 256, generator=generator), torch.full((2, 1), 20.0)], 1)
    importance = torch.ones(257)
    importance[-1] = 0
    plain = observe_channels(weight, 0, bit_width=3)
    blind = observe_channels(weight, 0, bit_width=3, importance=importance)
    assert max(blind.scale) < min(plain.scale)


@pytest.mark.parametrize("observer", OBSERVERS)
def test_constants_and_the_lack_of_values(observer: str) -> None:
    constant = observe_tensor(torch.full((9,), 2.0), bit_width=8, signed=False, symmetric=False, observer=observer)
    assert float(constant.fake_quantize(torch.tensor(2.0))) == pytest.approx(2.0, rel=1e-2)
    with pytest.raises(QuantizationError, match="never seen"):
        observe_tensor(torch.zeros(0), bit_width=8, signed=False, symmetric=False, observer=observer)
    with pytest.raises(QuantizationError, match="NaN or infinity"):
        observe_tensor(torch.tensor([1.0, torch.nan]), bit_width=8, signed=False, symmetric=False, observer=observer)
    with pytest.raises(QuantizationError, match="NaN or infinity"):
        observe_channels(torch.tensor([[1.0, torch.inf]]), 0, bit_width=8, observer=observer)
