"""Our backbones under timm's names, and in the libraries that build on timm."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vitrail.core.errors import ConfigError, ImageSizeError, MissingDependencyError
from vitrail.integrations.timm import register
from vitrail.models import FAMILIES, create_model, list_models

timm = pytest.importorskip("timm")

SMALL = {family.name: next(name for name in family.ours if "nano" in name) for family in FAMILIES.values()}


@pytest.fixture(autouse=True)
def _registered() -> None:
    register()


def images(name: str, batch: int = 2) -> torch.Tensor:
    variant = next(family.variants[name] for family in FAMILIES.values() if name in family.variants)
    return torch.randn(batch, 3, *variant.image_size)


def test_every_variant_is_there_and_registering_again_changes_nothing() -> None:
    names = [f"vitrail_{name}" for name in list_models()]
    entrypoint = timm.model_entrypoint(names[0])
    assert register() == names
    assert set(timm.list_models("vitrail_*")) == set(names)
    assert timm.model_entrypoint(names[0]) is entrypoint


@pytest.mark.parametrize("family", SMALL)
def test_features_are_the_levels(family: str) -> None:
    name = SMALL[family]
    model = timm.create_model(f"vitrail_{name}", features_only=True).eval()
    ours = model.model.backbone
    x = images(name)
    maps = model(x)
    assert model.feature_info.channels() == [info.channels for info in ours.feature_info]
    assert model.feature_info.reduction() == [info.stride for info in ours.feature_info]
    for level, channels, stride in zip(
        maps, model.feature_info.channels(), model.feature_info.reduction(), strict=True
    ):
        assert level.shape == (2, channels, -(-x.shape[2] // stride), -(-x.shape[3] // stride))
    for path in model.feature_info.module_name():
        model.model.get_submodule(path)
    torch.testing.assert_close(maps, ours.forward_intermediates(x, intermediates_only=True))


@pytest.mark.parametrize("family", SMALL)
def test_the_last_level_trains_everything_before_it(family: str) -> None:
    model = timm.create_model(f"vitrail_{SMALL[family]}", features_only=True, out_indices=(0, -1))
    maps = model(images(SMALL[family]))
    assert len(maps) == 2
    sum(level.square().mean() for level in maps).backward()
    backbone = model.model.backbone
    grouped = tuple(prefix for group in backbone.layer_groups() for prefix in group)
    wanted = [n for n, p in backbone.named_parameters() if n.startswith(grouped) and p.requires_grad]
    assert wanted
    silent = [n for n in wanted if backbone.get_parameter(n).grad is None]
    assert not silent


def test_chosen_levels_and_arguments() -> None:
    model = timm.create_model("vitrail_edgevit_nano_stride2", features_only=True, out_indices=(1, -1), in_chans=1)
    assert model.feature_info.out_indices == (1, 3)
    assert [level.shape[1] for level in model(torch.zeros(1, 1, 32, 48))] == model.feature_info.channels()
    last = timm.create_model("vitrail_vit_nano_patch4", features_only=True, out_indices=2, img_size=48)
    assert last.feature_info.out_indices == (4, 5)
    assert last(torch.zeros(1, 3, 48, 48))[0].shape == (1, 128, 12, 12)
    with pytest.raises(ConfigError, match="4 levels"):
        timm.create_model("vitrail_edgevit_nano_stride2", features_only=True, out_indices=(4,))
    with pytest.raises(ConfigError, match="no field 'output_stride'"):
        timm.create_model("vitrail_edgevit_nano_stride2", output_stride=8)
    with pytest.raises(ConfigError, match="HF_HUB_CACHE"):
        timm.create_model("vitrail_edgevit_nano_stride2", cache_dir="elsewhere")


def test_a_classifier_is_timms_in_every_way_that_timm_has() -> None:
    model = timm.create_model("vitrail_mobilevit_nano", num_classes=5, drop_path_rate=0.1).eval()
    x = images("mobilevit_nano")
    features = model.forward_features(x)
    torch.testing.assert_close(model.forward_head(features), model(x))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)
    final, nhwc = model.forward_intermediates(x, [1], output_fmt="NHWC")
    torch.testing.assert_close(final, features)
    assert nhwc[0].shape[-1] == model.feature_info[1]["num_chs"]
    with pytest.raises(ConfigError, match="return_prefix_tokens"):
        model.forward_intermediates(x, return_prefix_tokens=True)
    assert model.get_classifier().out_features == model.num_classes == 5
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    with pytest.raises(ConfigError, match="global_pool='max'"):
        model.reset_classifier(3, global_pool="max")
    assert model.no_weight_decay() <= {n for n, _ in model.named_parameters()}
    model.set_grad_checkpointing()
    assert model.backbone.grad_checkpointing


def test_timm_knows_what_the_weights_expect() -> None:
    cfg = timm.get_pretrained_cfg("vitrail_maxvit_base.in21k_ft_in1k")
    assert (cfg.hf_hub_id, cfg.tag) == ("timm/maxvit_base_tf_384.in21k_ft_in1k", "in21k_ft_in1k")
    assert cfg.mean == cfg.std == (0.5, 0.5, 0.5)
    assert timm.get_pretrained_cfg("vitrail_vit_tiny_patch16").tag == "augreg_in21k_ft_in1k"
    pretrained = timm.list_models("vitrail_*", pretrained=True)
    assert "vitrail_poolformer_s12.sail_in1k" in pretrained
    assert not [name for name in pretrained if "edgevit" in name]
    config = timm.data.resolve_model_data_config(timm.create_model("vitrail_mobilevit_nano"))
    assert config["mean"] == (0.0, 0.0, 0.0)
    assert config["input_size"] == (3, *images("mobilevit_nano").shape[2:])


FIXED = {"vit", "revit", "remvit", "maxvit", "reswin", "vitae_plain"}


@pytest.mark.parametrize("family", SMALL)
def test_timm_knows_which_models_take_one_size(family: str) -> None:
    for name in FAMILIES[family].variants:
        assert timm.get_pretrained_cfg(f"vitrail_{name}").fixed_input_size is (family in FIXED)
    model = timm.create_model(f"vitrail_{SMALL[family]}").eval()
    assert model.pretrained_cfg["fixed_input_size"] is (family in FIXED)
    step = max(info["reduction"] for info in model.feature_info)
    larger = torch.zeros(1, 3, *(side + step for side in model.pretrained_cfg["input_size"][1:]))
    if family in FIXED:
        with pytest.raises(ImageSizeError):
            model(larger)
    else:
        model(larger)


def test_a_field_that_needs_whole_windows_fixes_the_size() -> None:
    model = timm.create_model("vitrail_poolformer_nano", token_mixer="max_sa", window_size=3)
    assert model.pretrained_cfg["fixed_input_size"] is True


def test_weights_of_a_file_and_of_the_hub(tmp_path: Path) -> None:
    trained = create_model("poolformer_nano", num_classes=4)
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    model = timm.create_model(
        "vitrail_poolformer_nano",
        pretrained=True,
        features_only=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "w.safetensors")},
    )
    torch.testing.assert_close(model.model.backbone.stem.weight, trained.stem.weight)
    with pytest.raises(ValueError, match="nobody has trained"):
        timm.create_model("vitrail_poolformer_nano", pretrained=True)
    with pytest.raises(ValueError, match="has no pretrained weights 'wrong'"):
        timm.create_model("vitrail_poolformer_s12.wrong", pretrained=True)


def test_a_runs_weights_load_as_they_are(tmp_path: Path) -> None:
    trained = create_model("poolformer_nano", num_classes=4)
    save_file({f"backbone.{name}": tensor for name, tensor in trained.state_dict().items()}, tmp_path / "w.safetensors")
    model = timm.create_model("vitrail_poolformer_nano", num_classes=4, checkpoint_path=str(tmp_path / "w.safetensors"))
    assert torch.equal(model.backbone.head.weight, trained.head.weight)


def test_timm_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm.models", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'vitrail\[timm\]'"):
        register()
