"""Bit widths within a budget, and rounding that continues after an interruption."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vitrail.core.errors import QuantizationError
from vitrail.quantization import QuantizationConfig, QuantizedModel, quantize
from vitrail.quantization.methods import gptq
from vitrail.quantization.mixed_precision import bit_widths as bit_widths_module
from vitrail.quantization.mixed_precision.sensitivity import output_loss
from vitrail.quantization.plan import QuantizationPlan
from vitrail.quantization.resume import ResumeFile


def config(**values: object) -> QuantizationConfig:
    return QuantizationConfig(**({"preset": "fast"} | values))  # type: ignore[arg-type]


def decibels(model: nn.Module, quantized: nn.Module, images: Tensor) -> float:
    with torch.inference_mode():
        reference, output = model(images), quantized(images)
    return float(10 * torch.log10(reference.square().sum() / (reference - output).square().sum()))


def divergence(model: nn.Module, quantized: nn.Module, images: Tensor) -> float:
    with torch.inference_mode():
        return output_loss(quantized(images), model(images), "probabilities")


@pytest.fixture(scope="module")
def mixed(vit: nn.Module, images: Tensor) -> QuantizedModel:
    return quantize(vit, images, config=config(average_bits=4.5))


def test_a_budget_is_kept_and_spent_where_it_helps(vit: nn.Module, images: Tensor, mixed: QuantizedModel) -> None:
    plan = mixed.plan
    assert 4 < plan.average_bits(weights=True) <= 4.5
    assert plan.average_bits(weights=False) == 8
    bit_widths = {q.bit_width for name, q in plan.operands.items() if name.endswith(":weight")}
    assert len(bit_widths) > 1
    uniform = quantize(vit, images, config=config(weight_bits=4))
    assert divergence(vit, mixed, images) < divergence(vit, uniform, images)
    assert mixed.plan.simulated == ()


def test_activations_can_share_the_budget(vit: nn.Module, images: Tensor) -> None:
    plan = quantize(vit, images, config=config(average_bits=5, mixed_activations=True)).plan
    assert plan.average_bits(weights=True) <= 5
    assert plan.average_bits(weights=False) <= 5
    assert plan.simulated


def test_a_size_is_kept(vit: nn.Module, images: Tensor) -> None:
    everything = sum(p.numel() for p in vit.parameters())
    plan = quantize(vit, images, config=config(max_size_mb=everything * 1.05 / 1e6, allocation="exact")).plan
    stored = sum(plan.counts[name] * q.bit_width / 8 for name, q in plan.operands.items() if name.endswith(":weight"))
    assert stored < everything * 0.9
    with pytest.raises(QuantizationError, match="the smallest possible is"):
        quantize(vit, images, config=config(max_size_mb=0.0001))


@pytest.mark.slow
def test_an_interrupted_rounding_goes_on(
    vit: nn.Module, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial, chosen = tmp_path / "partial.json", QuantizationConfig(weight_bits=4)
    whole = quantize(vit, images, config=chosen)
    real, calls = gptq.best_rounding, []

    def counted(*args: object) -> object:
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(gptq, "best_rounding", counted)
    with pytest.raises(KeyboardInterrupt):
        quantize(vit, images, config=chosen, resume=partial)
    assert len(json.loads(partial.read_text())["rounded"]) == 3
    resumed = quantize(vit, images, config=chosen, resume=partial)
    assert len(calls) == 4 + 9 - 3
    assert not partial.exists()
    assert resumed.plan == whole.plan


@pytest.mark.parametrize("changed", ["weights", "one bias", "running mean", "images", "order of images"])
def test_a_partial_file_of_other_weights_or_images_is_not_used(
    changed: str, vit: nn.Module, edgevit: nn.Module, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, partial = copy.deepcopy(edgevit if changed == "running mean" else vit), tmp_path / "partial.json"
    chosen, images = QuantizationConfig(weight_bits=4, preset="min_max", rounding="gptq"), images[:4]
    with monkeypatch.context() as interrupted:
        add = ResumeFile.add_rounding
        interrupted.setattr(ResumeFile, "add_rounding", lambda *args: (add(*args), pytest.fail("interrupted")))
        with pytest.raises(pytest.fail.Exception):
            quantize(model, images, config=chosen, resume=partial)
    assert len(json.loads(partial.read_text())["rounded"]) == 1
    with torch.no_grad():
        if changed == "weights":
            next(model.parameters()).mul_(1.01)
        elif changed == "one bias":
            next(p for name, p in model.named_parameters() if name.endswith("bias"))[0] += 1e-3
        elif changed == "running mean":
            next(p for name, p in model.named_buffers() if name.endswith("running_mean"))[0] += 1e-3
    images = {"images": images + 0.1, "order of images": images.flip(0)}.get(changed, images)
    real, computed = gptq.best_rounding, []
    monkeypatch.setattr(gptq, "best_rounding", lambda *args: (computed.append(1), real(*args))[1])
    assert len(quantize(model, images, config=chosen, resume=partial).plan.rounding) == len(computed)


def test_a_partial_file_of_another_choice_is_not_used(vit: nn.Module, images: Tensor, tmp_path: Path) -> None:
    partial = tmp_path / "partial.json"
    partial.write_text('{"fingerprint": "x", "config": {}, "rounded": {"head:weight": {"steps": "!!", "bias": null}}}')
    quantize(vit, images, config=QuantizationConfig(weight_bits=4), resume=partial)
    assert not partial.exists()


def test_gptq_helps_the_whole_model(vit: nn.Module, images: Tensor) -> None:
    nearest = quantize(vit, images, config=config(weight_bits=3))
    best = quantize(vit, images, config=QuantizationConfig(weight_bits=3))
    assert decibels(vit, best, images) > decibels(vit, nearest, images) + 1


@pytest.mark.slow
def test_a_rounded_plan_rebuilds_the_same_model(edgevit: nn.Module, images: Tensor, tmp_path: Path) -> None:
    chosen = QuantizationConfig(weight_bits=4, activation_bits=6)
    quantized = quantize(edgevit, images, config=chosen)
    assert any(rounding.code_offsets for rounding in quantized.plan.rounding.values())
    assert quantized.plan.smoothing
    quantized.plan.save(tmp_path / "quantization.json")
    rebuilt = quantize(edgevit, images[:1], plan=QuantizationPlan.load(tmp_path / "quantization.json"))
    with torch.inference_mode():
        assert torch.equal(rebuilt(images), quantized(images))


def test_one_width_for_all_is_taken_where_it_is_measured_to_be_better(
    vit: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for losses, uniform in (([1.0, 2.0], False), ([2.0, 1.0], True)):
        results = iter(losses)
        monkeypatch.setattr(bit_widths_module, "_measure", lambda *_: next(results))  # noqa: B023
        plan = quantize(vit, images, config=config(average_bits=4)).plan
        bit_widths = {q.bit_width for name, q in plan.operands.items() if name.endswith(":weight")}
        assert (bit_widths == {4}) is uniform
