"""Every measure on an input whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from vitrail.core.errors import ConfigError
from vitrail.explain.attribution import (
    attention_rollout,
    field_share,
    grad_cam,
    input_gradient,
    mean_attention_distance,
)
from vitrail.layers import cell_centres


def test_identity_attention_rolls_out_to_the_identity() -> None:
    layers = [torch.eye(5).expand(2, 3, 5, 5)] * 4
    for identity in (True, False):
        assert torch.equal(attention_rollout(layers, identity=identity), torch.eye(5).expand(2, 5, 5))


def test_rollout_multiplies_later_layers_from_the_left() -> None:
    first, second = (torch.rand(1, 1, 4, 4).softmax(-1) for _ in range(2))
    torch.testing.assert_close(attention_rollout([first, second], identity=False)[0], second[0, 0] @ first[0, 0])
    half = (first[0, 0] + torch.eye(4)) / 2
    torch.testing.assert_close(attention_rollout([first])[0], half)
    torch.testing.assert_close(attention_rollout([first, second]).sum(-1), torch.ones(1, 4))


@pytest.mark.parametrize("shapes", [(), ((4, 4), (2, 2)), ((4, 2),)])
def test_rollout_refuses_layers_that_do_not_chain(shapes: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ConfigError, match="all tokens"):
        attention_rollout([torch.rand(1, 1, *shape) for shape in shapes])


def test_identity_attention_has_distance_zero_and_uniform_attention_the_mean_distance() -> None:
    centres = cell_centres((3, 4), (48, 64)).flatten(0, 1)[None]
    eye = torch.eye(12).expand(2, 1, 3, 12, 12)
    assert torch.equal(mean_attention_distance(eye, centres, centres), torch.zeros(2, 3))
    cells = [(row * 16, column * 16) for row in range(3) for column in range(4)]
    expected = sum(math.dist(a, b) for a in cells for b in cells) / 144
    uniform = torch.full((2, 1, 3, 12, 12), 1 / 12)
    torch.testing.assert_close(mean_attention_distance(uniform, centres, centres), torch.full((2, 3), expected))


def test_the_class_token_is_dropped_and_the_rest_renormalised() -> None:
    centres = torch.cat([torch.full((1, 2), torch.nan), cell_centres((1, 2), (16, 32)).flatten(0, 1)])[None]
    rows = torch.tensor([[0.0, 0.0, 1.0], [0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])  # the last sees the class token alone
    distance = mean_attention_distance(rows[None, None, None], centres, centres)
    torch.testing.assert_close(distance, torch.tensor([[8.0]]))


def test_heads_are_kept_apart_and_groups_averaged() -> None:
    centres = torch.tensor([[[0.0, 0.0], [0.0, 3.0]], [[0.0, 0.0], [0.0, 5.0]]])
    stay, leave = torch.eye(2), torch.eye(2).flip(0)
    probabilities = torch.stack([torch.stack([stay, leave])] * 2)[None]
    assert mean_attention_distance(probabilities, centres, centres).tolist() == [[0.0, 4.0]]


def test_the_receptive_field_of_a_box_filter_is_the_box() -> None:
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(conv.weight)
    images = torch.randn(2, 1, 9, 9, requires_grad=True)
    field = input_gradient(images, conv(images))
    expected = torch.zeros(9, 9)
    expected[3:6, 3:6] = 1 / 9
    torch.testing.assert_close(field, expected)
    assert field_share(field, 1.0) == pytest.approx(9 / 81)


def test_a_uniform_field_is_global() -> None:
    assert field_share(torch.full((10, 10), 0.01), 0.9) == pytest.approx(0.9)


def test_grad_cam_of_a_mean_and_a_linear_layer_is_the_class_activation_map() -> None:
    """Zhou et al. 2016: there, every pixel's share in the logit is known."""
    level = torch.randn(2, 5, 3, 4, requires_grad=True)
    weight = torch.randn(5)
    found = grad_cam(level, (level.mean((2, 3)) @ weight).sum())
    assert found is not None
    expected = torch.einsum("c,bchw->bhw", weight, level.detach()).relu()
    torch.testing.assert_close(found, expected / expected.sum((1, 2), keepdim=True))
    assert grad_cam(level, (torch.ones(1, requires_grad=True) * 2).sum()) is None
