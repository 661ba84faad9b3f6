"""Properties of quantisers whose codes are not evenly spaced."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

from vitrail.core.errors import QuantizationError
from vitrail.quantization import (
    GroupQuantizer,
    LogQuantizer,
    OutlierQuantizer,
    QuantizationConfig,
    Quantizer,
    TwoScaleQuantizer,
    observe_channels,
    observe_tensor,
    quantize,
)
from vitrail.quantization.graph.qdq_ops import FakeQuantize
from vitrail.quantization.methods.two_region import with_outliers
from vitrail.quantization.quantizers.group import as_groups
from vitrail.quantization.quantizers.kinds import quantizer_from_dict

probabilities = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=40).map(torch.tensor)
activations = st.lists(st.floats(-2, 50, width=32), min_size=2, max_size=40).map(torch.tensor)


@given(probabilities, st.integers(2, 8), st.sampled_from([2.0, math.sqrt(2.0)]))
def test_powers_are_within_half_a_step_of_the_exponent(x: Tensor, bit_width: int, base: float) -> None:
    quantizer = LogQuantizer(bit_width=bit_width, base=base)
    left = quantizer.fake_quantize(x)
    smallest = max(base ** -(quantizer.zero_code - 1), 1e-30)  # eight bits reach beyond the smallest float
    inside = x >= smallest
    ratio = torch.where(left[inside] > x[inside], left[inside] / x[inside], x[inside] / left[inside])
    assert (ratio <= math.sqrt(base) * (1 + 1e-3)).all()
    assert (left[x < smallest / base] < smallest).all()
    assert left[x == 0].tolist() == [0.0] * int((x == 0).sum())
    assert torch.equal(quantizer.fake_quantize(left), left)


def test_powers_by_hand() -> None:
    quantizer = LogQuantizer(bit_width=2, base=2.0)
    assert quantizer.quantize(torch.tensor([1.0, 0.6, 0.3, 0.1, 0.0])).tolist() == [0, 1, 2, 3, 3]
    assert quantizer.fake_quantize(torch.tensor([1.0, 0.6, 0.3, 0.1, 0.0])).tolist() == [1.0, 0.5, 0.25, 0.0, 0.0]


two_scales = st.builds(
    TwoScaleQuantizer,
    bit_width=st.integers(3, 8),
    regions=st.sampled_from(["magnitude", "sign"]),
    fine_scale=st.floats(1e-3, 0.5),
    ratio_exponent=st.integers(0, 8),
    signed=st.booleans(),
)


@given(activations, two_scales)
def test_two_regions_give_the_nearest_of_all_their_values(x: Tensor, quantizer: TwoScaleQuantizer) -> None:
    low, high = quantizer.fine_codes
    fine = torch.arange(low, high + 1) * quantizer.fine_scale
    coarse = torch.arange(quantizer.coarse_codes[1] + 1) * quantizer.coarse_scale
    values = torch.cat([fine, coarse])
    assert len(values) <= 2**quantizer.bit_width
    nearest = (x[:, None] - values).abs().amin(1)
    torch.testing.assert_close((x - quantizer.fake_quantize(x)).abs(), nearest, rtol=1e-4, atol=1e-5)


@given(activations, two_scales)
def test_two_regions_are_idempotent_and_keep_zero(x: Tensor, quantizer: TwoScaleQuantizer) -> None:
    once = quantizer.fake_quantize(x)
    torch.testing.assert_close(quantizer.fake_quantize(once), once)
    assert quantizer.fake_quantize(torch.zeros(2)).tolist() == [0.0, 0.0]


def test_two_regions_by_hand() -> None:
    quantizer = TwoScaleQuantizer(bit_width=3, regions="magnitude", fine_scale=0.1, ratio_exponent=3)
    left = quantizer.fake_quantize(torch.tensor([0.04, 0.26, 0.7, 1.3, 9.0, -1.0]))
    torch.testing.assert_close(left, torch.tensor([0.0, 0.3, 0.8, 1.6, 2.4, 0.0]))
    twin = TwoScaleQuantizer(bit_width=3, regions="sign", fine_scale=0.05, ratio_exponent=4)
    torch.testing.assert_close(
        twin.fake_quantize(torch.tensor([-0.17, -0.06, 0.5, 9.0])), torch.tensor([-0.15, -0.05, 0.8, 2.4])
    )


def test_groups_have_scales_of_their_own() -> None:
    weight = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    weight[:, 4:8] *= 100
    inner = observe_channels(as_groups(weight, 4), 0, bit_width=4, observer="min_max")
    grouped = GroupQuantizer(group_size=4, channels=4, inner=inner)
    whole = observe_channels(weight, 0, bit_width=4, observer="min_max")
    assert grouped.fake_quantize(weight).shape == weight.shape
    others = torch.cat([weight[:, :4], weight[:, 8:]], 1)
    error = lambda q: float((torch.cat([q[:, :4], q[:, 8:]], 1) - others).square().sum())  # noqa: E731
    assert error(grouped.fake_quantize(weight)) < error(whole.fake_quantize(weight)) / 100


@pytest.mark.parametrize(
    "quantizer",
    [
        LogQuantizer(bit_width=4, base=2**0.5, maximum=0.9),
        TwoScaleQuantizer(bit_width=4, regions="sign", fine_scale=0.1, ratio_exponent=2, signed=True),
        observe_channels(torch.randn(3, 8), 0, bit_width=5),
        OutlierQuantizer(
            inner=observe_tensor(torch.randn(64), bit_width=4, signed=False, symmetric=False),
            outliers=(1, 5),
            ratio_exponent=3,
        ),
        GroupQuantizer(group_size=4, channels=3, inner=observe_channels(torch.randn(6, 4), 0, bit_width=3)),
    ],
)
def test_a_trip_through_json_changes_nothing(quantizer: Quantizer) -> None:
    restored = quantizer_from_dict(json.loads(json.dumps(quantizer.to_dict())))
    assert restored == quantizer
    x = torch.randn(3, 8).abs()
    assert torch.equal(FakeQuantize(restored)(x), quantizer.fake_quantize(x))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "magic"}, "unknown kind of quantiser 'magic'"),
        ({"kind": "log", "bit_width": 9, "base": 2.0}, "bit_width=9 is not supported"),
        ({"kind": "log", "bit_width": 4, "base": 1.0}, "base=1.0 must be above 1"),
        (
            {"kind": "two_scale", "bit_width": 2, "regions": "sign", "fine_scale": 0.1, "ratio_exponent": 1},
            "bit_width=2 is not supported for two regions",
        ),
        (
            {"kind": "two_scale", "bit_width": 4, "regions": "sign", "fine_scale": 0.0, "ratio_exponent": 1},
            "fine_scale=0.0 must be positive",
        ),
    ],
)
def test_damaged_quantisers_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(QuantizationError, match=message):
        quantizer_from_dict(values)


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(QuantizationError, match="group_size=1 is below 2"):
        as_groups(torch.randn(2, 4), 1)


def test_outlying_channels_have_larger_steps() -> None:
    inner = observe_tensor(torch.tensor([0.0, 15.0]), bit_width=4, signed=False, symmetric=False, observer="min_max")
    quantizer = OutlierQuantizer(inner=inner, outliers=(2,), ratio_exponent=2)
    x = torch.tensor([[3.2, 40.0, 40.0], [0.4, 1.0, 33.0]])
    torch.testing.assert_close(quantizer.fake_quantize(x), torch.tensor([[3.0, 15.0, 40.0], [0.0, 1.0, 32.0]]))
    with pytest.raises(QuantizationError, match="channel 2 of 2"):
        quantizer.fake_quantize(x[:, :2])


def test_outlying_channels_are_found() -> None:
    x = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
    one = observe_tensor(x, bit_width=4, signed=False, symmetric=False)
    x[:, 3] *= 12
    uniform = observe_tensor(x, bit_width=4, signed=False, symmetric=False)
    found = with_outliers(uniform, x, observer="mse", importance=None)
    assert isinstance(found, OutlierQuantizer)
    assert found.outliers == (3,)
    error, old = ((q.fake_quantize(x) - x)[:, :3].square().mean() for q in (found, uniform))
    assert error < 0.1 * old
    even = torch.randn(256, 16, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
    assert with_outliers(one, even, observer="mse", importance=None).bit_width == 4


def test_a_plan_with_outlying_channels_rebuilds_its_model(vit: nn.Module, images: Tensor) -> None:
    config = QuantizationConfig(
        preset="mptq", smoothing="none", channels="outlier", weight_bits=4, activation_bits=4, keep_float=()
    )
    quantized = quantize(vit, images, config=config)
    outlying = [name for name, codes in quantized.plan.operands.items() if isinstance(codes, OutlierQuantizer)]
    assert outlying
    assert set(outlying) <= set(quantized.plan.simulated)
    plan = type(quantized.plan).from_dict(json.loads(json.dumps(quantized.plan.to_dict())))
    with torch.inference_mode():
        torch.testing.assert_close(quantize(vit, images, plan=plan)(images), quantized(images))
