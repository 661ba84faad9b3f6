"""MobileViT against timm's logits, and every subtle point broken on purpose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from golden.compare import Golden, filled_model, logit_error, stage_errors
from torch import nn

from vitrail.layers import MobileViTBlock
from vitrail.models import Backbone

NAME, REFERENCE = "mobilevit_xxs", "mobilevit/mobilevit_xxs"
STAGES = {
    "stem": "stem",
    "stages.0": "stages.0.blocks.0",
    "stages.1": "stages.1.blocks.2",
    "stages.2": "stages.2.blocks.1",
    "stages.3": "stages.3.blocks.1",
    "stages.4": "stages.4.blocks.1",
    "final_conv": "final_conv",
}


def test_logits_and_stages_equal_the_reference() -> None:
    golden = Golden.load(REFERENCE)
    model = filled_model(NAME, REFERENCE)
    assert logit_error(model, golden) <= 5e-7
    errors = stage_errors(model, golden, STAGES)
    assert len(errors) == len(STAGES)
    assert max(errors.values()) <= 1e-6, errors  # the logits hardly depend on the picture, the stages do
    assert sum(p.numel() for p in model.parameters()) == golden.num_parameters


def _modules(model: Backbone, kind: type[nn.Module]) -> list:
    return [module for module in model.modules() if type(module) is kind]


def _set_layer_norm_eps(model: Backbone) -> None:
    for norm in _modules(model, nn.LayerNorm):
        norm.eps = 1e-6


def _set_batch_norm_eps(model: Backbone) -> None:
    for norm in _modules(model, nn.BatchNorm2d):
        norm.eps = 1e-3


def _leave_out_norm_after_transformer(model: Backbone) -> None:
    for block in _modules(model, MobileViTBlock):
        block.norm = nn.Identity()


def _put_result_first(model: Backbone) -> None:
    for block in _modules(model, MobileViTBlock):
        block.fusion.conv.weight.data = torch.cat(block.fusion.conv.weight.data.chunk(2, 1)[::-1], 1)


MUTATIONS: dict[str, Callable[[Backbone], None]] = {
    "LayerNorm eps 1e-6": _set_layer_norm_eps,
    "BatchNorm eps 1e-3": _set_batch_norm_eps,
    "no norm after the transformer": _leave_out_norm_after_transformer,
    "result before input": _put_result_first,
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_detail_is_noticed(mutation: str) -> None:
    model, golden = filled_model(NAME, REFERENCE), Golden.load(REFERENCE)
    MUTATIONS[mutation](model)
    assert logit_error(model, golden) > 5e-7
