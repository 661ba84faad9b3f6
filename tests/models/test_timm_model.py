"""Models of timm as backbones of ours."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vitrail.contract.checks import CHECKS, check_subject, find_subject
from vitrail.core.errors import CheckpointError, ConfigError, ImageSizeError, UnknownNameError
from vitrail.export.onnx_file import onnx_bytes
from vitrail.export.source import Source
from vitrail.models import create_model, family_of, find_family, list_models
from vitrail.models.registry import is_model
from vitrail.models.timm_model import TimmModel
from vitrail.quantization.graph.capture import joined

timm = pytest.importorskip("timm")

TESTED = ("timm:test_vit", "timm:test_resnet", "timm:test_convnext")
"""A plain transformer of one size, a network with BatchNorm, one with layer norms: timm's own models for tests."""

MODULES = (
    *("resnet18", "resnet26t", "mobilenetv3_small_050", "mobilenetv4_conv_small_050", "mobilenetv4_hybrid_medium"),
    *("efficientnet_lite0", "tf_efficientnetv2_b0", "mnasnet_small", "repvit_m0_9", "fastvit_t8", "efficientvit_b0"),
    *("efficientvit_m0", "shvit_s1", "starnet_s1", "convnext_atto", "convnextv2_atto", "swin_tiny_patch4_window7_224"),
    *("swinv2_cr_tiny_ns_224", "vit_tiny_patch16_224", "vit_small_patch16_dinov3", "vit_small_patch14_dinov2"),
    *("deit_tiny_distilled_patch16_224", "deit3_small_patch16_224", "beit_base_patch16_224", "eva02_tiny_patch14_224"),
    *(
        "levit_128s",
        "mobileone_s0",
        "repvgg_a0",
        "regnetx_002",
        "densenet121",
        "cait_xxs24_224",
        "xcit_nano_12_p16_224",
    ),
    *(
        "pvt_v2_b0",
        "poolformerv2_s12",
        "caformer_s18",
        "maxvit_rmlp_pico_rw_256",
        "coatnet_nano_rw_224",
        "mobilevit_xxs",
    ),
    *(
        "mobilevit_xxs",
        "mobilevitv2_050",
        "edgenext_xx_small",
        "efficientformer_l1",
        "efficientformerv2_s0",
        "tiny_vit_5m_224",
    ),
    *("ghostnetv2_100", "hgnetv2_b0", "inception_next_atto", "mambaout_femto", "mixer_s32_224", "nextvit_small"),
)
"""Architectures from as many of timm's files."""


@pytest.fixture(params=TESTED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


FILES = ("torch.export agrees", "the ONNX file agrees in every runtime")
FAST = [check for check in CHECKS if not check.slow and check.name not in FILES]


def test_it_keeps_the_promises_of_a_backbone(name: str) -> None:
    results = list(check_subject(find_subject(name), checks=FAST))
    assert [f"{one.check}: {one.reason}" for one in results if one.result == "failed"] == []
    assert sum(one.result == "ok" for one in results) >= 8


def test_the_numbers_are_those_of_timm(name: str, tmp_path: Path) -> None:
    theirs = timm.create_model(name.removeprefix("timm:")).eval()
    file = tmp_path / "model.safetensors"
    save_file(theirs.state_dict(), file)
    ours = create_model(name, weights=file).eval()
    x = torch.randn(2, 3, *ours.config.image_size)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
        expected = theirs.forward_intermediates(x, intermediates_only=True)
        torch.testing.assert_close(ours.forward_intermediates(x, intermediates_only=True), expected, rtol=0, atol=0)


def test_its_own_weights_load_again(name: str, tmp_path: Path) -> None:
    model = create_model(name, num_classes=3).eval()
    file = tmp_path / "own.safetensors"
    save_file(model.state_dict(), file)
    again = create_model(name, num_classes=3, weights=file).eval()
    x = torch.randn(1, 3, *model.config.image_size)
    with torch.no_grad():
        assert torch.equal(model(x), again(x))


def test_a_table_of_positions_is_resized_by_the_rule_of_timm(tmp_path: Path) -> None:
    theirs = timm.create_model("test_vit").eval()
    file = tmp_path / "model.safetensors"
    save_file(theirs.state_dict(), file)
    ours = create_model("timm:test_vit", weights=file, image_size=96).eval()
    theirs.set_input_size(img_size=(96, 96))
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_another_number_of_classes_needs_a_word(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), file)
    with pytest.raises(CheckpointError, match="replace_head=True"):
        create_model("timm:test_resnet", num_classes=3, weights=file)
    model = create_model("timm:test_resnet", num_classes=3, weights=file, replace_head=True).eval()
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 3)


def test_names_with_a_tag_choose_weights() -> None:
    name = "timm:vit_tiny_patch16_224.augreg_in21k"
    assert is_model(name)
    assert [entry.tag for entry in find_family(name).weights[name]] == ["augreg_in21k"]
    entries = find_family("timm:vit_tiny_patch16_224").weights["timm:vit_tiny_patch16_224"]
    assert entries[0].hub_id == "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    assert entries[0].preprocessing.mean == (0.5, 0.5, 0.5)
    with pytest.raises(UnknownNameError, match=r"no weights 'nonsense'.*augreg_in21k"):
        create_model("timm:vit_tiny_patch16_224.nonsense")


def test_unknown_names_get_near_ones() -> None:
    assert not is_model("timm:resnet1")
    with pytest.raises(UnknownNameError, match="timm:resnet18"):
        create_model("timm:resnet1")
    with pytest.raises(UnknownNameError):
        create_model("timm:")


def test_patterns_list_what_timm_has() -> None:
    found = list_models("timm:repvit_m0*")
    assert "timm:repvit_m0_9" in found
    assert list_models("timm:nothing*") == []
    assert not [name for name in list_models() if name.startswith("timm:")]


def test_what_an_architecture_does_not_take_is_said() -> None:
    model = create_model("timm:repvit_m0_9", num_classes=2, drop_path_rate=0.1)
    assert model.remarks == ("timm:repvit_m0_9 takes no drop_path_rate",)
    with pytest.raises(ConfigError, match=r"cannot be built.*nonsense"):
        create_model("timm:test_vit", options={"nonsense": 1})


def test_other_sizes_are_refused_where_the_network_has_one() -> None:
    model = create_model("timm:test_vit", num_classes=2)
    with pytest.raises(ImageSizeError, match="64x64"):
        model(torch.randn(1, 3, 64, 64))
    assert model.fixed_image_size
    assert not create_model("timm:test_resnet").fixed_image_size


@pytest.mark.parametrize(
    ("architecture", "fields"),
    [
        ("samvit_base_patch16_224", {"image_size": 64, "options": {"depth": 2}}),  # its norm is a neck
        ("hiera_tiny_224", {}),  # it refuses a norm, and indices are not its second argument
        ("mvitv2_tiny", {}),  # it names modules that it lacks
    ],
)
def test_levels_of_odd_networks_are_as_announced_with_and_without_the_norm(
    architecture: str, fields: dict[str, object]
) -> None:
    with torch.device("meta"):
        model = create_model(f"timm:{architecture}", num_classes=2, **fields).eval()
        images = torch.zeros(1, 3, *model.config.image_size)
        for norm in (False, True):
            (level,) = model.forward_intermediates(images, [-1], norm=norm, intermediates_only=True)
            assert level.shape[1] == model.feature_info[-1].channels
    assert {level.name for level in model.feature_info} <= {name for name, _ in model.named_modules()}


def test_a_size_that_is_built_and_does_not_pass_is_refused_at_once() -> None:
    with torch.device("meta"), pytest.raises(ImageSizeError, match=r"image size 64x64 .*efficientformer_l1.* 224x224"):
        create_model("timm:efficientformer_l1", num_classes=2, image_size=64)
    torch.manual_seed(0)
    ours = create_model("timm:test_resnet", num_classes=2, image_size=64)
    torch.manual_seed(0)
    theirs = timm.create_model("test_resnet", num_classes=2)
    assert ours.training
    for name, tensor in theirs.state_dict().items():  # the trial changes neither weights nor statistics
        assert torch.equal(ours.network.state_dict()[name], tensor)


@pytest.mark.parametrize("architecture", ["shvit_s1", "efficientvit_m0"])
def test_networks_that_cannot_name_a_classifier_they_lack_can_lack_it(architecture: str) -> None:
    with torch.device("meta"):
        model = create_model(f"timm:{architecture}", num_classes=0).eval()
        images = torch.zeros(1, 3, *model.config.image_size)
        assert model(images).shape == (1, model.num_features)
        model.reset_classifier(3)
        assert model(images).shape == (1, 3)
        assert any(name.startswith(model.head_prefixes) for name, _ in model.named_parameters())


def test_branches_are_joined_for_inference() -> None:
    model = create_model("timm:mobileone_s0", num_classes=2, image_size=64).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, count = model(x), len(list(model.parameters()))
        torch.testing.assert_close(model.fuse_for_inference()(x), expected, rtol=1e-3, atol=1e-4)
    assert len(list(model.parameters())) < count / 2


def test_branches_are_joined_in_float64_and_the_model_keeps_its_own() -> None:
    model = create_model("timm:mobileone_s0", num_classes=2, image_size=64)
    count = len(list(model.parameters()))
    fused = joined(nn.Sequential(model))[0]
    assert isinstance(fused, TimmModel)
    assert (fused.fused, fused.has_branches, model.has_branches) == (True, False, True)
    assert len(list(fused.parameters())) < count / 2
    assert len(list(model.parameters())) == count
    assert {parameter.dtype for parameter in fused.parameters()} == {torch.float32}
    assert joined(fused) is fused
    plain = create_model("timm:test_vit", num_classes=2)
    assert not plain.has_branches
    assert plain.fuse_for_inference() is plain


@pytest.mark.slow
def test_files_have_the_joined_branches() -> None:
    model = create_model("timm:mobileone_s0", num_classes=2, image_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    layers = sum(isinstance(one, nn.Conv2d) for one in model.modules())
    wanted = sum(isinstance(one, nn.Conv2d) for one in joined(model).modules())
    nodes = onnx.load_from_string(onnx_bytes(Source(model=model, images=images))).graph.node
    assert sum(node.op_type == "Conv" for node in nodes) == wanted < layers / 2
    assert not [node for node in nodes if node.op_type == "BatchNormalization"]


def test_grey_images_take_the_sum_of_the_kernels(tmp_path: Path) -> None:
    theirs = timm.create_model("test_resnet").eval()
    file = tmp_path / "model.safetensors"
    save_file(theirs.state_dict(), file)
    ours = create_model("timm:test_resnet", in_chans=1, weights=file).eval()
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_a_model_knows_its_family() -> None:
    model = create_model("timm:test_vit", num_classes=2)
    assert isinstance(model, TimmModel)
    assert family_of(model).name == "timm"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", MODULES)
def test_every_kind_of_module_keeps_the_promises(architecture: str) -> None:
    subject = find_subject(f"timm:{architecture}")
    results = list(check_subject(subject))
    assert [f"{one.check}: {one.reason}" for one in results if one.result == "failed"] == []
