"""Blocks of a graph that run on their own, codes that are trained, and the results that are kept."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitrail.core.errors import ConfigError, QuantizationError
from vitrail.models import create_model
from vitrail.quantization import LogQuantizer, QuantizationConfig, UniformQuantizer, observe_channels, quantize
from vitrail.quantization.graph.blocks import constants, split_blocks
from vitrail.quantization.graph.ops import find_ops
from vitrail.quantization.graph.prepare import prepared_graph
from vitrail.quantization.graph.runner import GraphRunner
from vitrail.quantization.methods.block_reconstruction import reconstruct
from vitrail.quantization.methods.trainable import TrainedScale, TrainedWeight, round_through
from vitrail.quantization.plan import Rounding
from vitrail.quantization.resume import ResumeFile, TrainedBlock

LOW = QuantizationConfig(
    reconstruction="blocks", weight_bits=4, activation_bits=4, reconstruction_steps=12, keep_float=()
)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_nano_patch4", 32),
        ("revit_nano_patch4", 32),
        ("edgevit_nano_stride2", 32),
        pytest.param("maxvit_nano", 48, marks=pytest.mark.slow),
    ],
)
def test_blocks_one_after_the_other_are_the_model(name: str, size: int) -> None:
    model = create_model(name, num_classes=5, image_size=size).eval()
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    graph_module = prepared_graph(model, images)
    ops, _ = find_ops(graph_module)
    blocks = split_blocks(graph_module, ops, images)
    runner = GraphRunner(graph_module)
    values = constants(graph_module, len(images), images)
    values[next(node for node in graph_module.graph.nodes if node.op == "placeholder")] = images
    with torch.inference_mode():
        for block in blocks:
            assert set(block.inputs) <= set(values)
            values |= zip(block.outputs, block.run(runner, values), strict=True)
        expected = model(images)
    torch.testing.assert_close(values[blocks[-1].outputs[0]], expected, rtol=1e-4, atol=1e-5)
    assert [op for block in blocks for op in block.ops] == ops
    assert len(blocks) > 3
    assert all(sum(op.has_weight for op in block.ops) <= 12 for block in blocks)


def test_rounding_lets_gradients_pass() -> None:
    x = torch.tensor([0.4, 1.6], requires_grad=True)
    (round_through(x) * torch.tensor([2.0, 3.0])).sum().backward()
    assert round_through(x).tolist() == [0.0, 2.0]
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 3.0]


def _uniform(bit_width: int, scale: float, zero_point: int) -> UniformQuantizer:
    """Unsigned, one scale."""
    return UniformQuantizer(
        bit_width=bit_width,
        signed=False,
        symmetric=False,
        axis=None,
        scale=torch.tensor(scale),
        zero_point=torch.tensor(zero_point),
    )


def _layer(bits: int = 4) -> tuple[TrainedWeight, Tensor, UniformQuantizer]:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    graph_module = prepared_graph(model, torch.zeros(2, 3, 2, 2))
    (op,), _ = find_ops(graph_module)
    weight = torch.randn(6, 12, generator=torch.Generator().manual_seed(0))
    quantizer = observe_channels(weight, 0, bit_width=bits)
    return TrainedWeight(op, weight, None, quantizer), weight, quantizer


def test_a_trained_weight_starts_as_its_codes_and_moves_to_neighbours_only() -> None:
    trained, weight, quantizer = _layer()
    torch.testing.assert_close(trained().detach(), quantizer.fake_quantize(weight))
    first = quantizer.quantize(weight)
    for _ in range(50):
        trained().sum().backward()
        trained.descend(0.2)
    moved = trained.rounding().codes(first)
    assert torch.equal(moved, (first.int() - 1).clamp(quantizer.quant_min).to(torch.int8))
    torch.testing.assert_close(trained().detach(), quantizer.dequantize(moved))


def test_a_trained_weight_starts_at_given_codes() -> None:
    _, weight, quantizer = _layer()
    codes = (quantizer.quantize(weight) + 2).clamp(max=quantizer.quant_max)
    start = Rounding.of(codes, quantizer.quantize(weight), torch.arange(6.0))
    op = _layer()[0].op
    trained = TrainedWeight(op, weight, None, quantizer, start)
    torch.testing.assert_close(trained().detach(), quantizer.dequantize(codes))
    assert trained.bias.tolist() == list(range(6))


def test_a_trained_scale_follows_the_error() -> None:
    quantizer = _uniform(4, 1.0, 3)
    trained = TrainedScale(quantizer)
    x = torch.rand(4096, generator=torch.Generator().manual_seed(0)) * 3 - 0.6  # uses four of sixteen codes
    torch.testing.assert_close(trained(x).detach(), quantizer.fake_quantize(x))
    before = float((trained(x) - x).detach().square().mean())
    optimizer = torch.optim.Adam(trained.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (trained(x) - x).square().mean().backward()
        optimizer.step()
    tuned = trained.result()
    assert tuned.zero_point == 3
    assert float((tuned.fake_quantize(x) - x).square().mean()) < 0.2 * before


@pytest.mark.parametrize(
    "quantizer",
    [
        LogQuantizer(bit_width=4, base=2.0),
        _uniform(8, 0.01, 0),
    ],
)
def test_other_codes_are_not_trained(quantizer: UniformQuantizer) -> None:
    trained = TrainedScale(quantizer)
    x = torch.rand(64, requires_grad=True)
    out = trained(x)
    out.sum().backward()
    torch.testing.assert_close(out.detach(), quantizer.fake_quantize(x.detach()))
    assert x.grad is not None
    assert bool((x.grad == 1).all())
    assert trained.result() == quantizer


def _error(model: nn.Module, quantized: nn.Module, images: Tensor) -> float:
    with torch.inference_mode():
        return float((model(images) - quantized(images)).square().mean())


def test_reconstruction_lowers_the_error_on_fresh_images(vit: nn.Module) -> None:
    images = torch.randn(96, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    fresh = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    choices = {"weight_bits": 3, "rounding": "nearest", "keep_float": (), "reconstruction_steps": 20}
    trained = quantize(vit, images, config=QuantizationConfig(**choices, reconstruction="blocks"))
    nearest = quantize(vit, images, config=QuantizationConfig(**choices, reconstruction="none"))
    assert _error(vit, trained, fresh) < 0.8 * _error(vit, nearest, fresh)


@pytest.mark.parametrize("name", ["vit", pytest.param("edgevit", marks=pytest.mark.slow)])
def test_the_plan_rebuilds_what_was_trained(name: str, request: pytest.FixtureRequest, images: Tensor) -> None:
    model = request.getfixturevalue(name)
    quantized = quantize(model, images, config=LOW)
    plan = type(quantized.plan).from_dict(quantized.plan.to_dict())
    again = quantize(model, images, plan=plan)
    with torch.inference_mode():
        torch.testing.assert_close(again(images), quantized(images))


def test_what_does_not_help_is_not_kept(vit: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitrail.quantization.methods.block_reconstruction.BIAS_RATE", 1e4)
    without = quantize(vit, images, config=QuantizationConfig(**(vars(LOW) | {"reconstruction": "none"})))
    ruined = quantize(vit, images, config=LOW)
    assert _error(vit, ruined, images) == pytest.approx(_error(vit, without, images), rel=1e-4)


def test_eight_bits_are_not_trained(vit: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("reconstruction ran")

    monkeypatch.setattr(import_module("vitrail.quantization.quantize"), "reconstruct", fail)
    quantize(vit, images, config=QuantizationConfig(reconstruction="blocks"))


@pytest.mark.slow
def test_an_interrupted_reconstruction_goes_on(
    vit: nn.Module, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "partial.json"
    whole = quantize(vit, images, config=LOW)
    calls = 0
    add = ResumeFile.add_block

    def stop(self: ResumeFile, name: str, block: TrainedBlock) -> None:
        nonlocal calls
        add(self, name, block)
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ResumeFile, "add_block", stop)
    with pytest.raises(KeyboardInterrupt):
        quantize(vit, images, config=LOW, resume=path)
    monkeypatch.setattr(ResumeFile, "add_block", add)
    known: list[int] = []
    monkeypatch.setattr(
        import_module("vitrail.quantization.quantize"),
        "reconstruct",
        lambda context, *args: (known.append(len(context.resume.blocks)), reconstruct(context, *args))[1],
    )
    resumed = quantize(vit, images, config=LOW, resume=path)
    assert known == [2]
    assert not path.exists()
    for name in list(resumed.plan.rounding)[:4]:
        assert resumed.plan.rounding[name].to_dict() == whole.plan.rounding[name].to_dict()
    assert _error(vit, resumed, images) == pytest.approx(_error(vit, whole, images), rel=0.2)


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({"weight_bits": 4}, "none"),
        ({"activation_bits": 6}, "blocks"),
        ({"average_bits": 5, "mixed_activations": True}, "blocks"),
        ({"activation_bits": 4, "preset": "fast"}, "none"),
        ({"activation_bits": 4, "reconstruction": "none"}, "none"),
        ({"weight_bits": 3, "reconstruction": "blocks"}, "blocks"),
    ],
)
def test_best_trains_blocks_where_activations_are_low(choices: dict[str, Any], expected: str) -> None:
    assert QuantizationConfig(**choices).resolved().reconstruction == expected


def test_steps_are_checked() -> None:
    with pytest.raises(QuantizationError, match="reconstruction_steps=0"):
        QuantizationConfig(reconstruction_steps=0)
    with pytest.raises(ConfigError, match="reconstruction='all' is not allowed; choose none, low or blocks"):
        QuantizationConfig(reconstruction="all")
