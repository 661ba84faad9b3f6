"""MaxViT against timm's logits, and every subtle point broken on purpose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from golden.compare import Golden, filled_model, logit_error, stage_errors
from torch import Tensor, nn

from vitrail.layers import BlockAttention, GridAttention, SqueezeExcite, TanhGELU
from vitrail.layers.conv import Conv2dSame
from vitrail.models import Backbone

NAME, REFERENCE = "maxvit_tiny", "maxvit/maxvit_tiny_tf_224"
STAGES = {
    "stem": "stem",
    "stages.0.blocks.0.conv": "stages.0.blocks.0.mbconv",
    "stages.0.blocks.0.attn_block": "stages.0.blocks.0.block_attention",
    "stages.0.blocks.0.attn_grid": "stages.0.blocks.0.grid_attention",
    "stages.0": "stages.0.blocks.1",
    "stages.1": "stages.1.blocks.1",
    "stages.2": "stages.2.blocks.4",
    "stages.3": "stages.3.blocks.1",
    "head.pre_logits": "pre_logits",
}


def test_logits_and_stages_equal_the_reference() -> None:
    golden = Golden.load(REFERENCE)
    model = filled_model(NAME, REFERENCE)
    assert logit_error(model, golden) <= 5e-7
    errors = stage_errors(model, golden, STAGES)
    assert len(errors) == len(STAGES)
    assert max(errors.values()) <= 1e-6, errors
    assert sum(p.numel() for p in model.parameters()) == golden.num_parameters


def _modules(model: Backbone, *kinds: type[nn.Module]) -> list:
    return [module for module in model.modules() if type(module) in kinds]


def _use_exact_gelu(model: Backbone) -> None:
    for act in _modules(model, TanhGELU):
        act.approximate = "none"


def _set_batch_norm_eps(model: Backbone) -> None:
    for norm in _modules(model, nn.BatchNorm2d):
        norm.eps = 1e-5


def _set_layer_norm_eps(model: Backbone) -> None:
    for norm in _modules(model, nn.LayerNorm):
        norm.eps = 1e-6


def _pad_symmetrically(model: Backbone) -> None:
    for conv in _modules(model, Conv2dSame):
        conv.forward = lambda x, c=conv: nn.functional.conv2d(x, c.weight, c.bias, c.stride, 1, groups=c.groups)


def _swap_block_and_grid(model: Backbone) -> None:
    for mixer in _modules(model, BlockAttention, GridAttention):
        mixer.partition = "grid" if mixer.partition == "block" else "block"


def _change_tables(change: Callable[[Tensor], Tensor]) -> Callable[[Backbone], None]:
    def mutate(model: Backbone) -> None:
        for mixer in _modules(model, BlockAttention, GridAttention):
            mixer.bias_table.data = change(mixer.bias_table.data)

    return mutate


def _order_qkv_by_head(model: Backbone) -> None:
    for mixer in _modules(model, BlockAttention, GridAttention):
        order = torch.arange(mixer.qkv.out_features).view(3, mixer.num_heads, -1).transpose(0, 1).flatten()
        mixer.qkv.weight.data, mixer.qkv.bias.data = mixer.qkv.weight.data[order], mixer.qkv.bias.data[order]


def _squeeze_with_relu(model: Backbone) -> None:
    for layer in _modules(model, SqueezeExcite):
        layer.act = nn.ReLU()


def _leave_out_tanh(model: Backbone) -> None:
    model.pre_logits.act = nn.Identity()


MUTATIONS: dict[str, Callable[[Backbone], None]] = {
    "exact GELU": _use_exact_gelu,
    "BatchNorm eps 1e-5": _set_batch_norm_eps,
    "LayerNorm eps 1e-6": _set_layer_norm_eps,
    "symmetric padding": _pad_symmetrically,
    "block and grid swapped": _swap_block_and_grid,
    "bias table transposed": _change_tables(lambda table: table.transpose(1, 2).contiguous()),
    "bias table flipped": _change_tables(lambda table: table.flip(1, 2)),
    "qkv rows ordered by head": _order_qkv_by_head,
    "ReLU in squeeze-and-excitation": _squeeze_with_relu,
    "no tanh before the classifier": _leave_out_tanh,
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_detail_is_noticed(mutation: str) -> None:
    model, golden = filled_model(NAME, REFERENCE), Golden.load(REFERENCE)
    MUTATIONS[mutation](model)
    with torch.no_grad():
        logits = model(golden.image[:1])  # one picture tells, at half the price
    assert (logits - golden.logits[:1]).norm() > 5e-7 * golden.logits[:1].norm()
