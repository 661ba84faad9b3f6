"""ViT against timm's logits, and every subtle point broken on purpose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from golden.compare import Golden, filled_model, load_golden, logit_error, stage_errors
from torch import nn

from vitrail import create_model
from vitrail.models import Backbone

CASES = {
    "vit_tiny_patch16_224": "vit_tiny_patch16",
    "vit_small_patch16_224": "vit_small_patch16",
    "vit_small_patch16_gap_224": "vit_small_patch16_gap",
    "vit_tiny_r_s16_p8_224": "vit_tiny_r_s16",
}
STAGES = {"patch_embed": "stem", "norm": "norm"} | {f"blocks.{i}": f"blocks.{i}" for i in (0, 5, 11)}
HYBRID_STAGES = STAGES | {"patch_embed.backbone": "stem.resnet"}


@pytest.mark.parametrize("reference", CASES)
def test_logits_and_stages_equal_the_reference(reference: str) -> None:
    golden = Golden.load(f"vit/{reference}")
    model = filled_model(CASES[reference], f"vit/{reference}")
    assert logit_error(model, golden) <= 5e-7
    errors = stage_errors(model, golden, HYBRID_STAGES if "_r_" in reference else STAGES)
    assert len(errors) == len(golden.stages)
    assert max(errors.values()) <= 1e-6, errors
    assert sum(p.numel() for p in model.parameters()) == golden.num_parameters


def _set_norm_eps(model: Backbone) -> None:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


def _use_tanh_gelu(model: Backbone) -> None:
    for block in model.blocks:
        block.mlp.act = nn.GELU(approximate="tanh")


def _forget_positions(model: Backbone) -> None:
    model.pos_embed.table.data.zero_()


def _order_qkv_by_head(model: Backbone) -> None:
    for block in model.blocks:
        qkv = block.token_mixer.qkv
        order = torch.arange(qkv.out_features).view(3, 3, -1).transpose(0, 1).flatten()
        qkv.weight.data, qkv.bias.data = qkv.weight.data[order], qkv.bias.data[order]


def _put_class_token_last(model: Backbone) -> None:
    model.pool = lambda x: x[:, -1]


def _mean_before_norm(model: Backbone) -> None:
    model.final_norm = lambda x: x
    model.pool = lambda x: model.norm(x.mean(1))


def _pad_root_symmetrically(model: Backbone) -> None:
    conv = model.stem.resnet.conv
    conv.convolve = lambda x, weight: nn.functional.conv2d(x, weight, stride=2, padding=3)


def _use_plain_root_filters(model: Backbone) -> None:
    conv = model.stem.resnet.conv
    conv.forward = lambda x: conv.convolve(x, conv.weight)


def _forget_root_norm(model: Backbone) -> None:
    model.stem.resnet.norm = nn.Identity()


MUTATIONS: dict[str, tuple[str, Callable[[Backbone], None]]] = {
    "norm eps 1e-5": ("vit_tiny_patch16_224", _set_norm_eps),
    "tanh GELU": ("vit_tiny_patch16_224", _use_tanh_gelu),
    "no position table": ("vit_tiny_patch16_224", _forget_positions),
    "qkv rows ordered by head": ("vit_tiny_patch16_224", _order_qkv_by_head),
    "classifier reads the last token": ("vit_tiny_patch16_224", _put_class_token_last),
    "mean before norm": ("vit_small_patch16_gap_224", _mean_before_norm),
    "root padded symmetrically": ("vit_tiny_r_s16_p8_224", _pad_root_symmetrically),
    "root filters not standardised": ("vit_tiny_r_s16_p8_224", _use_plain_root_filters),
    "no norm in the root": ("vit_tiny_r_s16_p8_224", _forget_root_norm),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_detail_is_noticed(mutation: str) -> None:
    reference, break_it = MUTATIONS[mutation]
    model = filled_model(CASES[reference], f"vit/{reference}")
    break_it(model)
    assert logit_error(model, Golden.load(f"vit/{reference}")) > 5e-7


def test_the_learned_table_resizes_as_timm_does() -> None:
    timm = pytest.importorskip("timm")
    golden = Golden.load("vit/vit_tiny_patch16_224")
    reference = timm.create_model("vit_tiny_patch16_224", img_size=(256, 192)).double().eval()
    theirs = timm.models.vision_transformer.checkpoint_filter_fn(golden.state, reference)
    reference.load_state_dict(theirs)
    model = load_golden(create_model("vit_tiny_patch16", image_size=(256, 192)), golden)
    images = torch.randn(1, 3, 256, 192, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference(images), rtol=0, atol=1e-6)
