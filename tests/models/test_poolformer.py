"""PoolFormer, and any other mixer in its place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vitrail import create_model
from vitrail.core.errors import ConfigError, ImageSizeError, UnknownNameError
from vitrail.layers import TOKEN_MIXERS, Attention, PoolingMixer


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("poolformer_s12", 11_915_176),
        ("poolformer_s24", 21_388_968),
        ("poolformer_s36", 30_862_760),
        ("poolformer_m36", 56_172_520),
        ("poolformer_m48", 73_473_448),
    ],
)
def test_variants_have_the_references_parameters(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("mixer", TOKEN_MIXERS)
def test_structure_or_mixer_is_asked_in_one_line(mixer: str) -> None:
    model = create_model("poolformer_nano", token_mixer=mixer, window_size=3, image_size=96, num_classes=4).eval()
    assert model(torch.randn(1, 3, 96, 96)).shape == (1, 4)


def test_every_stage_can_have_its_own_mixer() -> None:
    mixers = ("pooling", "pooling", "attention", lambda dim: nn.Conv2d(dim, dim, 3, padding=1))
    model = create_model("poolformer_nano", token_mixer=mixers, num_classes=4).eval()
    first = model.stages[0].blocks[0].token_mixer.mixer
    assert isinstance(first, PoolingMixer)
    assert isinstance(model.stages[2].blocks[0].token_mixer.mixer, Attention)
    assert isinstance(model.stages[3].blocks[0].token_mixer, nn.Conv2d)
    assert model(torch.randn(1, 3, 48, 48)).shape == (1, 4)


@pytest.mark.usefixtures("no_shape_checks")  # which would refuse the head before us
def test_wrong_fields_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown token mixer 'pool'"):
        create_model("poolformer_nano", token_mixer="pool")
    with pytest.raises(ConfigError, match="one entry a stage"):
        create_model("poolformer_nano", token_mixer=("pooling", "attention"))
    with pytest.raises(ConfigError, match=r"head='sail' is unknown; choose 'authors' or 'timm'"):
        create_model("poolformer_nano", head="sail")


def test_sizes_are_whole_patches_and_whole_windows() -> None:
    model = create_model("poolformer_s12", image_size=(100, 68), num_classes=2).eval()
    maps = model.forward_intermediates(torch.randn(1, 3, 100, 68), intermediates_only=True)
    assert [tuple(level.shape[2:]) for level in maps] == [(25, 17), (13, 9), (7, 5), (4, 3)]
    with pytest.raises(ImageSizeError, match="multiples of 4; nearest legal sizes: 100x68 or 104x68"):
        model(torch.randn(1, 3, 102, 68))
    with pytest.raises(ImageSizeError, match="multiples of 224"):
        create_model("poolformer_s12", token_mixer="max_sa", image_size=256)


def test_initialisation_is_the_authors() -> None:
    block = create_model("poolformer_s12").stages[0].blocks[0]
    assert block.layer_scale1.eq(1e-5).all()
    assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not block.mlp.fc2.bias.any()
    assert create_model("poolformer_s36").config.layer_scale_init == 1e-6


def test_scales_fold_into_weights() -> None:
    model = create_model("poolformer_nano", num_classes=4).double().eval()
    for stage in model.stages:
        for block in stage.blocks:
            nn.init.normal_(block.layer_scale1)
            nn.init.normal_(block.layer_scale2)
    x = torch.randn(1, 3, 48, 48).double()
    with torch.no_grad():
        expected = model(x)
        for stage in model.stages:
            for block in stage.blocks:
                block.fuse()
                block.fuse()
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
    assert not any("layer_scale" in name for name, _ in model.named_parameters())
