"""MaxViT-GAN and its discriminator: sizes, the order of the parts, and the mathematics of their losses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vitrail.core.errors import ConfigError, UnknownNameError
from vitrail.models.discriminator import (
    Discriminator,
    blur_pool,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    width_at,
)
from vitrail.models.maxvit_gan import (
    GENERATORS,
    GeneratorConfig,
    LatentAttention,
    as_pixels,
    create_generator,
    join_latent,
)

NANO = "maxvit_gan_nano_32"


def test_the_paper_has_18_6_million_parameters() -> None:
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in create_generator(name).parameters()) for name in GENERATORS}
    assert counts["maxvit_gan_128"] == 18_572_175
    assert counts[NANO] < 600_000


@pytest.mark.parametrize("name", GENERATORS)
def test_sizes_of_pictures(name: str) -> None:
    with torch.device("meta"):
        generator = create_generator(name).eval()
        side = int(name.rpartition("_")[2])
        assert generator.config.image_size == (side, side)
        assert generator(torch.zeros(2, generator.config.latent_dim, 1, 1)).shape == (2, 3, side, side)


def test_latent_then_grid_then_block_then_convolution() -> None:
    generator = create_generator(NANO).eval()
    seen: list[str] = []
    for name, module in generator.stages[0].blocks[0].named_children():
        module.register_forward_hook(lambda *_, name=name: seen.append(name))
    generator(torch.randn(1, 64, 1, 1))
    assert seen == ["latent_attention", "grid_attention", "block_attention", "mbconv"]
    kinds = {type(module).__name__ for module in generator.modules()}
    assert "LayerNorm" not in kinds
    assert {"BatchNorm2d", "PixelShuffle"} <= kinds


def test_the_latent_is_asked_with_one_head_of_keys() -> None:
    attention = LatentAttention(8, 6, 4).double()
    x, memory = torch.randn(2, 3, 5, 8, dtype=torch.float64), torch.randn(2, 7, 6, dtype=torch.float64)
    keys, values = attention.kv(memory).split(4, -1)
    queries = attention.q(x)
    heads = []
    for head in range(2):
        query = queries[..., 4 * head : 4 * head + 4]
        weights = torch.einsum("bhwd,bmd->bhwm", query, keys).div(2).softmax(-1)
        heads.append(torch.einsum("bhwm,bmd->bhwd", weights, values))
    torch.testing.assert_close(attention(x, memory), attention.proj(torch.cat(heads, -1)))


def test_every_resolution_adds_to_the_picture() -> None:
    generator = create_generator(NANO).eval()
    added: list[Tensor] = []
    for stage in generator.stages:
        stage.to_rgb.register_forward_hook(lambda _, __, out: added.append(out))
    picture = generator(torch.randn(1, 64, 1, 1))
    wanted = sum(
        part.repeat_interleave(32 // part.shape[2], 2).repeat_interleave(32 // part.shape[3], 3) for part in added
    )
    assert [part.shape[-1] for part in added] == [8, 16, 32]
    torch.testing.assert_close(picture, wanted)


def test_the_class_changes_the_picture() -> None:
    generator = create_generator(NANO, num_classes=3).eval()
    noise = torch.randn(2, 64)
    zero, one = (generator(join_latent(noise, [label] * 2, 3)) for label in (0, 1))
    assert not torch.allclose(zero, one)
    assert join_latent(noise, [2, 0], 3)[:, 64:, 0, 0].tolist() == [[0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize("shape", [(2, 63, 1, 1), (2, 65, 1, 1), (2, 64, 2, 1), (2, 3, 32, 32)])
def test_a_latent_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="takes 64 random numbers and 0 for the class"):
        create_generator(NANO)(torch.zeros(shape))


def test_generators_that_do_not_exist() -> None:
    with pytest.raises(UnknownNameError, match="known: maxvit_gan_128"):
        create_generator("maxvit_gan_17")
    with pytest.raises(ConfigError, match="makes pictures of 32 pixels; leave out image_size=48"):
        create_generator(NANO, image_size=48)
    with pytest.raises(ConfigError, match="unexpected keyword argument 'size'"):
        create_generator(NANO, size=3)
    with pytest.raises(ConfigError, match="2 widths and 3 depths"):
        GeneratorConfig(embed_dims=(32, 32), depths=(1, 1, 1))
    with pytest.raises(ConfigError, match="multiples of head_dim=32"):
        GeneratorConfig(embed_dims=(48,), depths=(1,))
    with pytest.raises(ConfigError, match="latent_dim=0"):
        GeneratorConfig(latent_dim=0)


def test_pixels() -> None:
    assert as_pixels(torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255]


def test_the_discriminator_halves_until_four_pixels_are_left() -> None:
    discriminator = Discriminator(32, multiplier=1 / 32)
    sides: list[int] = []
    for block in discriminator.blocks:
        block.register_forward_hook(lambda _, __, out: sides.append(out.shape[-1]))
    assert discriminator(torch.randn(3, 3, 32, 32), torch.zeros(3, dtype=torch.int64)).shape == (3,)
    assert sides == [16, 8, 4]
    assert [width_at(side, 1.0) for side in (4, 32, 64, 128, 256)] == [512, 512, 256, 128, 64]
    for side in (4, 24):
        with pytest.raises(ConfigError, match=f"pictures of {side} pixels"):
            Discriminator(side)


def test_blurring_by_hand() -> None:
    x = torch.randn(1, 2, 6, 6)
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    out = blur_pool(2)(x)
    assert out.shape == (1, 2, 3, 3)
    torch.testing.assert_close(out[0, 1, 1, 2], (padded[0, 1, 2:6, 4:8] * line[:, None] * line).sum())


def test_the_class_enters_the_score_by_projection() -> None:
    discriminator = Discriminator(8, num_classes=2, multiplier=1 / 32)
    pictures = torch.randn(2, 3, 8, 8)
    first, second = (discriminator(pictures, torch.tensor([label] * 2)) for label in (0, 1))
    features: list[Tensor] = []
    discriminator.out.register_forward_pre_hook(lambda _, given: features.append(given[0]))
    discriminator(pictures, torch.tensor([0, 0]))
    assert discriminator.classes is not None
    difference = discriminator.classes.weight[1] - discriminator.classes.weight[0]
    torch.testing.assert_close(second - first, features[0] @ difference)


def test_logistic_losses_by_hand() -> None:
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0])
    torch.testing.assert_close(generator_loss(fake), -fake.sigmoid().log().mean())
    wanted = -real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean()
    torch.testing.assert_close(discriminator_loss(real, fake), wanted)


class Toy(nn.Module):
    """score = sum of w x^2; its slope is 2 w x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 2, 2, dtype=torch.float64))

    def forward(self, pictures: Tensor, labels: Tensor) -> Tensor:
        return (self.w * pictures.square()).sum((1, 2, 3))


def test_r1_of_a_toy_whose_slope_is_known() -> None:
    toy, pictures = Toy(), torch.randn(5, 3, 2, 2, dtype=torch.float64)
    penalty = gradient_penalty(toy, pictures, torch.zeros(5))
    torch.testing.assert_close(penalty, (2 * toy.w * pictures).square().sum((1, 2, 3)).mean())
    penalty.backward()
    torch.testing.assert_close(toy.w.grad, (8 * toy.w * pictures.square()).sum(0).detach() / 5)


def test_r1_of_the_discriminator_is_that_of_small_steps() -> None:
    discriminator = Discriminator(8, multiplier=1 / 64).double()
    pictures = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    labels = torch.zeros(2, dtype=torch.int64)
    step = 1e-6
    slopes = torch.zeros_like(pictures)
    with torch.no_grad():
        for place in range(pictures[0].numel()):
            moved = torch.zeros(pictures[0].numel(), dtype=torch.float64)
            moved[place] = step
            moved = moved.view_as(pictures[0])
            difference = discriminator(pictures + moved, labels) - discriminator(pictures - moved, labels)
            slopes.flatten(1)[:, place] = difference / (2 * step)
    wanted = slopes.square().sum((1, 2, 3)).mean()
    torch.testing.assert_close(gradient_penalty(discriminator, pictures, labels), wanted, rtol=1e-4, atol=1e-8)
    assert not pictures.requires_grad
