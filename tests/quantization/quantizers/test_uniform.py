"""Properties that every uniform quantiser has."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

from vitrail.core.errors import QuantizationError
from vitrail.quantization import UniformQuantizer, observe_channels
from vitrail.quantization.quantizers.kinds import quantizer_from_dict

bit_widths = st.integers(2, 8)
reals = st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=40)


def quantizer_for(x: torch.Tensor, bit_width: int, signed: bool, symmetric: bool) -> UniformQuantizer:
    return UniformQuantizer.from_range(x.min(), x.max(), bit_width=bit_width, signed=signed, symmetric=symmetric)


@given(reals, bit_widths, st.sampled_from([(False, False), (True, False), (True, True)]))
def test_error_is_at_most_half_a_step_in_range(values: list[float], bit_width: int, kind: tuple[bool, bool]) -> None:
    x = torch.tensor(values)
    quantizer = quantizer_for(x, bit_width, *kind)
    # the zero point is rounded too, which moves the covered range by up to half a step
    inside = (x >= (quantizer.quant_min - quantizer.zero_point) * quantizer.scale) & (
        x <= (quantizer.quant_max - quantizer.zero_point) * quantizer.scale
    )
    error = (x - quantizer.fake_quantize(x)).abs()
    assert (error[inside] <= quantizer.scale / 2 * (1 + 1e-4)).all()
    assert (error <= quantizer.scale * (1 + 1e-4)).all()


@given(reals, bit_widths, st.booleans())
def test_zero_is_kept_exactly_and_codes_stay_in_range(values: list[float], bit_width: int, symmetric: bool) -> None:
    x = torch.tensor(values)
    quantizer = quantizer_for(x, bit_width, symmetric, symmetric)
    assert quantizer.fake_quantize(torch.zeros(3)).tolist() == [0.0] * 3
    codes = quantizer.quantize(x * 100)
    assert int(codes.min()) >= quantizer.quant_min
    assert int(codes.max()) <= quantizer.quant_max
    assert int(codes.max()) - int(codes.min()) <= 2**bit_width - 1


@given(reals, bit_widths)
def test_a_second_trip_changes_nothing(values: list[float], bit_width: int) -> None:
    x = torch.tensor(values)
    quantizer = quantizer_for(x, bit_width, False, False)
    once = quantizer.fake_quantize(x)
    assert torch.equal(quantizer.fake_quantize(once), once)


@given(reals)
def test_symmetric_quantisers_are_odd(values: list[float]) -> None:
    x = torch.tensor(values)
    quantizer = quantizer_for(x, 8, True, True)
    assert torch.equal(quantizer.fake_quantize(-x), -quantizer.fake_quantize(x))


@pytest.mark.parametrize("axis", [0, 1])
def test_channels_have_their_own_scales(axis: int) -> None:
    weight = torch.randn(4, 6) * torch.logspace(-2, 0, 4 if axis == 0 else 6).view((-1, 1) if axis == 0 else (1, -1))
    quantizer = observe_channels(weight, axis, bit_width=8, observer="min_max")
    assert len(quantizer.scale) == weight.shape[axis]
    error = (weight - quantizer.fake_quantize(weight)).abs().amax(1 - axis)
    assert (error <= quantizer.scale / 2 * 1.001).all()


def test_a_dead_channel_has_a_positive_scale() -> None:
    weight = torch.stack([torch.zeros(5), torch.ones(5)])
    quantizer = observe_channels(weight, 0, bit_width=8, observer="min_max")
    assert torch.allclose(quantizer.fake_quantize(weight), weight)


def test_a_range_near_zero_has_a_positive_scale() -> None:
    quantizer = quantizer_for(torch.tensor([0.0, 1.4e-45]), 2, False, False)
    assert quantizer.scale > 0


@given(reals, bit_widths, st.booleans())
def test_dictionary_round_trip(values: list[float], bit_width: int, symmetric: bool) -> None:
    quantizer = quantizer_for(torch.tensor(values), bit_width, symmetric, symmetric)
    assert quantizer_from_dict(quantizer.to_dict()) == quantizer


@pytest.mark.parametrize("bit_width", [1, 9])
def test_other_bit_widths_are_refused(bit_width: int) -> None:
    with pytest.raises(QuantizationError, match=rf"bit_width={bit_width} is not supported; choose 2 to 8"):
        quantizer_for(torch.ones(2), bit_width, False, False)


def test_a_wrong_number_of_channels_is_refused() -> None:
    quantizer = UniformQuantizer.from_range(
        -torch.ones(3), torch.ones(3), bit_width=8, signed=True, symmetric=True, axis=0
    )
    with pytest.raises(QuantizationError, match="4 channels on axis 0; the plan has 3 scales"):
        quantizer.quantize(torch.ones(4, 2))
