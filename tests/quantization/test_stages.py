"""The works of a quantisation are those that its time was told from."""

from __future__ import annotations

import pytest
from torch import Tensor, nn

from vitrail.core.progress import Whole
from vitrail.quantization import QuantizationConfig, quantize
from vitrail.quantization.stages import expected_stages


@pytest.mark.parametrize(
    "config", [QuantizationConfig(), QuantizationConfig(preset="mptq", average_bits=5)], ids=["best", "budget"]
)
def test_every_expected_work_comes_in_its_order(config: QuantizationConfig, vit: nn.Module, images: Tensor) -> None:
    begun: list[int | None] = []

    class Noting(Whole):
        def begin(self, title: str) -> int | None:
            begun.append(super().begin(title))
            return begun[-1]

    stages = expected_stages(config)
    with Noting(stages):
        quantize(vit, images[:4], config=config)
    assert begun == list(range(len(stages)))
