"""What is frozen neither moves nor makes the training random, in every family."""

from __future__ import annotations

import pytest
import torch
from contract_models import SMALL
from torch import nn

from vitrail.core.errors import ConfigError
from vitrail.models import create_model
from vitrail.tasks import ClassificationTask
from vitrail.training import ResolvedConfig, TrainConfig
from vitrail.training.freezing import freezing_remarks, frozen_part


def small_task(family: str) -> ClassificationTask:
    torch.manual_seed(0)
    model = create_model(SMALL[family], num_classes=3, image_size=24 if family == "reswin" else 32, drop_path_rate=0.5)
    return ClassificationTask(model, ("a", "b", "c")).train()


@pytest.mark.parametrize(
    ("family", "freeze"),
    [("vit", "backbone"), ("edgevit", "backbone"), ("vitae_plain", 2), ("mobilevit", 2), ("revit", 2), ("maxvit", 2)],
)
def test_a_frozen_part_stays_as_it_is(family: str, freeze: str | int) -> None:
    task = small_task(family)
    part = frozen_part(task, ResolvedConfig(model=SMALL[family], freeze=freeze))
    part.hold()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    images, labels = torch.randn(2, 3, *task.backbone.config.image_size), torch.tensor([0, 1])
    task.training_answer(images, labels)[0].backward()
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    frozen = {names[id(parameter)] for parameter in part.parameters}
    moving = {name for name, parameter in task.named_parameters() if parameter.grad is not None}
    assert frozen
    assert not frozen & moving
    assert any(name.startswith("backbone.head.") for name in moving)
    heads = tuple(f"backbone.{prefix}" for prefix in task.backbone.head_prefixes)
    first = tuple(f"backbone.{prefix}" for group in task.backbone.layer_groups()[:2] for prefix in group)
    held = first if freeze == 2 else tuple(names.values())
    assert frozen == {name for name in names.values() if name.startswith(held) and not name.startswith(heads)}
    changed = [name for name, value in task.state_dict().items() if not torch.equal(value, before[name])]
    assert not [name for name in changed if name.startswith(held)], "statistics of a frozen norm moved"


@pytest.mark.parametrize("family", SMALL)
def test_a_frozen_backbone_computes_what_it_does_in_evaluation(family: str) -> None:
    """Neither drop path nor the statistics of a batch."""
    task = small_task(family)
    frozen_part(task, ResolvedConfig(model=SMALL[family], freeze="backbone")).hold()
    images = torch.randn(2, 3, *task.backbone.config.image_size)
    held = list(task.backbone.forward_stages(images))
    expected = list(task.eval().backbone.forward_stages(images))
    if family == "exmobilevit":  # its last level holds what its classifier's shortcuts learn
        held, expected = held[:-1], expected[:-1]
    assert all(torch.equal(*levels) for levels in zip(held, expected, strict=True))


def test_what_is_released_is_trained_as_before() -> None:
    task = small_task("edgevit")
    part = frozen_part(task, ResolvedConfig(model=SMALL["edgevit"], freeze="backbone"))
    part.hold()
    part.hold(frozen=False)
    assert all(parameter.requires_grad for parameter in task.parameters())
    assert all(module.training for module in task.modules())


def test_the_stem() -> None:
    task = small_task("vit")
    part = frozen_part(task, ResolvedConfig(model=SMALL["vit"], freeze="stem"))
    assert set(map(id, part.parameters)) >= set(map(id, task.backbone.stem.parameters()))
    assert not [p for p in task.backbone.blocks.parameters() if any(p is held for held in part.parameters)]
    assert not any(isinstance(module, nn.ModuleList) for module in part.modules)
    with pytest.raises(ConfigError, match=r"freeze='stem' edgevit_nano_stride2 has no stem; freeze=1 freezes"):
        frozen_part(small_task("edgevit"), ResolvedConfig(model="edgevit_nano_stride2", freeze="stem"))


def test_more_groups_than_there_are() -> None:
    with pytest.raises(ConfigError, match=r"freeze=5 .*has 4 layer groups; give 1 to 4, or backbone"):
        frozen_part(small_task("edgevit"), ResolvedConfig(model="edgevit_nano_stride2", freeze=5))


def test_what_is_released_after_the_end() -> None:
    with pytest.raises(ConfigError, match=r"freeze_epochs=3\.0 must be below epochs=3; 0 freezes to the end"):
        frozen_part(small_task("edgevit"), ResolvedConfig(model="edgevit_nano_stride2", freeze_epochs=3, epochs=3))


def test_frozen_random_weights_are_warned_of() -> None:
    assert "random weights" in freezing_remarks(TrainConfig(freeze="backbone"))[0]
    assert not freezing_remarks(TrainConfig(freeze="backbone", weights="x"))
    assert not freezing_remarks(TrainConfig())
