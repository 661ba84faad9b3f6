"""ReViT, ReSwin and ReMViT: agreement with a second computation, sizes, checkpoints."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from golden.fill import fill, image
from models import naive_revit as naive
from torch import Tensor, nn

from vitrail import create_model
from vitrail.core.errors import CheckpointError, ConfigError, ImageSizeError
from vitrail.layers import resize_rel_pos, resize_rel_pos_bias
from vitrail.models import Backbone, family_of
from vitrail.models.checkpoint import load_state


def _state(shapes: naive.Shapes) -> dict[str, Tensor]:
    return {name: torch.from_numpy(fill(name, shape)).double() for name, shape in shapes.items()}


def _load(model: Backbone, state: dict[str, Tensor]) -> str:
    return load_state(model, state, family_of(model).checkpoint_keys)


def _disagreement(model: Backbone, shapes: naive.Shapes, compute) -> float:
    model = model.double().eval()
    state = _state(shapes)
    assert _load(model, state) == "adiko"
    images = torch.from_numpy(image((2, 3, *model.config.image_size))).double()
    with torch.no_grad():
        ours = model(images)
    theirs = torch.stack([compute(state, model.config, one) for one in images])
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("learnable_alpha", [False, True])
def test_revit_equals_the_second_computation(class_token: bool, learnable_alpha: bool) -> None:
    fields = {"class_token": class_token, "learnable_alpha": learnable_alpha}
    model = create_model("revit_nano_patch4", num_classes=7, image_size=(16, 24), **fields)
    shapes = naive.revit_shapes(model.config, class_token, learnable_alpha)
    assert _disagreement(model, shapes, naive.revit) < 1e-13


@pytest.mark.parametrize("image_size", [48, (24, 48), 24])
def test_reswin_equals_the_second_computation(image_size) -> None:
    model = create_model("reswin_nano_patch2", num_classes=7, image_size=image_size)
    assert _disagreement(model, naive.reswin_shapes(model.config), naive.reswin) < 1e-13


def test_reswin_with_a_learned_alpha_equals_the_second_computation() -> None:
    model = create_model("reswin_nano_patch2", num_classes=7, image_size=24, learnable_alpha=True)
    shapes = {"alpha": (1,)} | naive.reswin_shapes(model.config)
    assert _disagreement(model, shapes, naive.reswin) < 1e-13


@pytest.mark.parametrize("image_size", [16, (16, 24)])
def test_remvit_equals_the_second_computation(image_size) -> None:
    model = create_model("remvit_nano_stride2", num_classes=7, image_size=image_size)
    assert _disagreement(model, naive.remvit_shapes(model.config), naive.remvit) < 1e-13


def test_remvit_t_has_the_blocks_of_the_paper() -> None:
    with torch.device("meta"):
        model = create_model("remvit_t")
    rows = [block.token_mixer.rel_pos_h.shape[0] for block in model.blocks]
    assert rows == [111, 55, 55, 55, 27, 27, 27, 27, 27, 13]
    assert [block.token_mixer.num_heads for block in model.blocks] == [1, 2, 2, 4, 4, 4, 4, 4, 8, 8]
    assert [i for i, block in enumerate(model.blocks) if block.proj is not None] == [1, 3, 8]
    carried = []
    for block in model.blocks:
        block.register_forward_hook(lambda _m, _i, out: carried.append(out[1]))
    model(torch.empty(1, 3, 224, 224, device="meta"))
    shapes = [tuple(logits.values.shape[2:]) for logits in carried[:-1]]
    four = [(196, 196)] * 4
    assert shapes == [(3136, 196), (784, 784), (784, 196), (196, 784), *four, (49, 196)]
    assert carried[-1] is None


def test_an_unexpected_alpha_is_named_and_can_be_had() -> None:
    model = create_model("reswin_nano_patch2", num_classes=7)
    state = _state({"alpha": (1,)} | naive.reswin_shapes(model.config))
    with pytest.raises(CheckpointError, match="unexpected alpha"):
        _load(model, state)
    learned = create_model("reswin_nano_patch2", num_classes=7, learnable_alpha=True)
    _load(learned, state)
    assert learned.alpha.item() == pytest.approx(state["alpha"].item())


def test_a_missing_alpha_is_named() -> None:
    model = create_model("revit_nano_patch4", num_classes=7)
    with pytest.raises(CheckpointError, match="missing alpha"):
        _load(model, _state(naive.revit_shapes(model.config, False, False)))


def test_buffers_that_we_compute_are_dropped() -> None:
    model = create_model("reswin_nano_patch2", num_classes=7)
    state = _state(naive.reswin_shapes(model.config))
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 9, 9)
    state["layers.2.blocks.0.attn.relative_position_index"] = torch.zeros(9, 9, dtype=torch.int64)
    assert _load(model, state) == "adiko"


def test_a_single_alpha_serves_the_whole_model_and_is_trained() -> None:
    model = create_model("revit_nano_patch4", num_classes=3)
    assert [name for name, _ in model.named_parameters() if "alpha" in name] == ["alpha"]
    assert model.alpha.item() == 0.5
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert model.alpha.grad.abs().item() > 0
    assert not [
        name for name in create_model("revit_nano_patch4", learnable_alpha=False).state_dict() if "alpha" in name
    ]


def test_alpha_one_is_a_plain_vit() -> None:
    revit = create_model("revit_nano_patch4", num_classes=5, alpha=1.0, learnable_alpha=False).eval()
    vit = create_model(
        "vit_nano_patch4",
        num_classes=5,
        embed_dim=96,
        num_heads=3,
        depth=6,
        class_token=False,
        global_pool="avg",
    ).eval()
    table = "pos_embed.table"
    vit.load_state_dict({table if name == "pos_embed" else name: value for name, value in revit.state_dict().items()})
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(revit(images), vit(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["revit_nano_patch4", "remvit_nano_stride2"])
def test_sizes_that_tables_are_not_built_for_are_refused(name: str) -> None:
    model = create_model(name, num_classes=2)
    side = model.config.image_size[0] * 2
    with pytest.raises(ImageSizeError, match=rf"build it with image_size=\({side}, {side}\)"):
        model(torch.zeros(1, 3, side, side))
    with pytest.raises(ImageSizeError, match="nearest legal sizes"):
        create_model(name, image_size=50)


def test_reswin_takes_whole_windows_only() -> None:
    model = create_model("reswin_nano_patch2", num_classes=2)
    assert model(torch.zeros(1, 3, 72, 24)).shape == (1, 2)
    with pytest.raises(ImageSizeError, match=r"50x48 .* multiples of 24"):
        model(torch.zeros(1, 3, 50, 48))
    with pytest.raises(ImageSizeError, match="multiples of 224"):
        create_model("reswin_t", image_size=256)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("revit_nano_patch4", {"num_heads": 5}, "num_heads=5"),
        ("reswin_nano_patch2", {"depths": (1, 1)}, "one entry a stage"),
        ("remvit_nano_stride2", {"stride_kv": 3}, "power of 2"),
        ("remvit_nano_stride2", {"head_dim": 20}, "head_dim=20"),
        ("remvit_nano_stride2", {"depths": (1,)}, "one entry a stage"),
    ],
)
def test_impossible_configurations_are_refused(name: str, fields: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_model(name, **fields)


def test_position_tables_are_resized_to_another_image() -> None:
    small, large = (create_model("revit_nano_patch4", num_classes=2, image_size=n, class_token=True) for n in (32, 48))
    _load(large, small.state_dict())
    assert torch.equal(large.pos_embed[:, 0], small.pos_embed[:, 0])
    assert large.pos_embed.shape == (1, 145, 96)


def test_relative_tables_are_resized_to_another_image() -> None:
    small, large = (create_model("remvit_nano_stride2", num_classes=2, image_size=n) for n in (16, 48))
    _load(large, small.state_dict())
    ours, theirs = large.blocks[0].token_mixer.rel_pos_h, small.blocks[0].token_mixer.rel_pos_h
    torch.testing.assert_close(ours, resize_rel_pos(theirs, ours.shape[0]))


def test_window_tables_are_resized_to_another_window() -> None:
    small, large = (create_model("reswin_nano_patch2", num_classes=2, image_size=96, window_size=w) for w in (3, 6))
    _load(large, small.state_dict())
    ours, theirs = (m.stages[1].blocks[0].token_mixer.rel_pos_bias for m in (large, small))
    torch.testing.assert_close(ours, resize_rel_pos_bias(theirs, 121))


def test_a_table_of_other_heads_does_not_fit() -> None:
    model = create_model("reswin_nano_patch2", num_classes=2)
    state = model.state_dict()
    name = "stages.0.blocks.0.token_mixer.rel_pos_bias"
    state[name] = torch.zeros(25, 3)
    with pytest.raises(CheckpointError, match=f"{name} is 25x3 in the file and 25x1"):
        _load(model, state)


def test_logits_are_released_where_nobody_reads_them() -> None:
    model = create_model("revit_nano_patch4", num_classes=2).eval()
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda _m, _i, out: seen.append(out[1]))
    model(torch.randn(1, 3, 32, 32))
    assert [logits is None for logits in seen] == [False] * 5 + [True]


def test_a_config_builds_the_same_model_again() -> None:
    model = create_model("remvit_nano_stride2", num_classes=2)
    again = type(model)(replace(model.config, num_classes=3))
    assert {n: p.shape for n, p in model.named_parameters() if not n.startswith("head")} == {
        n: p.shape for n, p in again.named_parameters() if not n.startswith("head")
    }
    assert isinstance(again.head, nn.Linear)
