"""Models that cannot be quantised or exported as they are: one line with the remedy, before anything is computed."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitrail.core.errors import ExportError, QuantizationError
from vitrail.core.types import Preprocessing
from vitrail.export.source import Source, about
from vitrail.quantization import OneOutput, QuantizationConfig, quantize

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Answer = namedtuple("Answer", ["features", "logits"])


class Net(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any] = lambda x: x) -> None:
        super().__init__()
        self.stem, self.head, self.wrap = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 10), wrap

    def forward(self, images: Tensor) -> Any:
        return self.wrap(self.head(self.stem(images).mean((2, 3))))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floats_are_refused(dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    for images in (IMAGES, IMAGES.to(dtype)):
        for attempt, error in ((quantize, QuantizationError), (_source, ExportError)):
            with pytest.raises(error, match=rf"^(Net has {name} parameters; .*model.float\(\)|the images are {name})"):
                attempt(Net().to(dtype), images)


def test_one_layer_in_another_float_is_enough() -> None:
    model = Net()
    model.head.bfloat16()
    with pytest.raises(QuantizationError, match="Net has bfloat16 parameters"):
        quantize(model, IMAGES)


@pytest.mark.parametrize("images", [(IMAGES * 50).to(torch.uint8), IMAGES.long(), IMAGES.half()])
def test_images_are_float32(images: Tensor) -> None:
    with pytest.raises(QuantizationError, match=r"the images are \w+; pass normalised float32 images"):
        quantize(Net(), images)


def _source(model: nn.Module, images: Tensor) -> Source:
    return Source(model=model, images=images)


@pytest.mark.parametrize(
    ("wrap", "said", "key"),
    [
        (lambda x: (x, x + 1), "Net returns a tuple", 0),
        (lambda x: [None, x], "Net returns a list", 1),
        (lambda x: {"logits": x, "a": x}, "Net returns a dict", "logits"),
        (lambda x: {"scores": x}, "Net returns a dict", "scores"),
        (lambda x: {"aux": x, "out": x}, "Net returns a dict", "out"),
        (lambda x: Answer(x, x), "Net returns an Answer", 0),
    ],
)
def test_several_outputs_are_refused_with_what_takes_one(wrap: Callable[[Tensor], Any], said: str, key: Any) -> None:
    model = Net(wrap)
    for attempt, error in ((quantize, QuantizationError), (_source, ExportError)):
        with pytest.raises(error) as caught:
            attempt(model, IMAGES)
        assert str(caught.value).startswith(said)
        assert str(caught.value).endswith(f"wrap it: vitrail.quantization.OneOutput(model, {key!r})")
    assert torch.equal(OneOutput(model, key)(IMAGES), Net.forward(model, IMAGES)[key])


def test_a_model_with_one_of_its_outputs_goes_through() -> None:
    model = OneOutput(Net(lambda x: {"logits": x}))
    plan = quantize(model, IMAGES, config=QuantizationConfig(preset="min_max")).plan
    assert set(plan.operands) == {"model.head:input", "model.head:weight"}


def test_what_is_no_weight_does_not_belong_to_the_plan() -> None:
    class Counting(Net):
        calls = 0

        def get_extra_state(self) -> dict[str, int]:
            return {"calls": self.calls}

    model = Counting()
    plan = quantize(model, IMAGES, config=QuantizationConfig(preset="min_max")).plan
    model.calls = 3
    model.register_buffer("seen", torch.tensor(7))
    quantize(model, IMAGES, plan=plan)
    model.head.bias.data[0] += 1
    with pytest.raises(QuantizationError, match="made for other weights of Counting"):
        quantize(model, IMAGES, plan=plan)


def test_a_quantised_model_is_refused() -> None:
    once = quantize(Net(), IMAGES, config=QuantizationConfig(preset="min_max"))
    for again in (once, nn.Sequential(once), OneOutput(once, 0)):
        with pytest.raises(
            QuantizationError, match=f"{type(again).__name__} is quantised already; pass the float model"
        ):
            quantize(again, IMAGES)


def test_every_mode_is_left_as_it_was() -> None:
    model = Net().train()
    model.stem.eval()
    with pytest.raises(ExportError):
        _source(Net(lambda x: (x,)), IMAGES)
    _source(model, IMAGES)
    assert (model.training, model.stem.training, model.head.training) == (True, False, True)


@pytest.mark.parametrize(("names", "allowed"), [(10, True), (0, True), (3, False), (11, False)])
def test_there_is_a_class_name_for_each_output(names: int, allowed: bool) -> None:
    facts = about(Preprocessing(image_size=(8, 8)), [str(i) for i in range(names)], Net())
    if allowed:
        Source(model=Net(), images=IMAGES, facts=facts)
        return
    for model in (
        Net(),
        Net(lambda x: x[..., None, None].expand(-1, -1, 2, 2)),
    ):  # classes of an image, or of its pixels
        with pytest.raises(ExportError, match=f"the model gives 10 values an image, and there are {names} class names"):
            Source(model=model, images=IMAGES, facts=facts)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (255 * IMAGES.sigmoid(), "go from .* to 2.*, and normalised ones stay within"),
        (255 * IMAGES.sigmoid() - 120, "go from -.* and normalised ones stay within"),
        (IMAGES.sigmoid(), "as pixels that were not normalised"),
        (IMAGES, ""),
        (2 * IMAGES.sigmoid() - 1, ""),
    ],
)
def test_images_that_were_not_normalised_are_noted(images: Tensor, said: str) -> None:
    import re

    notes = quantize(Net(), images, config=QuantizationConfig(preset="min_max")).plan.notes
    assert notes[0].startswith("only 4 calibration images")
    assert len(notes) == 1 + bool(said)
    assert re.search(said, notes[-1])


def test_no_integer_file_is_written_without_integers() -> None:
    plan = quantize(Net(), IMAGES, config=QuantizationConfig(preset="min_max")).plan
    floats = quantize(Net(), IMAGES, plan=replace(plan, operands={}, rounding={}, counts={}, weights=""))
    with pytest.raises(ExportError, match="nothing in integers, so the file would be one of floats"):
        Source(model=Net(), images=IMAGES, quantized=floats)
