"""EdgeViT against the authors' logits, and every subtle point broken on purpose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from golden.compare import Golden, filled_model, logit_error, stage_errors
from torch import Tensor, nn

from vitrail import create_model
from vitrail.layers import GlobalSparseAttention, LayerNorm2d, LocalAggregation
from vitrail.layers.attention import merge_heads, split_qkv
from vitrail.models import Backbone


def _stage_modules(model: Backbone) -> dict[str, str]:
    last_blocks = {
        f"blocks{s + 1}": f"stages.{s}.blocks.{len(stage.blocks) - 1}" for s, stage in enumerate(model.stages)
    }
    return last_blocks | {"norm": "norm"}


@pytest.mark.parametrize("variant", ["edgevit_xxs", "edgevit_xs"])
def test_logits_and_stages_equal_the_reference(variant: str) -> None:
    golden = Golden.load(f"edgevit/{variant}")
    model = filled_model(variant, f"edgevit/{variant}")
    assert logit_error(model, golden) <= 5e-7
    errors = stage_errors(model, golden, _stage_modules(model))
    assert len(errors) == 5
    assert max(errors.values()) <= 1e-6, errors
    assert sum(p.numel() for p in model.parameters()) == golden.num_parameters


def test_the_largest_variant_has_the_size_of_the_authors_code() -> None:
    with torch.device("meta"):
        model = create_model("edgevit_s")
    assert sum(p.numel() for p in model.parameters()) == 13_108_168


def _modules(model: Backbone, kind: type[nn.Module]) -> list:
    return [module for module in model.modules() if type(module) is kind]


def _set_block_norm_eps(model: Backbone) -> None:
    for norm in _modules(model, nn.LayerNorm):
        norm.eps = 1e-5


def _set_propagation_norm_eps(model: Backbone) -> None:
    for norm in _modules(model, LayerNorm2d):
        norm.eps = 1e-6


def _choose_other_delegates(model: Backbone) -> None:
    for mixer in _modules(model, GlobalSparseAttention):
        attend = mixer.forward
        shift = mixer.sr_ratio - 1
        mixer.forward = lambda x, attend=attend, shift=shift: attend(x.roll((-shift, -shift), (1, 2)))


def _average_delegates(model: Backbone) -> None:
    def pooled(mixer: GlobalSparseAttention, x: Tensor) -> Tensor:
        r = mixer.sr_ratio
        mean = nn.functional.avg_pool2d(x.permute(0, 3, 1, 2), r)
        x = mean.repeat_interleave(r, 2).repeat_interleave(r, 3).permute(0, 2, 3, 1)
        return GlobalSparseAttention.forward(mixer, x)

    for mixer in _modules(model, GlobalSparseAttention):
        mixer.forward = lambda x, mixer=mixer: pooled(mixer, x)


def _activate_local_aggregation(model: Backbone) -> None:
    for mixer in _modules(model, LocalAggregation):
        mixer.forward = lambda x, m=mixer: m.conv2(nn.functional.gelu(m.depthwise(m.conv1(x))))


def _project_before_propagating(model: Backbone) -> None:
    def mutated(mixer: GlobalSparseAttention, x: Tensor) -> Tensor:
        grid, r = (x.shape[1] // mixer.sr_ratio, x.shape[2] // mixer.sr_ratio), mixer.sr_ratio
        out = nn.functional.scaled_dot_product_attention(
            *split_qkv(mixer.qkv(x[:, ::r, ::r].flatten(1, 2)), mixer.num_heads)
        )
        out = mixer.proj(merge_heads(out)).unflatten(1, grid).permute(0, 3, 1, 2)
        return mixer.norm(mixer.propagate(out)).permute(0, 2, 3, 1)

    for mixer in _modules(model, GlobalSparseAttention):
        if mixer.sr_ratio > 1:
            mixer.forward = lambda x, mixer=mixer: mutated(mixer, x)


def _skip_second_position_encoding(model: Backbone) -> None:
    for stage in model.stages:
        for block in stage.blocks:
            block.global_block.pos_embed.weight.data.zero_()
            block.global_block.pos_embed.bias.data.zero_()


def _pool_before_norm(model: Backbone) -> None:
    model.final_norm = lambda x: x


def _order_qkv_by_head(model: Backbone) -> None:
    for mixer in _modules(model, GlobalSparseAttention):
        order = torch.arange(mixer.qkv.out_features).view(3, mixer.num_heads, -1).transpose(0, 1).flatten()
        mixer.qkv.weight.data, mixer.qkv.bias.data = mixer.qkv.weight.data[order], mixer.qkv.bias.data[order]


def _use_tanh_gelu(model: Backbone) -> None:
    for act in _modules(model, nn.GELU):
        act.approximate = "tanh"


MUTATIONS: dict[str, Callable[[Backbone], None]] = {
    "block norms with eps 1e-5": _set_block_norm_eps,
    "propagation norm with eps 1e-6": _set_propagation_norm_eps,
    "delegates from another corner": _choose_other_delegates,
    "delegates averaged instead of sampled": _average_delegates,
    "an activation inside local aggregation": _activate_local_aggregation,
    "projection before propagation": _project_before_propagating,
    "no second position encoding": _skip_second_position_encoding,
    "no norm after the last stage": _pool_before_norm,
    "qkv rows ordered by head": _order_qkv_by_head,
    "tanh GELU": _use_tanh_gelu,
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_detail_is_noticed(mutation: str) -> None:
    model = filled_model("edgevit_xxs", "edgevit/edgevit_xxs")
    MUTATIONS[mutation](model)
    assert logit_error(model, Golden.load("edgevit/edgevit_xxs")) > 5e-7
