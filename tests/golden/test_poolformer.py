"""PoolFormer against the logits of timm and of the authors, whose heads differ, and broken on purpose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from golden.compare import Golden, load_golden, logit_error, stage_errors
from torch import nn

from vitrail import create_model
from vitrail.layers import PoolingMixer
from vitrail.models import Backbone

TIMM, AUTHORS = "poolformer/poolformer_s12", "poolformer/poolformer_s12_sail"
DEPTHS = (2, 2, 6, 2)
STAGES = {
    TIMM: {"stem": "stem"} | {f"stages.{s}": f"stages.{s}.blocks.{n - 1}" for s, n in enumerate(DEPTHS)},
    AUTHORS: {"patch_embed": "stem", "norm": "norm"}
    | {f"network.{2 * s}": f"stages.{s}.blocks.{n - 1}" for s, n in enumerate(DEPTHS)}
    | {f"network.{2 * s - 1}": f"stages.{s}.downsample" for s in (1, 2, 3)},
}


def filled(reference: str) -> Backbone:
    head = "timm" if reference == TIMM else "authors"
    return load_golden(create_model("poolformer_s12", head=head), Golden.load(reference))


@pytest.mark.parametrize("reference", [TIMM, AUTHORS])
def test_logits_and_stages_equal_the_reference(reference: str) -> None:
    golden, model = Golden.load(reference), filled(reference)
    assert logit_error(model, golden) <= 5e-7
    errors = stage_errors(model, golden, STAGES[reference])
    assert len(errors) == len(STAGES[reference])
    assert max(errors.values()) <= 1e-6, errors
    assert sum(p.numel() for p in model.parameters()) == golden.num_parameters


def _modules(model: Backbone, kind: type[nn.Module]) -> list:
    return [module for module in model.modules() if type(module) is kind]


def _count_padding(model: Backbone) -> None:
    for mixer in _modules(model, PoolingMixer):
        mixer.pool.count_include_pad = True


def _keep_the_token_itself(model: Backbone) -> None:
    for mixer in _modules(model, PoolingMixer):
        mixer.forward = mixer.pool.forward


def _set_head_eps(model: Backbone) -> None:
    model.norm.eps = 1e-5


def _norm_each_pixel(model: Backbone) -> None:
    """LayerNorm over channels instead of a norm over the whole map: what GroupNorm(1) is often mistaken for."""
    for norm in _modules(model, nn.GroupNorm):
        norm.forward = lambda x, n=norm: nn.functional.layer_norm(
            x.permute(0, 2, 3, 1), n.weight.shape, n.weight, n.bias, n.eps
        ).permute(0, 3, 1, 2)


def _swap_layer_scales(model: Backbone) -> None:
    for stage in model.stages:
        for block in stage.blocks:
            block.layer_scale1, block.layer_scale2 = block.layer_scale2, block.layer_scale1


MUTATIONS: dict[str, Callable[[Backbone], None]] = {
    "padding counted in the mean": _count_padding,
    "no '- x' after pooling": _keep_the_token_itself,
    "head eps 1e-5": _set_head_eps,
    "norm over channels only": _norm_each_pixel,
    "layer scales swapped": _swap_layer_scales,
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_detail_is_noticed(mutation: str) -> None:
    model = filled(TIMM)
    MUTATIONS[mutation](model)
    assert logit_error(model, Golden.load(TIMM)) > 5e-7


def test_the_two_heads_are_not_the_same() -> None:
    """The same weights, body and classifier: only the order of norm and mean differs, by far more than rounding."""
    golden = Golden.load(TIMM)
    model = load_golden(create_model("poolformer_s12", head="authors"), golden)
    with torch.no_grad():
        assert (model(golden.image) - golden.logits).abs().max() > 1
