"""What is captured is what the model used, where it used it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrail.explain.attention_maps import AttentionMap, attention_probabilities, capture_attention
from vitrail.explain.attribution import mean_attention_distance
from vitrail.explain.places import token_grid
from vitrail.layers import Attention, GlobalSparseAttention, MobileViTBlock, WindowAttention, cell_centres
from vitrail.layers.attention import merge_heads, split_qkv
from vitrail.layers.axial_attention import AxialAttention
from vitrail.layers.max_sa import GridAttention
from vitrail.layers.residual_attention import PooledResidualAttention
from vitrail.models import create_model


@pytest.mark.parametrize("name", ["vit_nano_patch4", "revit_nano_patch4", "edgevit_nano_stride2"])
def test_a_captured_model_computes_the_same(name: str) -> None:
    model = create_model(name, num_classes=5).eval()
    images = torch.randn(2, 3, 32, 32)
    plain = model(images)
    with capture_attention(model) as maps:
        assert torch.equal(model(images), plain)
    assert maps
    assert torch.equal(model(images), plain)
    count = len(maps)
    model(images)
    assert len(maps) == count
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_hooks_are_removed_after_an_error() -> None:
    model = create_model("vit_nano_patch4", num_classes=0)
    with pytest.raises(RuntimeError, match="stop"), capture_attention(model):
        raise RuntimeError("stop")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_captured_probabilities_are_the_softmax_by_hand() -> None:
    layer = Attention(12, 3).eval()
    x = torch.randn(2, 7, 12)
    with capture_attention(layer) as maps:
        out = layer(x)
    q, k, v = split_qkv(layer.qkv(x), 3)
    expected = (q @ k.transpose(-2, -1) / 2.0).softmax(-1)
    torch.testing.assert_close(maps[0].probabilities[:, 0], expected)
    torch.testing.assert_close(layer.proj(merge_heads(maps[0].probabilities[:, 0] @ v)), out)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": torch.randn(4, 4)},
        {"attn_mask": torch.tensor([[True, True, False, True]])},
    ],
)
def test_probabilities_are_the_kernels(options: dict[str, Any]) -> None:
    q, k = torch.randn(2, 1, 3, 4, 8)
    eye = torch.eye(4).expand(1, 3, 4, 4)
    torch.testing.assert_close(
        attention_probabilities(q, k, **options), F.scaled_dot_product_attention(q, k, eye, **options)
    )


def test_a_vit_has_a_map_a_layer_with_the_class_token_nowhere() -> None:
    model = create_model("vit_nano_patch4", num_classes=5).eval()
    with capture_attention(model) as maps:
        model(torch.randn(2, 3, 32, 32))
    assert [entry.path for entry in maps] == [f"blocks.{i}.token_mixer" for i in range(6)]
    places = maps[0].places
    assert places is not None
    assert places.layout == "tokens"
    assert places.keys[0, 0].isnan().all()
    assert places.keys[0, 1].tolist() == [2.0, 2.0]
    assert places.keys[0, -1].tolist() == [30.0, 30.0]


def test_residual_attention_is_captured_before_and_after_mixing() -> None:
    model = create_model("revit_nano_patch4", num_classes=5).eval()
    with capture_attention(model) as maps:
        model(torch.randn(1, 3, 32, 32))
    assert len(maps) == 6
    assert all(entry.own is not None for entry in maps)
    torch.testing.assert_close(maps[0].own, maps[0].probabilities)  # nothing to mix with yet
    alpha = model.alpha.detach()
    logits = [entry.own.log() for entry in maps if entry.own is not None]
    mixed = logits[0]
    for own, entry in zip(logits[1:], maps[1:], strict=True):
        mixed = alpha * own + (1 - alpha) * mixed
        torch.testing.assert_close(mixed.softmax(-1), entry.probabilities, rtol=1e-3, atol=1e-5)


class Looking(nn.Module):
    """A stem that halves the image, and one mixer on the map."""

    def __init__(self, mixer: nn.Module, *, channels_first: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.mixer = mixer
        self.channels_first = channels_first

    def forward(self, images: torch.Tensor) -> Any:
        x = self.stem(images)
        return self.mixer(x if self.channels_first else x.permute(0, 2, 3, 1))


def looked(mixer: nn.Module, height: int = 8, width: int = 8, *, channels_first: bool = False) -> AttentionMap:
    """The one map of a mixer on a map of so many tokens, in an image of two pixels a token."""
    model = Looking(mixer, channels_first=channels_first).eval()
    with capture_attention(model) as maps:
        model(torch.randn(2, 3, 2 * height, 2 * width))
    (entry,) = maps
    return entry


CASES: dict[str, tuple[Callable[[], nn.Module], int, int, list[list[float]]]] = {
    # layout: mixer, groups, tokens of a group, the first two places of the first group
    "grid": (lambda: GridAttention(8, 2, 4), 16, 4, [[1, 1], [1, 9]]),
    "windows": (lambda: WindowAttention(8, 2, 4), 4, 16, [[1, 1], [1, 3]]),
    "row": (lambda: AxialAttention(8, 2, "row"), 8, 8, [[1, 1], [1, 3]]),
    "column": (lambda: AxialAttention(8, 2, "column"), 8, 8, [[1, 1], [3, 1]]),
    "delegates": (lambda: GlobalSparseAttention(8, 2, 4), 1, 4, [[1, 1], [1, 9]]),
}


@pytest.mark.parametrize("layout", CASES)
def test_groups_and_places_follow_the_module(layout: str) -> None:
    build, groups, tokens, first = CASES[layout]
    entry = looked(build())
    assert entry.places is not None
    assert entry.places.layout == layout
    assert entry.probabilities.shape == (2, groups, 2, tokens, tokens)
    assert entry.places.keys.shape == (groups, tokens, 2)
    assert entry.places.keys[0, :2].tolist() == first
    covered = {tuple(place) for place in entry.places.keys.flatten(0, 1).tolist()}
    assert len(covered) == groups * tokens


def test_window_heads_are_not_mistaken_for_windows() -> None:
    mixer = WindowAttention(8, 2, 4)
    entry = looked(mixer)
    nn.init.zeros_(mixer.qkv.weight)
    with torch.no_grad():
        mixer.qkv.bias.zero_()
    uniform = looked(mixer)
    assert entry.places is not None
    assert uniform.places is not None
    distance = mean_attention_distance(uniform.probabilities, uniform.places.queries, uniform.places.keys)
    cells = cell_centres((4, 4), (8, 8)).flatten(0, 1)
    torch.testing.assert_close(distance, torch.cdist(cells, cells).mean().expand(2, 2))


def test_padding_of_windows_has_no_place_and_shifted_windows_keep_theirs() -> None:
    padded = looked(WindowAttention(8, 2, 4), 6, 6)
    assert padded.places is not None
    placed = padded.places.keys[~padded.places.keys.isnan().any(-1)]
    assert sorted(placed.tolist()) == sorted(cell_centres((6, 6), (12, 12)).flatten(0, 1).tolist())
    shifted = looked(WindowAttention(8, 2, 4, shift_size=2))
    assert shifted.places is not None
    assert shifted.places.keys[0, 0].tolist() == [5.0, 5.0]


def test_pooled_keys_are_further_apart_than_queries() -> None:
    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = PooledResidualAttention(8, 8, 2, (8, 8), stride_q=1, stride_kv=4)

        def forward(self, x: torch.Tensor) -> Any:
            return self.attention(x, None, 0.5)

    entry = looked(Mixer())
    assert entry.probabilities.shape == (2, 1, 2, 64, 4)
    assert entry.places is not None
    assert entry.places.keys[0].tolist() == [[4, 4], [4, 12], [12, 4], [12, 12]]
    assert entry.places.queries[0, 0].tolist() == [1, 1]


def test_mobilevit_attends_over_every_second_token() -> None:
    entry = looked(MobileViTBlock(8, 8, 1, num_heads=2), channels_first=True)
    assert entry.probabilities.shape == (2, 4, 2, 16, 16)
    assert entry.places is not None
    assert entry.places.keys[0, :2].tolist() == [[1, 1], [1, 5]]


def test_another_librarys_unfused_attention_is_seen() -> None:
    class Unfused(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            heads = x.unflatten(-1, (2, -1)).transpose(1, 2)
            return F.softmax(heads @ heads.transpose(-2, -1), dim=-1) @ heads

    model = Unfused()
    with capture_attention(model) as maps:
        model(torch.randn(2, 9, 8))
    assert maps[0].probabilities.shape == (2, 1, 2, 9, 9)
    assert maps[0].places is None


@pytest.mark.parametrize(
    ("count", "size", "found"),
    [
        (197, (224, 224), (1, (14, 14))),
        (196, (224, 224), (0, (14, 14))),
        (8, (32, 64), (0, (2, 4))),
        (9, (32, 64), (1, (2, 4))),
        (7, (32, 32), None),
    ],
)
def test_the_grid_of_a_sequence_has_the_shape_of_the_image(
    count: int, size: tuple[int, int], found: tuple[int, tuple[int, int]] | None
) -> None:
    assert token_grid(count, size, (0, 1)) == found
