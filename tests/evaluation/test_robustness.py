"""Robustness where it is known: toys that move with the picture, answers that never change, strengths of nothing."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.data import ImageSet, LabelledImage
from vitrail.evaluation import RobustnessConfig, measure_robustness
from vitrail.evaluation.robustness import CORRUPTIONS, corrupt, rotate, shift, zoom
from vitrail.evaluation.robustness.curves import resized
from vitrail.models import create_model

SIDE = 16
PREPROCESSING = Preprocessing(image_size=(SIDE, SIDE), crop_fraction=1.0)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    """Twelve pictures of smooth noise, with labels 0, 1, 2 in turn."""
    generator = np.random.default_rng(0)
    records = []
    for i in range(12):
        buffer = io.BytesIO()
        coarse = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "PNG")
        records.append(LabelledImage(name=f"{i}.png", source=buffer.getvalue(), label=i % 3))
    return ImageSet(records=records)


@pytest.fixture
def picture(images: ImageSet) -> Tensor:
    return images[0][0]


def equivariant(x: Tensor) -> Tensor:
    """A convolution that wraps around, then the largest answer anywhere: no shift that wraps around can change it."""
    kernels = torch.randn(3, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), kernels).amax((2, 3))


def by_place(x: Tensor) -> Tensor:
    """Where the light is: left, middle or right. Every shift matters."""
    return torch.stack([part.mean((1, 2, 3)) for part in x.tensor_split(3, dim=3)], 1)


TRANSLATION = RobustnessConfig(groups=("translation",), border="circular")


def test_an_equivariant_toy_is_perfectly_consistent(images: ImageSet) -> None:
    found = measure_robustness(equivariant, images, PREPROCESSING, TRANSLATION)
    assert found["summary"]["translation"]["consistency"] == 1
    assert found["summary"]["translation"]["top1"] == pytest.approx(found["clean_top1"])
    assert found["diagonal_consistency"] == 1
    assert len({curve["name"] for curve in found["curves"]}) == 3


def test_a_toy_that_reads_places_is_not(images: ImageSet) -> None:
    found = measure_robustness(by_place, images, PREPROCESSING, TRANSLATION)
    vertical = next(curve for curve in found["curves"] if curve["name"] == "vertical shift")
    assert all(point["consistency"] == 1 for point in vertical["points"])
    assert found["summary"]["translation"]["consistency"] < 0.9
    assert found["diagonal_consistency"] < 0.9


def test_the_untouched_picture_is_on_every_curve(images: ImageSet) -> None:
    config = RobustnessConfig(groups=("translation", "rotation", "scale", "corruption"), severities=(1, 5))
    found = measure_robustness(by_place, images, PREPROCESSING, config)
    for curve in found["curves"]:
        (rest,) = [p for p in curve["points"] if p["x"] == (1 if curve["group"] == "scale" else 0)]
        assert rest["consistency"] == 1
        assert rest["top1"] == found["clean_top1"]
        assert rest["top1_low"] <= rest["top1"] <= rest["top1_high"]


def test_bit_for_bit_the_same_with_the_same_seed(images: ImageSet) -> None:
    config = RobustnessConfig(groups=("corruption", "rotation"), severities=(3,))
    before = torch.get_rng_state()
    first = measure_robustness(equivariant, images, PREPROCESSING, config)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again = RobustnessConfig(groups=("corruption", "rotation"), severities=(3,), batch_size=5)
    assert measure_robustness(equivariant, images, PREPROCESSING, again) == first


def test_shifts(picture: Tensor) -> None:
    assert torch.equal(shift(picture, 0, 0), picture)
    assert torch.equal(shift(shift(picture, 3, -5, "circular"), -3, 5, "circular"), picture)
    moved = shift(picture, 2, 0)
    assert torch.equal(moved[:, 2:], picture[:, :-2])
    assert torch.equal(moved[:, :2], picture[:, :2].flip(1))
    assert torch.equal(shift(picture, 0, -4)[:, :, :-4], picture[:, :, 4:])


def test_turning_and_zooming(picture: Tensor) -> None:
    batch = picture[None]
    assert torch.equal(rotate(batch, 0), batch)
    assert torch.equal(zoom(batch, 1), batch)
    half_turn = rotate(batch, 180).float()
    assert (half_turn - batch.flip(2, 3).float()).abs().mean() < 2
    flat = torch.full((1, 3, SIDE, SIDE), 77, dtype=torch.uint8)
    for changed in (rotate(flat, 33), zoom(flat, 0.6), zoom(flat, 1.7)):
        assert torch.equal(changed, flat)
    dot = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    dot[..., 6:10, 6:10] = 255
    assert zoom(dot, 2.0).float().sum().item() == pytest.approx(4 * dot.float().sum().item(), rel=0.15)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_grow_and_repeat(name: str, images: ImageSet) -> None:
    picture = F.interpolate(images[1][0][None].float(), size=64, mode="bicubic")[0].clamp(0, 255).to(torch.uint8)
    assert torch.equal(corrupt(picture, name, 0), picture)
    levels = [corrupt(picture, name, severity, seed=3, key="a") for severity in range(1, 6)]
    damage = [(level.float() - picture.float()).abs().mean().item() for level in levels]
    assert all(level.dtype == torch.uint8 and level.shape == picture.shape for level in levels)
    assert 0 < damage[0] < damage[2] < damage[4]
    assert torch.equal(corrupt(picture, name, 4, seed=3, key="a"), levels[3])


@pytest.mark.parametrize("name", ["gaussian noise", "shot noise", "elastic"])
def test_noise_depends_on_seed_and_picture(name: str, picture: Tensor) -> None:
    one = corrupt(picture, name, 3, seed=0, key="a")
    assert not torch.equal(one, corrupt(picture, name, 3, seed=1, key="a"))
    assert not torch.equal(one, corrupt(picture, name, 3, seed=0, key="b"))


def test_bad_strengths_are_refused(picture: Tensor) -> None:
    with pytest.raises(ConfigError, match="severity 6"):
        corrupt(picture, "blur", 6)
    with pytest.raises(ConfigError, match="'fog'"):
        corrupt(picture, "fog", 1)
    for wrong in ({"shifts": (1.5,)}, {"severities": (0,)}, {"angles": (0.0,)}, {"zooms": (0.0,)}, {"num_images": 0}):
        with pytest.raises(ConfigError):
            RobustnessConfig(**wrong)


def test_resolution_resizes_tables_and_keeps_weights(images: ImageSet) -> None:
    model = create_model("vit_nano_patch4", 3, image_size=SIDE, embed_dim=32, depth=1, num_heads=2).eval()
    larger = resized(model, (24, 24))
    assert larger.config.image_size == (24, 24)
    assert torch.equal(larger.state_dict()["head.weight"], model.state_dict()["head.weight"])
    x = torch.randn(2, 3, SIDE, SIDE)
    assert torch.equal(resized(model, (SIDE, SIDE))(x), model(x))
    config = RobustnessConfig(groups=("resolution",), resolutions=(0.5, 0.9, 2.0))
    found = measure_robustness(model, images, PREPROCESSING, config)
    assert [point["x"] for point in found["curves"][0]["points"]] == [8, 16, 32]
    assert "14x14" in found["skipped"]["resolution 0.9"]
