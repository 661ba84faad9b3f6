"""Tasks other than classification in codes: their outputs are values, and those are what is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from vitrail.core.types import Preprocessing
from vitrail.export import export_model
from vitrail.models import create_model
from vitrail.quantization import QuantizationConfig, quantize
from vitrail.tasks import DetectionTask, PoseTask, SegmentationTask, Task
from vitrail.tasks.aesthetics import AestheticsOptions, AestheticsTask
from vitrail.tasks.detection import DetectionOptions
from vitrail.tasks.pose import PoseOptions
from vitrail.tasks.segmentation import SegmentationOptions

HOW = Preprocessing(image_size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
IMAGES = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def make(name: str) -> Task:
    backbone = create_model("edgevit_nano_stride2", num_classes=0, image_size=32, depths=(1, 1, 1, 1))
    if name == "segmentation":
        return SegmentationTask(backbone, ("a", "b", "c"), SegmentationOptions(width=16))
    if name == "detection":
        return DetectionTask(backbone, ("a", "b"), DetectionOptions(width=16))
    if name == "pose":
        return PoseTask(backbone, ("left", "right"), PoseOptions(width=16))
    return AestheticsTask(backbone, (1.0, 2.0, 3.0), AestheticsOptions())


def decibels(model: nn.Module, quantized: nn.Module) -> float:
    with torch.inference_mode():
        exact = model(IMAGES)
        noise = (exact - quantized(IMAGES)).square().sum()
    return float(10 * torch.log10(exact.square().sum() / noise))


@pytest.mark.slow  # tests/cli takes tasks through their files; here are the figures
@pytest.mark.parametrize("name", ["segmentation", "detection", "pose", "aesthetics"])
def test_eight_bits_keep_the_outputs_of_a_task_and_its_file_agrees(
    name: str, tmp_path: Path, excited: Callable[[nn.Module], nn.Module]
) -> None:
    task = excited(make(name))
    quantized = quantize(task, IMAGES, config=QuantizationConfig(preset="fast"))
    assert decibels(task, quantized) > 15
    heads = [path for path in quantized.plan.operands if not path.startswith("backbone.")]
    assert heads  # the head's own layers take codes too
    path = tmp_path / "model.int8.onnx"
    record = export_model(
        task, path, preprocessing=HOW, classes=task.classes, images=IMAGES, quantized=quantized, variant="int8"
    )
    assert record.max_relative_error < 0.1


@pytest.mark.slow
def test_a_budget_weighs_the_values_of_a_dense_output(excited: Callable[[nn.Module], nn.Module]) -> None:
    task = excited(make("segmentation"))
    mixed = quantize(task, IMAGES, config=QuantizationConfig(preset="fast", average_bits=5))
    assert 3 < mixed.plan.average_bits(weights=True) <= 5
    even = quantize(task, IMAGES, config=QuantizationConfig(preset="fast", weight_bits=5))
    assert decibels(task, mixed) > decibels(task, even) - 3
