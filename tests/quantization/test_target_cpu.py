"""Files for processors that add two 8-bit products in 16 bits: no such sum may overflow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vitrail.quantization import QuantizationConfig, quantize
from vitrail.quantization.plan import role_of
from vitrail.runtimes.processor import processor, saturates

OLD = QuantizationConfig(preset="fast", target_cpu="avx2")


def test_right_factors_take_half_of_their_codes(vit: nn.Module, images: Tensor) -> None:
    halved, whole = quantize(vit, images, config=OLD), quantize(vit, images, config=QuantizationConfig(preset="fast"))
    assert not halved.plan.simulated  # the file still computes in integers
    extremes = {}
    for name, value in halved.state_dict().items():
        if name.endswith("_codes"):
            extremes[name] = int(value.abs().max())
    assert set(extremes.values()) == {63}
    roles = {
        role_of(name)
        for name, q in halved.plan.operands.items()
        if not torch.equal(q.scale, whole.plan.operands[name].scale)
    }
    assert roles == {"weight", "key", "value"}
    for name, quantizer in halved.plan.operands.items():
        if role_of(name) in ("key", "value"):
            assert quantizer.bit_width == 8
            torch.testing.assert_close(quantizer.scale, whole.plan.operands[name].scale * 127 / 63)
    with torch.inference_mode():
        errors = [float((model(images) - vit(images)).square().mean()) for model in (whole, halved)]
    assert errors[0] < errors[1] < 16 * errors[0]


def test_the_plan_says_it_and_others_stay_as_they_were(vit: nn.Module, images: Tensor) -> None:
    assert "target_cpu" not in QuantizationConfig().to_dict()
    assert QuantizationConfig.from_dict(QuantizationConfig().to_dict()) == QuantizationConfig()
    assert OLD.to_dict()["target_cpu"] == "avx2"
    assert QuantizationConfig.from_dict(OLD.to_dict()) == OLD


@pytest.mark.parametrize(
    ("features", "wrong"),
    [
        (("avx2",), True),
        (("avx2", "avx512f"), True),
        (("avx2", "avx_vnni"), False),
        (("avx2", "avx512f", "avx512_vnni"), False),
        (("avx2", "avx512f", "amx_int8"), False),
        (("asimddp", "i8mm"), False),
        ((), False),  # unknown
    ],
)
def test_processors_without_vnni_saturate(features: tuple[str, ...], wrong: bool) -> None:
    assert saturates(features) == wrong


def test_this_processor_has_a_name() -> None:
    name, features = processor()
    assert name
    assert set(features) <= {
        "avx2",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "avx_vnni",
        "amx_int8",
        "amx_bf16",
        "asimddp",
        "i8mm",
    }
