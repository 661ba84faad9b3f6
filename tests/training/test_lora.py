"""Adapters are merged into a plain model that answers as the adapted one."""

from __future__ import annotations

import pytest
import torch
from contract_models import SMALL
from torch import nn

from vitrail.core.errors import ConfigError
from vitrail.models import create_model
from vitrail.tasks import ClassificationTask
from vitrail.training import ResolvedConfig, TrainConfig
from vitrail.training.freezing import frozen_part
from vitrail.training.lora import Adapter, adapter_size, add_adapters, merged


def small_task(family: str) -> ClassificationTask:
    torch.manual_seed(0)
    model = create_model(SMALL[family], num_classes=2, image_size=24 if family == "reswin" else 32)
    return ClassificationTask(model, ("a", "b"))


def with_lively_adapters(family: str, config: TrainConfig) -> ClassificationTask:
    task = small_task(family)
    add_adapters(task, config)
    for module in task.modules():
        if isinstance(module, Adapter):
            nn.init.normal_(module.up, std=0.1)
    return task.eval()


@pytest.mark.parametrize("family", ["vit", "edgevit", "maxvit", "mobilevit", "revit", "reswin", "vitaev2"])
def test_merged_weights_answer_as_the_adapters_do(family: str) -> None:
    config = TrainConfig(model=SMALL[family], lora=2, lora_alpha=4.0)
    task = with_lively_adapters(family, config)
    plain = small_task(family).eval()
    images = torch.randn(1, 3, *plain.backbone.config.image_size)
    with torch.no_grad():
        before, adapted = plain(images), task(images)
        plain.load_state_dict(merged(task.state_dict(), config))  # strict: no other names
        assert not torch.allclose(before, adapted, atol=1e-4)
        torch.testing.assert_close(plain(images), adapted, rtol=1e-6, atol=1e-6)


def test_new_adapters_change_nothing_and_are_trained_with_the_head_alone() -> None:
    config = ResolvedConfig(model=SMALL["vit"], lora=2)
    plain, task = small_task("vit").eval(), small_task("vit")
    add_adapters(task, config)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(task.eval()(images), plain(images))
    frozen_part(task, config).hold()
    trained = {name for name, one in task.named_parameters() if one.requires_grad}
    assert trained == {"backbone.head.weight", "backbone.head.bias"} | {
        name for name in trained if name.endswith((".0.up", ".0.down"))
    }
    linears = [module for module in plain.backbone.blocks.modules() if isinstance(module, nn.Linear)]
    assert len(trained) == 2 + 2 * len(linears)
    assert adapter_size(task) == sum(2 * sum(layer.weight.shape) for layer in linears)
    assert adapter_size(plain) == 0


@pytest.mark.parametrize(("layers", "wanted"), [("mlp", {"mlp"}), ("attention", {"token_mixer"})])
def test_which_layers(layers: str, wanted: set[str]) -> None:
    task = small_task("vit")
    add_adapters(task, TrainConfig(model=SMALL["vit"], lora=2, lora_layers=layers))
    found = {name for name, module in task.named_modules() if isinstance(module, Adapter)}
    assert {name.split(".")[3] for name in found} == wanted


def test_what_has_no_adapters() -> None:
    with pytest.raises(ConfigError, match=r"poolformer_nano has no linear layers of this kind.*; use freeze"):
        add_adapters(small_task("poolformer"), TrainConfig(model=SMALL["poolformer"], lora=2))
    with pytest.raises(ConfigError, match=r"lora=1000000 is above \d+, the smaller side of .*'s layer blocks\.0"):
        add_adapters(small_task("vit"), TrainConfig(model=SMALL["vit"], lora=1_000_000))
    with pytest.raises(ConfigError, match="lora=2 freezes the backbone to the end by itself"):
        TrainConfig(lora=2, freeze=1)
