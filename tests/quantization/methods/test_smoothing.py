"""Folding scales and shifts into norms and their readers changes nothing but the codes."""

from __future__ import annotations

import pytest
import torch
from contract_models import lively_model
from torch import Tensor, nn

from vitrail.models import FAMILIES
from vitrail.quantization import QuantizationConfig, quantize
from vitrail.quantization.graph.ops import find_ops
from vitrail.quantization.graph.prepare import prepared_graph
from vitrail.quantization.methods.smoothing import apply_smoothing
from vitrail.quantization.methods.smoothing_groups import explicit_group, find_norm_groups
from vitrail.quantization.plan import Smoothing

UNREAD = {"poolformer"}
"""Families with norms whose output also goes elsewhere, or that have no norm before a dense layer at all."""


def random_smoothing(num_channels: int, can_shift: bool, explicit: bool = False) -> Smoothing:
    scale = torch.logspace(-1, 1, num_channels)[torch.randperm(num_channels)]
    shift = torch.randn(num_channels) if can_shift else torch.zeros(num_channels)
    return Smoothing(scale=scale, shift=shift, explicit=explicit)


HEAVY = {*FAMILIES} - {"vit", "edgevit", "revit"}


@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=pytest.mark.slow if family in HEAVY else ()) for family in FAMILIES]
)
def test_every_family_computes_what_it_did(family: str) -> None:
    model = lively_model(family).double()
    x = torch.randn(2, 3, *model.config.image_size, dtype=torch.float64)
    graph = prepared_graph(model, x)
    ops, _ = find_ops(graph)
    groups = find_norm_groups(graph, ops, x)
    assert groups
    for group in groups:
        apply_smoothing(graph, group, random_smoothing(group.num_channels, group.can_shift))
    graph.recompile()
    with torch.inference_mode():
        reference, output = model(x), graph(x)
    assert float((reference - output).abs().max() / reference.abs().max()) < 1e-6


def test_every_layer_norm_and_batch_norm_of_a_block_is_found(
    vit: nn.Module, edgevit: nn.Module, images: Tensor
) -> None:
    for model, expected in (
        (vit, {"blocks.0.token_mixer.qkv:input", "blocks.0.mlp.fc1:input", "head:input"}),
        (edgevit, {"stages.0.blocks.0.local_block.mlp.fc1:input"}),
    ):
        graph = prepared_graph(model, images)
        ops, _ = find_ops(graph)
        groups = {group.name: group for group in find_norm_groups(graph, ops, images)}
        assert expected <= set(groups)
        assert all(groups[name].can_shift for name in expected)


class Padded(nn.Module):
    """Zeros are put between the norm and its reader, so that nothing may be shifted."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, 4)
        self.norm = nn.BatchNorm2d(6)
        self.conv = nn.Conv2d(6, 5, 3, padding=1)
        self.post = nn.LayerNorm(5)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.norm(self.stem(x).relu()))
        y = self.post(x.mean((2, 3)))
        return y + self.head(y).mean(1, keepdim=True)


def test_padding_forbids_a_shift_and_another_reader_forbids_folding(images: Tensor) -> None:
    model = Padded()
    model(images)
    model.eval()
    graph = prepared_graph(model, images)
    ops, _ = find_ops(graph)
    groups = find_norm_groups(graph, ops, images)
    assert [(group.name, group.can_shift) for group in groups] == [("conv:input", False)]
    apply_smoothing(graph, groups[0], random_smoothing(6, can_shift=False))
    graph.recompile()
    with torch.inference_mode():
        torch.testing.assert_close(graph(images), model(images), rtol=1e-4, atol=1e-5)


def test_an_input_is_divided_explicitly_where_nothing_can_be_folded(vit: nn.Module, images: Tensor) -> None:
    graph = prepared_graph(vit, images)
    ops, _ = find_ops(graph)
    op = next(op for op in ops if op.left.name == "blocks.0.mlp.fc2:input")
    group = explicit_group(op)
    assert group is not None
    apply_smoothing(graph, group, random_smoothing(group.num_channels, can_shift=False, explicit=True))
    graph.recompile()
    with torch.inference_mode():
        torch.testing.assert_close(graph(images), vit(images), rtol=1e-4, atol=1e-5)


def uneven(model: nn.Module, factor: float) -> nn.Module:
    """The same function, with norm channels of very different sizes and offsets (a known hard case)."""
    generator = torch.Generator().manual_seed(3)
    for block in model.blocks:  # type: ignore[union-attr]
        for norm, reader in ((block.norm1, block.token_mixer.qkv), (block.norm2, block.mlp.fc1)):
            count = len(norm.weight)
            scale = torch.exp(torch.randn(count, generator=generator) * factor)
            shift = torch.randn(count, generator=generator) * scale
            reader.bias.data -= reader.weight.data @ (shift / scale)
            reader.weight.data /= scale
            norm.weight.data *= scale
            norm.bias.data = norm.bias.data * scale + shift
    return model


def test_smoothing_repairs_uneven_norm_channels(images: Tensor) -> None:
    from vitrail.models import create_model

    torch.manual_seed(0)
    model = create_model("vit_nano_patch4", num_classes=10, depth=2, embed_dim=32, num_heads=2, image_size=16).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    model = uneven(model, 2.0)
    decibels = {}
    for method in ("none", "smoothquant", "sq_b", "repq"):
        quantized = quantize(model, images, config=QuantizationConfig(preset="mptq", smoothing=method))
        with torch.inference_mode():
            reference, output = model(images), quantized(images)
        decibels[method] = float(10 * torch.log10(reference.square().sum() / (reference - output).square().sum()))
    assert decibels["smoothquant"] > decibels["none"] + 5
    assert decibels["sq_b"] > decibels["smoothquant"] + 1
    assert decibels["repq"] > decibels["none"] + 5


class Few(nn.Module):
    """Three layers; behind the GELU one channel is a hundred times larger than the others."""

    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(48, 64) if layers == 3 else None
        self.second, self.head = nn.Linear(64 if layers == 3 else 48, 32), nn.Linear(32, 10)
        with torch.no_grad():
            if self.first is not None:
                self.first.weight[5] *= 100
                self.first.bias[5] *= 100
                self.second.weight[:, 5] /= 100
            else:
                self.second.weight[5] *= 100
                self.second.bias[5] *= 100
                self.head.weight[:, 5] /= 100

    def forward(self, images: Tensor) -> Tensor:
        patches = nn.functional.pixel_unshuffle(images, 4).flatten(2).transpose(1, 2)
        x = patches if self.first is None else nn.functional.gelu(self.first(patches))
        return self.head(nn.functional.gelu(self.second(x))).mean(1)


@pytest.mark.parametrize(("layers", "name"), [(3, "second:input"), (2, "head:input")])
def test_one_of_few_layers_can_be_costly(layers: int, name: str, images: Tensor) -> None:
    model = Few(layers).eval()
    quantized = quantize(model, images, config=QuantizationConfig(preset="fast"))
    assert quantized.plan.smoothing[name].explicit
    with torch.inference_mode():
        reference, output = model(images), quantized(images)
    assert float(10 * torch.log10(reference.square().sum() / (reference - output).square().sum())) > 30


class Deep(nn.Module):
    """A small token model with a channel a hundred times larger than the others before its head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 32, 4, 4)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)) for _ in range(3)
        )
        self.head = nn.Linear(32, 10)
        with torch.no_grad():
            self.blocks[2][3].weight[5] *= 100
            self.head.weight[:, 5] /= 100

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean(1))


@pytest.mark.parametrize(("count", "divided"), [(4, False), (16, True)])
def test_a_division_is_tried_on_images_that_did_not_choose_it(count: int, divided: bool) -> None:
    """Four images do not tell how large a channel gets: dividing by what they say costs 5 dB on others."""
    model = Deep().eval()
    torch.manual_seed(1)
    images = torch.randn(count, 3, 16, 16)
    plan = quantize(model, images, config=QuantizationConfig(preset="fast")).plan
    assert [name for name, smoothing in plan.smoothing.items() if smoothing.explicit] == ["head:input"] * divided
