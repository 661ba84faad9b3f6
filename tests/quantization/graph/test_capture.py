"""A network whose branches are parallel only for training is captured as it shall run."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import Tensor, nn

from vitrail.core.errors import ExportError
from vitrail.export.onnx_file import onnx_bytes
from vitrail.export.source import Source
from vitrail.quantization import QuantizationConfig, quantize
from vitrail.quantization.graph.capture import capture, joined

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class TwoBranches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.three, self.one = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.has_branches = True

    def forward(self, x: Tensor) -> Tensor:
        return self.three(x) + self.one(x) if self.has_branches else self.three(x)

    def fuse_for_inference(self) -> None:
        with torch.no_grad():
            self.three.weight += nn.functional.pad(self.one.weight, [1, 1, 1, 1])
            self.three.bias += self.one.bias
        del self.one
        self.has_branches = False


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.branches, self.head = nn.Conv2d(3, 3, 1), TwoBranches(), nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.branches(self.stem(images)).mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> Net:
    return Net()


def test_a_captured_graph_has_one_convolution_and_the_same_outputs(net: Net) -> None:
    program = capture(net, IMAGES, ExportError)
    found = [node for node in program.graph.nodes if node.target is torch.ops.aten.conv2d.default]
    assert len(found) == 2  # the stem, and one for two branches
    torch.testing.assert_close(program.module(check_guards=False)(IMAGES), net(IMAGES))


def test_the_model_itself_can_be_trained_on(net: Net) -> None:
    net.train()
    capture(net, IMAGES, ExportError)
    assert net.training
    assert net.branches.has_branches
    assert hasattr(net.branches, "one")


def test_what_has_no_branches_is_not_copied() -> None:
    model = nn.Linear(3, 3)
    assert joined(model) is model


def test_the_file_of_floats_and_that_of_codes_have_as_many_convolutions(net: Net) -> None:
    quantized = quantize(net, IMAGES, config=QuantizationConfig(preset="min_max"))
    for source in (Source(model=net, images=IMAGES), Source(model=net, images=IMAGES, quantized=quantized)):
        graph = onnx.load_from_string(onnx_bytes(source)).graph
        assert sum("Conv" in node.op_type for node in graph.node) == 2
    with torch.no_grad():
        float_outputs = net(IMAGES)
        assert float((quantized(IMAGES) - float_outputs).abs().max()) < 0.1 * float(float_outputs.abs().max())
