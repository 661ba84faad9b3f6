"""ViTAE, ViTAEv2 and the plain ViTAE: agreement with a second computation, sizes, checkpoints, drop path."""

from __future__ import annotations

import pytest
import torch
from golden.fill import fill, image
from models import naive_vitae as naive
from torch import Tensor

from vitrail import create_model
from vitrail.core.errors import CheckpointError, ConfigError, ImageSizeError
from vitrail.models import Backbone, family_of
from vitrail.models.checkpoint import load_state

NANOS = ("vitae_nano_stride2", "vitaev2_nano_stride2", "vitae_plain_nano_patch4")


def _state(shapes: naive.Shapes) -> dict[str, Tensor]:
    state = {name: torch.from_numpy(fill(name, shape)) for name, shape in shapes.items()}
    return {name: value.double() if value.is_floating_point() else value for name, value in state.items()}


def _load(model: Backbone, state: dict[str, Tensor]) -> str:
    return load_state(model, state, family_of(model).checkpoint_keys)


def _disagreement(model: Backbone, shapes: naive.Shapes, compute) -> float:
    model = model.double().eval()
    state = _state(shapes)
    assert _load(model, state) == "vitae"
    images = torch.from_numpy(image((2, 3, *model.config.image_size))).double()
    with torch.no_grad():
        ours = model(images)
    theirs = torch.stack([compute(state, model.config, one) for one in images])
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("rel_pos_bias", [False, True])
@pytest.mark.parametrize("image_size", [32, (48, 32)])  # maps of 16x16, 24x16, 8x8, 12x8: windows of 7 need padding
def test_vitaev2_equals_the_second_computation(image_size, rel_pos_bias: bool) -> None:
    model = create_model("vitaev2_nano_stride2", num_classes=7, image_size=image_size, rel_pos_bias=rel_pos_bias)
    assert _disagreement(model, naive.vitaev2_shapes(model.config), naive.vitaev2) < 1e-12


@pytest.mark.parametrize("image_size", [16, (24, 16)])
def test_the_plain_vitae_equals_the_second_computation(image_size) -> None:
    model = create_model("vitae_plain_nano_patch4", num_classes=7, image_size=image_size)
    assert _disagreement(model, naive.plain_shapes(model.config), naive.plain) < 1e-12


def test_buffers_that_we_compute_are_dropped() -> None:
    model = create_model("vitaev2_nano_stride2", num_classes=7)
    state = _state(naive.vitaev2_shapes(model.config))
    for name in ("layers.0.RC.attn.attn", "layers.1.NC.0.attn"):
        state[f"{name}.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    assert _load(model, state) == "vitae"


def test_bias_tables_need_the_option() -> None:
    model = create_model("vitaev2_nano_stride2", num_classes=7)
    state = _state(naive.vitaev2_shapes(create_model("vitaev2_nano_stride2", num_classes=7, rel_pos_bias=True).config))
    with pytest.raises(CheckpointError, match=r"unexpected stages\.0\.blocks\.0\.token_mixer\.rel_pos_bias"):
        _load(model, state)


def test_window_tables_are_resized_to_another_window() -> None:
    small, large = (
        create_model("vitaev2_nano_stride2", num_classes=2, rel_pos_bias=True, window_size=w) for w in (4, 7)
    )
    _load(large, small.state_dict())
    theirs = small.stages[0].downsample.token_mixer.rel_pos_bias.T.reshape(1, 1, 7, 7)
    expected = torch.nn.functional.interpolate(theirs, (13, 13), mode="bicubic").reshape(1, 169).T
    torch.testing.assert_close(large.stages[0].downsample.token_mixer.rel_pos_bias, expected)


def test_position_tables_are_resized_to_another_image() -> None:
    small, large = (create_model("vitae_plain_nano_patch4", num_classes=2, image_size=n) for n in (32, 48))
    _load(large, small.state_dict())
    assert torch.equal(large.pos_embed[:, 0], small.pos_embed[:, 0])


@pytest.mark.parametrize("size", [(16, 48), (32, 80)])
@pytest.mark.parametrize("name", NANOS[:2])
def test_pyramids_take_any_multiple_of_their_stride_at_run_time(name: str, size: tuple[int, int]) -> None:
    model = create_model(name, num_classes=2).eval()
    images = torch.randn(1, 3, *size)
    _, maps = model.forward_intermediates(images)
    for info, level in zip(model.feature_info, maps, strict=True):
        assert level.shape == (1, info.channels, size[0] // info.stride, size[1] // info.stride)


@pytest.mark.parametrize(("name", "divisor"), [("vitae_t", 16), ("vitaev2_s", 32), ("vitae_b", 16)])
def test_other_sizes_are_refused(name: str, divisor: int) -> None:
    with torch.device("meta"), pytest.raises(ImageSizeError, match=rf"225x224 .* multiples of {divisor}"):
        create_model(name, image_size=(225, 224))


def test_stochastic_depth_is_sliced_as_the_authors_slice_it() -> None:
    with torch.device("meta"):
        model = create_model("vitaev2_s", drop_path_rate=0.13)
    rates = [[round(block.drop_path.p, 6) for block in stage.blocks] for stage in model.stages]
    line = [round(0.01 * i, 6) for i in range(14)]
    assert rates == [line[0:2], line[2:4], line[2:10], line[8:10]]


def test_random_features_are_not_trained() -> None:
    model = create_model("vitae_nano_stride2", num_classes=2)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {f"stages.{s}.downsample.token_mixer.w" for s in (0, 1)}
    w = model.stages[0].downsample.token_mixer.w
    torch.testing.assert_close(w @ w.T, w.shape[0] * torch.eye(w.shape[0]))


def test_the_plain_classifier_ignores_the_class_token() -> None:
    model = create_model("vitae_plain_nano_patch4", num_classes=3).eval()
    tokens = torch.randn(2, 65, 96)
    changed = tokens.clone()
    changed[:, 0] += 1
    torch.testing.assert_close(model.forward_head(tokens), model.forward_head(changed))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("vitae_nano_stride2", {"depths": (1,)}, "one entry a stage"),
        ("vitae_nano_stride2", {"reduction_dims": (16, 32, 60)}, "2 x 60 channels; embed_dims says 128"),
        ("vitae_nano_stride2", {"strides": (3, 2, 2)}, "choose 2, 4 or 8"),
        ("vitae_nano_stride2", {"conv_groups": (1, 1, 48)}, "48 groups"),
        ("vitaev2_nano_stride2", {"num_heads": (1,)}, "one entry a stage"),
        ("vitaev2_nano_stride2", {"token_mixers": ("window", "full", "full", "performer")}, "'window' and 'full' only"),
        ("vitaev2_nano_stride2", {"reduction_heads": (1, 1, 2, 5)}, "choose a divisor of 128"),
    ],
)
def test_impossible_configurations_are_refused(name: str, fields: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_model(name, **fields)


def test_the_plain_vitae_without_its_convolutions_is_one_whose_convolutions_answer_zero() -> None:
    usual = create_model("vitae_plain_nano_patch4", num_classes=3).eval()
    bare = create_model("vitae_plain_nano_patch4", num_classes=3, parallel_conv=False).eval()
    state = {name: value for name, value in usual.state_dict().items() if "parallel_conv" not in name}
    bare.load_state_dict(state)
    images = torch.randn(2, 3, 32, 32)
    assert not torch.allclose(usual(images), bare(images), atol=1e-5)
    for block in usual.blocks:
        for parameter in [*block.parallel_conv.children()][-1].parameters():
            torch.nn.init.zeros_(parameter)
    assert torch.allclose(usual(images), bare(images), atol=1e-6)
