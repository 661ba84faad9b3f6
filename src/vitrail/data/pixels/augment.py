"""Random changes of training images (uint8, torchvision v2), drawn from PyTorch's global generator."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from vitrail.core.config import convert_fields
from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.data.pixels.fit import interpolation_mode


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of training images, as far as somebody decides them; a recipe decides the rest.

    The recipe "scratch" suits a few hundred to a few thousand images and a small model. DeiT's values for ImageNet are
    scale (0.08, 1), magnitude 9, erasing 0.25, mixup 0.8, cutmix 1.0 (Touvron et al. 2021, table 9).

    Attributes:
        random_resized_crop_scale: smallest and largest share of the image that a random crop covers; 1 1, with the
            ratio 1 1, only crops to the model's shape. Default: the recipe's; from random weights 0.4 1.
        random_resized_crop_ratio: smallest and largest width / height of a random crop.
        hflip: probability that an image is mirrored. Default: 0.5, but 0 where a mirror image may have another label:
            names of classes with left or right, keypoints whose sides are unknown, the built-in hand signs. Give 0 if
            left and right matter in your data for another reason.
        rand_augment_num_ops: number of RandAugment's operations (N); 0 turns it off. Default: the recipe's; from random
            weights 2.
        rand_augment_magnitude: strength of RandAugment's operations (M), 0 to 30. Default: the recipe's; from random
            weights 7.
        random_erasing: probability that a rectangle is painted over. Default: the recipe's; from random weights 0.1.
        mixup_alpha: parameter of mixup's Beta distribution; 0 turns it off. With cutmix too, a batch gets one of them.
        cutmix_alpha: parameter of CutMix's Beta distribution; 0 turns it off.
    """

    random_resized_crop_scale: tuple[float, float] | None = None
    random_resized_crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float | None = None
    rand_augment_num_ops: int | None = None
    rand_augment_magnitude: int | None = None
    random_erasing: float | None = None
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0

    def __post_init__(self) -> None:
        convert_fields(self)
        low, high = self.random_resized_crop_scale or (1.0, 1.0)
        if not 0 < low <= high <= 1:
            raise ConfigError("is not 0 < smallest <= largest <= 1", random_resized_crop_scale=(low, high))
        low, high = self.random_resized_crop_ratio
        if not 0 < low <= high:
            raise ConfigError("is not 0 < smallest <= largest", random_resized_crop_ratio=(low, high))
        for name in ("hflip", "random_erasing"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError("is not a probability from 0 to 1", **{name: value})
        if not 0 <= (self.rand_augment_magnitude or 0) <= 30:
            raise ConfigError("is outside 0 to 30", rand_augment_magnitude=self.rand_augment_magnitude)
        for name in ("rand_augment_num_ops", "mixup_alpha", "cutmix_alpha"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigError("is negative; give 0 (off) or more", **{name: getattr(self, name)})

    def implied(self) -> dict[str, str]:
        """What None stands for, see :meth:`vitrail.cli.options.to_yaml`."""
        known = {"hflip": "0.5, but 0 where a mirror image may have another label"}
        known |= dict.fromkeys(CHOSEN_AUGMENT, "the recipe's")
        return {name: text for name, text in known.items() if getattr(self, name) is None}

    def resolved(self, recipe: ResolvedAugment) -> ResolvedAugment:
        """The same, and what is left out as in ``recipe``."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        chosen = {name: getattr(recipe, name) for name in CHOSEN_AUGMENT if own[name] is None}
        return ResolvedAugment(**own | chosen)

    @property
    def mixes(self) -> bool:
        """Targets become soft labels."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0


@dataclass(frozen=True, kw_only=True)
class ResolvedAugment(AugmentConfig):
    """Random changes in which every choice is made. The defaults are the recipe "scratch"."""

    random_resized_crop_scale: tuple[float, float] = (0.4, 1.0)
    rand_augment_num_ops: int = 2
    rand_augment_magnitude: int = 7
    random_erasing: float = 0.1


CHOSEN_AUGMENT = ("random_resized_crop_scale", "rand_augment_num_ops", "rand_augment_magnitude", "random_erasing")
"""Fields that a recipe chooses where they are left out."""


def crop_and_mirror(
    preprocessing: Preprocessing, augment: ResolvedAugment, *, mirrored_alike: bool
) -> tuple[v2.RandomResizedCrop, v2.RandomHorizontalFlip]:
    """What is cut out of an image, (3, h, w) to (3, *image_size), and how often that is mirrored."""
    crop = v2.RandomResizedCrop(
        list(preprocessing.image_size),
        scale=augment.random_resized_crop_scale,
        ratio=augment.random_resized_crop_ratio,
        interpolation=interpolation_mode(preprocessing),
        antialias=True,
    )
    return crop, v2.RandomHorizontalFlip(mirror_probability(augment, mirrored_alike=mirrored_alike))


def mirror_probability(augment: ResolvedAugment, *, mirrored_alike: bool) -> float:
    """What ``augment`` says, or 0.5 for images that keep their targets in a mirror, else 0."""
    return augment.hflip if augment.hflip is not None else (0.5 if mirrored_alike else 0.0)


def image_transform(preprocessing: Preprocessing, augment: ResolvedAugment, *, mirrored_alike: bool) -> v2.Transform:
    """Every change that ``augment`` has, for targets without a place in the image."""
    grey = [round(255 * mean) for mean in preprocessing.mean]  # what the model sees as zero
    crop, mirror = crop_and_mirror(preprocessing, augment, mirrored_alike=mirrored_alike)
    steps: list[v2.Transform] = [crop, mirror] if mirror.p else [crop]  # at 0 it would still draw a number
    if augment.rand_augment_num_ops:
        steps.append(
            v2.RandAugment(
                augment.rand_augment_num_ops,
                augment.rand_augment_magnitude,
                interpolation=InterpolationMode.BILINEAR,
                fill=grey,
            )
        )
    if augment.random_erasing:
        steps.append(v2.RandomErasing(augment.random_erasing, value=grey))
    return v2.Compose(steps)


def placed_transform(preprocessing: Preprocessing, augment: ResolvedAugment, *, mirrored_alike: bool) -> v2.Transform:
    """Crop, mirror and colours, for targets with a place in the image; see :func:`change_together`."""
    first = crop_and_mirror(preprocessing, augment, mirrored_alike=mirrored_alike)
    return v2.Compose([*first, *colour_jitter(augment)])


def change_together(change: v2.Transform, image: Tensor, *placed: tv_tensors.TVTensor) -> list[Tensor]:
    """An image, and boxes or masks that lie in it, under the same random change."""
    return [changed.as_subclass(Tensor) for changed in change(tv_tensors.Image(image), *placed)]


def colour_jitter(augment: ResolvedAugment) -> list[v2.Transform]:
    """Changes of colours alone, as strong as ``augment`` wants RandAugment to be."""
    strength = augment.rand_augment_magnitude / 30 if augment.rand_augment_num_ops else 0.0
    return [v2.ColorJitter(brightness=strength, contrast=strength, saturation=strength)] if strength else []


class BatchMix:
    """Mixup or cutmix of a uint8 batch: (images, labels (b,)) to (uint8 images, soft labels (b, num_classes))."""

    def __init__(self, augment: ResolvedAugment, num_classes: int) -> None:
        mixes: list[v2.Transform] = []
        if augment.mixup_alpha:
            mixes.append(v2.MixUp(alpha=augment.mixup_alpha, num_classes=num_classes))
        if augment.cutmix_alpha:
            mixes.append(v2.CutMix(alpha=augment.cutmix_alpha, num_classes=num_classes))
        self.choice = v2.RandomChoice(mixes)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mixed, targets = self.choice(images.to(torch.float32), labels)  # blending needs fractions
        return mixed.round_().clamp_(0, 255).to(torch.uint8), targets
