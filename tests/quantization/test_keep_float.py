"""What stays in float: operation by operation, never all of them, and no word that means nothing."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.core.errors import QuantizationError
from vitrail.quantization import QuantizationConfig, quantize


class OneModule(nn.Module):
    """A network without submodules: a stem, a depthwise convolution, another one, and a head."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {"stem": (8, 3, 3, 3), "depth": (8, 1, 3, 3), "point": (8, 8, 1, 1), "head": (5, 8)}
        generator = torch.Generator().manual_seed(0)
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape, generator=generator) * 0.4))

    def forward(self, images: Tensor) -> Tensor:
        x = F.conv2d(images, self.stem, stride=2, padding=1).relu()
        x = F.conv2d(x, self.depth, padding=1, groups=8).relu()
        return F.linear(F.conv2d(x, self.point).relu().mean((2, 3)), self.head)


IMAGES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def config(*patterns: str) -> QuantizationConfig:
    return QuantizationConfig(preset="min_max", keep_float=patterns)


def test_a_stem_takes_nothing_of_its_module_with_it() -> None:
    plan = quantize(OneModule(), IMAGES, config=QuantizationConfig(preset="min_max")).plan
    roles = [f":{role}#{call}" for call in (3, 4) for role in ("input", "weight", "output")[: 2 + (call == 3)]]
    assert list(plan.operands) == roles
    assert plan.skipped == (
        "model: kept in float by keep_float 'stem'",
        "model: kept in float by keep_float 'depthwise'",
    )


@pytest.mark.parametrize(
    ("patterns", "kept"), [((":input#3",), 3), (("*#4",), 4), (("linear",), 4), (("stem", "*#2"), 1), (("conv",), 1)]
)
def test_operands_can_be_named_too(patterns: tuple[str, ...], kept: int) -> None:
    plan = quantize(OneModule(), IMAGES, config=config(*patterns)).plan
    assert (":input" if kept == 1 else f":input#{kept}") not in plan.operands
    assert plan.operands


@pytest.mark.parametrize("patterns", [("conv", "linear"), ("*",), ("stem", ":*")])
def test_a_model_without_any_integers_is_refused(patterns: tuple[str, ...]) -> None:
    with pytest.raises(
        QuantizationError, match=r"would be in integers: keep_float '.*keeps all 4 in float; name fewer"
    ):
        quantize(OneModule(), IMAGES, config=config(*patterns))


def test_a_stem_alone_is_refused() -> None:
    class Stem(nn.Sequential):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).mean((2, 3))

    with pytest.raises(QuantizationError, match="keep_float 'stem' keeps all 1 in float"):
        quantize(Stem(nn.Conv2d(3, 4, 3)), IMAGES)
    with pytest.raises(QuantizationError, match="would be in integers: it has no such operation"):
        quantize(Stem(nn.ReLU()), IMAGES)


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("depthwize", r"did you mean 'depthwise'\?"),
        ("blocks.0.mlp.fc3", r"did you mean 'blocks.0.mlp.fc[12]'\?"),
        ("block.0.*", r"did you mean 'blocks.0"),
        ("blocks.1", r"did you mean 'blocks.1.\*'\?"),
        ("no.such.*", "there are stem, depthwise, .*, and modules such as 'head'"),
        ("[", "there are stem"),
    ],
)
def test_a_word_that_matches_nothing_is_refused_with_a_near_one(pattern: str, hint: str, vit: nn.Module) -> None:
    images = torch.randn(2, 3, 16, 16)
    with pytest.raises(QuantizationError, match=rf"keep_float '{re.escape(pattern)}' matches no .*{hint}"):
        quantize(vit, images, config=config("stem", pattern))


def test_an_empty_word_names_nothing() -> None:
    assert quantize(OneModule(), IMAGES, config=config("")).plan.skipped == ()
