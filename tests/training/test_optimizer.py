from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

from vitrail.models import create_model
from vitrail.tasks import ClassificationTask
from vitrail.training.optimizer import learning_rate_factor, parameter_groups


@pytest.mark.parametrize("name", ["edgevit_nano_stride2", "vit_tiny_patch16"])
def test_every_parameter_is_in_one_group_and_only_matrices_are_decayed(name: str) -> None:
    task = ClassificationTask(create_model(name, num_classes=2), ("a", "b"))
    groups = parameter_groups(task, task.backbone, learning_rate=1e-3, weight_decay=0.1)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(task.parameters())) == len(decay)
    kept = task.backbone.no_weight_decay()
    for key, parameter in task.backbone.named_parameters():
        assert decay[id(parameter)] == (0.0 if parameter.ndim < 2 or key in kept else 0.1), key
    assert {group["lr"] for group in groups} == {1e-3}


def test_position_tables_are_not_decayed() -> None:
    task = ClassificationTask(create_model("vit_tiny_patch16", num_classes=2), ("a", "b"))
    groups = parameter_groups(task, task.backbone, learning_rate=1.0, weight_decay=0.1)
    tables = [p for name, p in task.backbone.named_parameters() if name in task.backbone.no_weight_decay()]
    assert any(table.ndim >= 2 for table in tables)
    still = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert still.issuperset(map(id, tables))


def test_frozen_parameters_are_left_out() -> None:
    task = ClassificationTask(create_model("edgevit_nano_stride2", num_classes=2), ("a", "b"))
    task.backbone.stages[0].requires_grad_(False)
    chosen = {
        id(p) for g in parameter_groups(task, task.backbone, learning_rate=1, weight_decay=0) for p in g["params"]
    }
    assert chosen == {id(p) for p in task.parameters() if p.requires_grad}


def test_earlier_layers_learn_slower() -> None:
    task = ClassificationTask(create_model("edgevit_nano_stride2", num_classes=2), ("a", "b"))
    groups = parameter_groups(task, task.backbone, learning_rate=1.0, weight_decay=0.1, layer_decay=0.5)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    layers = task.backbone.layer_groups()
    for i, prefixes in enumerate(layers):
        for key, parameter in task.backbone.named_parameters():
            if key.startswith(prefixes):
                assert rates[id(parameter)] == 0.5 ** (len(layers) - i), key
    assert rates[id(task.backbone.head.weight)] == 1.0
    assert rates[id(task.backbone.norm.weight)] == 1.0


def test_warm_up_then_cosine() -> None:
    factors = [learning_rate_factor(step, num_steps=13, num_warmup_steps=3) for step in range(13)]
    assert factors[:4] == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1])
    assert factors[8] == pytest.approx(0.5)  # half of the way down
    assert factors[12] == pytest.approx((1 + torch.cos(torch.tensor(0.9 * torch.pi)).item()) / 2)


@given(num_steps=st.integers(1, 500), share=st.floats(0, 0.9))
def test_no_step_is_wasted(num_steps: int, share: float) -> None:
    warmup = int(num_steps * share)
    factors = [learning_rate_factor(step, num_steps=num_steps, num_warmup_steps=warmup) for step in range(num_steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    assert learning_rate_factor(num_steps, num_steps=num_steps, num_warmup_steps=warmup) == pytest.approx(0, abs=1e-12)
