"""Images whose target is the image itself: for masked pretraining and for generation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torchvision.transforms import v2

from vitrail.core.errors import DataError
from vitrail.core.types import Preprocessing
from vitrail.data.annotations import Problems, as_splits
from vitrail.data.check import check_files
from vitrail.data.folders import list_class_folders
from vitrail.data.image_set import ImageSet
from vitrail.data.listing import PART_NAMES, find_images
from vitrail.data.load import DataConfig, load_data
from vitrail.data.samples import Samples, Transform
from vitrail.data.splits import DataSplits
from vitrail.data.transforms import AugmentConfig, fit_image, interpolation_mode


class PictureSet(Samples):
    """Images, with a class each where there are classes.

    Attributes:
        labels: class indices (n,), int64; all 0 without classes.
        crops: training cuts random parts out of the images; otherwise it only mirrors them.
    """

    def __init__(
        self, names: Sequence[str], sources: Sequence[Path | bytes], labels: Tensor, *, crops: bool, **settings: Any
    ) -> None:
        super().__init__(names, sources, **settings)
        self.labels = labels
        self.crops = crops

    def target(self, index: int) -> int:
        """The class index."""
        return int(self.labels[index])

    def fit(self, image: Tensor, target: int, preprocessing: Preprocessing) -> tuple[Tensor, tuple[Tensor, int]]:
        """The image resized and cropped in the centre; the target is the same and the class."""
        fitted = fit_image(image, preprocessing)
        return fitted, (fitted, target)

    def train_transform(self, preprocessing: Preprocessing, augment: AugmentConfig) -> Transform:
        """Random crops and mirror images. Colours stay: the picture as it is shall be learnt."""
        crop = v2.RandomResizedCrop(
            list(preprocessing.image_size),
            scale=augment.random_resized_crop_scale,
            ratio=augment.random_resized_crop_ratio,
            interpolation=interpolation_mode(preprocessing),
            antialias=True,
        )
        hflip = augment.hflip if augment.hflip is not None else (0.5 if self.mirrored_alike else 0.0)
        first: Any = crop if self.crops else partial(fit_image, preprocessing=preprocessing)
        return partial(_changed, [first, v2.RandomHorizontalFlip(hflip)])

    def collate(self, targets: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
        """``image`` (b, 3, h, w), uint8, and ``label`` (b,)."""
        images, labels = zip(*targets, strict=True)
        return {"image": torch.stack(images), "label": torch.tensor(labels)}

    def subset(self, indices: Sequence[int]) -> Self:
        """The images at ``indices``, in that order."""
        chosen = super().subset(indices)
        chosen.labels = self.labels[torch.as_tensor(indices, dtype=torch.int64)]
        return chosen

    def renumber(self, table: Tensor) -> Self:
        """The same images; class i becomes ``table[i]``."""
        chosen = super().subset(range(len(self)))
        chosen.labels = table[self.labels]
        return chosen


def _changed(steps: Sequence[Any], image: Tensor, target: int) -> tuple[Tensor, tuple[Tensor, int]]:
    for step in steps:
        image = step(image)
    return image, (image, target)


def load_pictures(
    config: DataConfig, *, labelled: bool | None, crops: bool, progress: bool = False
) -> DataSplits[PictureSet]:
    """Images of a folder at any depth, or with their classes.

    Without classes, images in a folder ``train``, ``val`` or ``test`` right below ``config.path`` belong to that part;
    where none is in ``val``, it is cut from training by seed.

    Args:
        config: where they are, and how they are split.
        labelled: find class folders or a table, as :func:`~vitrail.data.load.load_data` does; None where there are any.
        crops: see :class:`PictureSet`.
        progress: show a bar while files are checked.

    Raises:
        DataError: missing or empty data, or too many files that cannot be decoded.
    """
    if labelled is None:
        labelled = config.path == "sample" or _has_classes(Path(config.path).expanduser())
    if labelled or config.path == "sample":
        data = load_data(config, progress=progress)
        convert = partial(_as_pictures, labelled=labelled, crops=crops)
        test = None if data.test is None else convert(data.test)
        classes = data.classes if labelled else ()
        return DataSplits(
            classes, convert(data.train), convert(data.val), test, data.fingerprint, data.skipped, data.source
        )
    root = Path(config.path).expanduser()
    if not root.is_dir():
        raise DataError(f"data folder {config.path} does not exist; give a folder of images, or 'sample'")
    root = root.resolve()
    files = [path.relative_to(root) for path in find_images(root)]
    if not files:
        raise DataError(f"{config.path} has no images at any depth; give a folder of images, or 'sample'")
    names = [file.as_posix() for file in files]
    checks = check_files(root, names, max_pixels=config.max_pixels, progress=progress)
    problems = Problems(config)
    problems.check_images(names, checks)
    problems.settle(len(names))
    good = [i for i, name in enumerate(names) if name not in problems.names]
    total = hashlib.sha256("".join(f"{names[i]}\0{checks[i].digest}\n" for i in good).encode("utf-8", "replace"))
    sources = [root / names[i] for i in good]
    every = PictureSet(
        [names[i] for i in good],
        sources,
        torch.zeros(len(good), dtype=torch.int64),
        crops=crops,
        max_pixels=config.max_pixels,
    )
    parts = [PART_NAMES.get(files[i].parts[0].lower(), "") if len(files[i].parts) > 1 else "" for i in good]
    if "train" not in parts:
        parts = [""] * len(parts)
    return as_splits(every, parts, config, classes=(), fingerprint=total.hexdigest(), skipped=problems.listed())


def _has_classes(root: Path) -> bool:
    try:
        return (root / "labels.csv").is_file() or len(list_class_folders(root.resolve()).classes) > 1
    except (DataError, OSError):
        return False


def _as_pictures(images: ImageSet, *, labelled: bool, crops: bool) -> PictureSet:
    labels = images.labels if labelled else torch.zeros_like(images.labels)
    settings = {"max_pixels": images.max_pixels, "mirrored_alike": images.mirrored_alike}
    return PictureSet(images.names, images.sources, labels, crops=crops, **settings)
