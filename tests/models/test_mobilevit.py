"""MobileViT and ExMobileViT: sizes, the layouts of others, the extended classifier."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vitrail import create_model
from vitrail.core.errors import CheckpointError, ConfigError
from vitrail.models import family_of
from vitrail.models.checkpoint import load_state
from vitrail.models.mobilevit import EX_VARIANTS


def _parameters(name: str, **fields: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, **fields).parameters())


@pytest.mark.parametrize("size", [(232, 200), (37, 70), (64, 96)])
def test_any_size_rounds_up_at_every_level(size: tuple[int, int]) -> None:
    model = create_model("mobilevit_nano", image_size=size, num_classes=3).eval()
    x = torch.randn(1, 3, *size)
    maps = model.forward_intermediates(x, intermediates_only=True)
    for info, level in zip(model.feature_info, maps, strict=True):
        assert level.shape == (1, info.channels, -(-size[0] // info.stride), -(-size[1] // info.stride))
    assert model(x).shape == (1, 3)


def test_levels_are_the_references() -> None:
    with torch.device("meta"):
        model = create_model("mobilevit_s")
    assert [(info.channels, info.stride) for info in model.feature_info] == [
        (32, 2),
        (64, 4),
        (96, 8),
        (128, 16),
        (640, 32),
    ]


RESIDUAL = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
INNER = {"local_conv": "conv_kxk", "proj_out": "conv_projection", "fusion": "fusion", "norm": "layernorm"}
BLOCK = {
    "norm1": "layernorm_before",
    "token_mixer.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def _transformers_layer(layer: str) -> str:
    if layer.startswith("head"):
        return "classifier"
    top, _, rest = layer.partition(".")
    if top in ("stem", "final_conv"):
        layer = {"stem": "mobilevit.conv_stem", "final_conv": "mobilevit.conv_1x1_exp"}[top] + f".{rest}"
    else:
        _, stage, _, block, part, *rest = layer.split(".")
        start = f"mobilevit.encoder.layer.{stage}"
        if part in RESIDUAL:
            place = f"layer.{block}" if int(stage) < 2 else "downsampling_layer"
            layer = ".".join([start, place, RESIDUAL[part], *rest])
        elif part == "proj_in":
            layer = f"{start}.conv_1x1.conv"
        elif part == "blocks":
            layer = f"{start}.transformer.layer.{rest[0]}.{BLOCK['.'.join(rest[1:])]}"
        else:
            layer = ".".join([start, INNER[part], *rest])
    return (
        layer.removesuffix(".conv") + ".convolution"
        if layer.endswith(".conv")
        else (layer.removesuffix(".norm") + ".normalization" if layer.endswith(".norm") else layer)
    )


def _as_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under the names of transformers' model, written down independently of the key table."""
    renamed = {}
    for name, tensor in state.items():
        layer, leaf = name.rsplit(".", 1)
        if layer.endswith("qkv"):
            start = _transformers_layer(layer.replace("qkv", "proj")).removesuffix(".output.dense")
            for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                renamed[f"{start}.attention.{part}.{leaf}"] = piece
        else:
            renamed[f"{_transformers_layer(layer)}.{leaf}"] = tensor
    return renamed


def test_weights_of_transformers_load_strictly() -> None:
    source, target = create_model("mobilevit_xxs"), create_model("mobilevit_xxs")
    state = _as_transformers(source.state_dict())
    assert "mobilevit.encoder.layer.4.transformer.layer.2.attention.attention.key.bias" in state
    assert "mobilevit.encoder.layer.1.layer.2.reduce_1x1.normalization.running_var" in state
    assert "mobilevit.encoder.layer.2.downsampling_layer.expand_1x1.convolution.weight" in state
    assert load_state(target, state, family_of(target).checkpoint_keys) == "transformers"
    assert all(torch.equal(target.state_dict()[name], tensor) for name, tensor in source.state_dict().items())
    del state["classifier.bias"]
    with pytest.raises(CheckpointError, match=r"missing head\.bias"):
        load_state(target, state, family_of(target).checkpoint_keys)


def test_the_extended_classifier_costs_what_the_papers_two_readings_say() -> None:
    plain = _parameters("mobilevit_s")
    extended = _parameters("exmobilevit_928")
    assert extended == 5_899_976
    convolutions = 96 * 128 + 128 * 160 + 2 * (128 + 160)
    assert extended - plain == 288 * 1000 + convolutions
    assert 288_000 / plain == pytest.approx(0.0516, abs=5e-5)


@pytest.mark.parametrize("name", EX_VARIANTS)
def test_extended_variants_are_named_by_what_the_classifier_reads(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    if name != "exmobilevit_nano":
        assert model.num_features == int(name.rsplit("_", 1)[1])
    assert model.head.in_features == sum(model.config.shortcut_dims)


def test_the_extended_classifier_reads_three_stages() -> None:
    model = create_model("exmobilevit_nano", num_classes=3).eval()
    x = torch.randn(2, 3, 48, 48)
    stages = list(model.run_stages(x))
    expected = model.head(model.ex_shortcut(stages[2:]))
    torch.testing.assert_close(model(x), expected)
    assert model.forward_features(x).shape[1] == model.num_features == 48 + 64 + 256


def test_the_official_crop_changes_the_shallow_means_only() -> None:
    full = create_model("exmobilevit_nano", image_size=256, num_classes=0).eval()
    cropped = create_model("exmobilevit_nano", image_size=256, num_classes=0, official_crop=True).eval()
    cropped.load_state_dict(full.state_dict())
    x = torch.randn(1, 3, 256, 256)
    differs = (full(x) - cropped(x)).abs().amax(0) > 1e-6
    assert differs[: 48 + 64].any()
    assert not differs[48 + 64 :].any()


def test_weights_of_the_plain_model_start_an_extended_one() -> None:
    plain, extended = create_model("mobilevit_nano"), create_model("exmobilevit_nano")
    with pytest.raises(CheckpointError, match="ex_shortcut"):
        load_state(extended, _as_transformers(plain.state_dict()), family_of(extended).checkpoint_keys)
    load_state(extended, _as_transformers(plain.state_dict()), family_of(extended).checkpoint_keys, replace_head=True)
    assert torch.equal(extended.stages[4].blocks[1].fusion.conv.weight, plain.stages[4].blocks[1].fusion.conv.weight)
    assert torch.equal(extended.ex_shortcut.projections[2].conv.weight, plain.final_conv.conv.weight)


def test_wrong_fields_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiples of num_heads=5"):
        create_model("mobilevit_xxs", num_heads=5)
    with pytest.raises(ConfigError, match=r"shortcut_dims=\(8, 8\) need 3 entries"):
        create_model("exmobilevit_576", shortcut_dims=(8, 8))
    with pytest.raises(ConfigError, match="one entry a stage"):
        create_model("mobilevit_xxs", depths=(1, 1))


def test_convolutions_start_by_fan_out() -> None:
    conv = create_model("mobilevit_xxs").final_conv.conv
    assert conv.weight.std().item() == pytest.approx((2 / conv.out_channels) ** 0.5, rel=0.05)
    assert isinstance(create_model("mobilevit_xxs").head_drop, nn.Dropout)
