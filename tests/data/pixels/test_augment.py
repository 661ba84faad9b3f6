from __future__ import annotations

import pytest
import torch

from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.data import AugmentConfig, ResolvedAugment
from vitrail.data.pixels.augment import BatchMix, image_transform


def noise(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


@pytest.mark.parametrize(
    "options",
    [
        {"random_resized_crop_scale": (0.0, 1.0)},
        {"random_resized_crop_scale": (0.9, 0.8)},
        {"random_resized_crop_ratio": (0.0, 1.0)},
        {"hflip": 1.1},
        {"random_erasing": -0.1},
        {"rand_augment_num_ops": -1},
        {"rand_augment_magnitude": 31},
        {"mixup_alpha": -1.0},
        {"cutmix_alpha": -0.2},
    ],
)
def test_augmentation_values_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        AugmentConfig(**options)


PLAIN = {
    "random_resized_crop_scale": (1.0, 1.0),
    "random_resized_crop_ratio": (1.0, 1.0),
    "rand_augment_num_ops": 0,
    "random_erasing": 0.0,
}


@pytest.mark.parametrize(
    ("hflip", "mirrored_alike", "flipped"),
    [(None, False, False), (1.0, False, True), (0.0, True, False), (1.0, True, True)],
)
def test_mirroring_is_an_option(hflip: float | None, mirrored_alike: bool, flipped: bool) -> None:
    image = noise(16, 16)
    transform = image_transform(
        Preprocessing(image_size=(16, 16)), ResolvedAugment(**PLAIN, hflip=hflip), mirrored_alike=mirrored_alike
    )
    assert torch.equal(transform(image), image.flip(-1) if flipped else image)


def test_mirroring_is_half_the_time_by_default() -> None:
    image = noise(16, 16)
    transform = image_transform(Preprocessing(image_size=(16, 16)), ResolvedAugment(**PLAIN), mirrored_alike=True)
    flips = sum(torch.equal(transform(image), image.flip(-1)) for _ in range(200))
    assert 70 < flips < 130


def test_erasing_paints_with_the_mean_colour() -> None:
    preprocessing = Preprocessing(image_size=(32, 32), mean=(0.2, 0.4, 0.6))
    transform = image_transform(preprocessing, ResolvedAugment(**PLAIN | {"random_erasing": 1.0}), mirrored_alike=False)
    erased = transform(torch.zeros(3, 32, 32, dtype=torch.uint8))
    assert {tuple(colour) for colour in erased.flatten(1).T.tolist()} == {(0, 0, 0), (51, 102, 153)}


@pytest.mark.parametrize("augment", [AugmentConfig(mixup_alpha=1.0), AugmentConfig(cutmix_alpha=1.0)])
def test_mixed_targets_are_the_shares_of_the_pictures(augment: AugmentConfig) -> None:
    # Class 1 is white and class 0 black, so the mean brightness tells the share that the target must have.
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 40, 40)
    mixed, targets = BatchMix(augment, 2)(images, torch.tensor([0, 1]))
    assert mixed.dtype == torch.uint8
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(2))
    torch.testing.assert_close(mixed.float().mean(dim=(1, 2, 3)) / 255, targets[:, 1], atol=0.003, rtol=0)
