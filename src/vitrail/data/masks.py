"""Images with a class for every pixel: folders of images and of masks, or COCO's JSON (:mod:`.coco_masks`).

Layout: ``train/images/a.jpg`` with ``train/masks/a.png``, the same for ``val`` and ``test``; or ``images/`` and
``masks/`` alone, from which a validation part is cut. Masks are 8-bit PNG files (grey or palette) whose values are
classes. ``classes.txt`` names them, one ``VALUE NAME`` a line, or only names, for 0, 1, ...; without it the values that
occur are the classes. Value 255, and classes called unlabelled, void or ignore, are neither learnt nor measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from vitrail.core.errors import DataError
from vitrail.core.types import Preprocessing
from vitrail.data.annotations import Problems, as_splits, image_size_of
from vitrail.data.check import check_files
from vitrail.data.coco_masks import IGNORE, MaskPair, coco_kind, coco_pairs
from vitrail.data.letterbox import Letterbox
from vitrail.data.listing import PART_NAMES, image_files, is_visible_folder
from vitrail.data.load import DataConfig
from vitrail.data.samples import Samples, Transform
from vitrail.data.splits import DataSplits
from vitrail.data.transforms import AugmentConfig, colour_jitter, interpolation_mode

IGNORED_NAMES = frozenset({"unlabelled", "unlabeled", "void", "ignore", "ignored"})
MASK_FOLDERS = ("masks", "labels")
REMEDY = (
    "give images/ and masks/ (or the same inside train/, val/ and test/), with a PNG mask for every image, or COCO JSON"
)


class MaskSet(Samples):
    """Images with masks.

    Attributes:
        masks: for each image, what reads its mask.
        table: (256,) uint8, from a value in the files to a class index, or to :data:`IGNORE`.
    """

    def __init__(
        self,
        names: Sequence[str],
        sources: Sequence[Path],
        masks: Sequence[Callable[[], np.ndarray]],
        table: Tensor,
        **settings: Any,
    ) -> None:
        super().__init__(names, sources, **settings)
        self.masks = list(masks)
        self.table = table

    def target(self, index: int) -> Tensor:
        """Class indices (h, w), uint8."""
        return self.table[torch.from_numpy(self.masks[index]()).long()]

    def fit(self, image: Tensor, target: Tensor, preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
        """The whole picture in a frame; the frame's rest is ignored."""
        box = Letterbox.of((image.shape[-2], image.shape[-1]), preprocessing.image_size)
        return box.image(image, preprocessing), box.mask(target, IGNORE)

    def train_transform(self, preprocessing: Preprocessing, augment: AugmentConfig) -> Transform:
        """Random crops and mirror images of both, and other colours. (RandAugment would move the image alone.)"""
        hflip = augment.hflip if augment.hflip is not None else 0.5
        steps: list[v2.Transform] = [
            v2.RandomResizedCrop(
                list(preprocessing.image_size),
                scale=augment.random_resized_crop_scale,
                ratio=augment.random_resized_crop_ratio,
                interpolation=interpolation_mode(preprocessing),
                antialias=True,
            ),
            v2.RandomHorizontalFlip(hflip if self.mirrored_alike else 0.0),
            *colour_jitter(augment),
        ]
        return _Together(v2.Compose(steps))

    def collate(self, targets: list[Tensor]) -> Tensor:
        """(b, h, w) int64."""
        return torch.stack(targets).long()

    def subset(self, indices: Sequence[int]) -> Self:
        """The samples at ``indices``, in that order."""
        chosen = super().subset(indices)
        chosen.masks = [self.masks[i] for i in indices]
        return chosen

    def renumber(self, table: Tensor) -> Self:
        """The same masks; class i becomes ``table[i]``."""
        chosen = self.subset(range(len(self)))
        known = self.table != IGNORE
        chosen.table = self.table.clone()
        chosen.table[known] = table[self.table[known].long()].to(torch.uint8)
        return chosen


class _Together:
    def __init__(self, change: v2.Transform) -> None:
        self.change = change

    def __call__(self, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        image, mask = self.change(tv_tensors.Image(image), tv_tensors.Mask(target))
        return image.as_subclass(Tensor), mask.as_subclass(Tensor)


def read_mask(path: Path) -> np.ndarray:
    """The values (h, w), uint8, of a mask.

    Raises:
        DataError: unreadable, or not 8-bit with one channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "1"):
                raise DataError(f"{path} is a mask of mode {image.mode}; save it as 8-bit grey or palette PNG")
            return np.array(image, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is no readable mask ({str(error).splitlines()[0]}); write it again") from error


def load_masks(config: DataConfig, *, progress: bool = False) -> DataSplits[MaskSet]:
    """Find, check and split images and masks.

    Raises:
        DataError: no images, fewer than two classes, or annotations that are wrong (unless
            ``config.bad_annotations`` is "skip": then their images are left out, and listed in ``skipped``).
    """
    root = Path(config.path).expanduser()
    if not root.is_dir():
        raise DataError(f"data folder {config.path} does not exist; {REMEDY}")
    root = root.resolve()
    problems = Problems(config)
    kind = coco_kind(root)
    named, pairs = (None, _find_pairs(root, problems)) if kind is None else coco_pairs(root, kind, problems)
    if not pairs:
        raise DataError(f"{root} has no images with masks; {REMEDY}")
    checks = check_files(root, [pair.name for pair in pairs], max_pixels=config.max_pixels, progress=progress)
    problems.check_images([pair.name for pair in pairs], checks)
    with ThreadPoolExecutor() as pool:
        looks = dict(zip((pair.name for pair in pairs), pool.map(_look, pairs), strict=True))
    if named is None:
        named = _class_names(root, [look for look in looks.values() if not isinstance(look, str)])
    names = named
    classes, table = _number(root, names, config.ignore_classes)
    _check_values(pairs, looks, names, problems)
    good = [pair for pair in pairs if pair.name not in problems.names]
    problems.settle(len(pairs))
    everything = MaskSet(
        [pair.name for pair in good],
        [pair.image for pair in good],
        [pair.read for pair in good],
        table,
        max_pixels=config.max_pixels,
    )
    digests = {pair.name: check.digest for pair, check in zip(pairs, checks, strict=True)}
    total = hashlib.sha256(repr([names, classes]).encode())
    for pair in sorted(good, key=lambda one: one.name):
        total.update(f"{pair.name}\0{digests[pair.name]}\0{looks[pair.name].digest}\n".encode())  # type: ignore[union-attr]
    return as_splits(
        everything,
        [pair.part for pair in good],
        config,
        classes=classes,
        fingerprint=total.hexdigest(),
        skipped=problems.listed(),
    )


def _find_pairs(root: Path, problems: Problems) -> list[MaskPair]:
    folders = [
        (entry, PART_NAMES[entry.name.lower()])
        for entry in sorted(root.iterdir())
        if is_visible_folder(entry) and entry.name.lower() in PART_NAMES
    ]
    pairs: list[MaskPair] = []
    for folder, part in folders or [(root, "")]:
        where = next((folder / name for name in MASK_FOLDERS if (folder / name).is_dir()), None)
        if where is None or not (folder / "images").is_dir():
            raise DataError(f"{folder} has no images/ and masks/; {REMEDY}")
        masks = {path.stem: path for path in image_files(where, root) if path.suffix.lower() == ".png"}
        for path in image_files(folder / "images", root):
            name = path.relative_to(root).as_posix()
            if path.stem in masks:
                pairs.append(_pair(name, path, masks.pop(path.stem), part))
            else:
                problems.add(name, f"there is no mask {where.relative_to(root).as_posix()}/{path.stem}.png")
        for path in masks.values():
            problems.add(path.relative_to(root).as_posix(), "there is no image for this mask")
    return pairs


def _pair(name: str, image: Path, mask: Path, part: str) -> MaskPair:
    return MaskPair(name, image, mask.name, partial(read_mask, mask), part)


@dataclass(frozen=True)
class _Look:
    values: frozenset[int]
    digest: str


def _look(pair: MaskPair) -> _Look | str:
    """What a mask has, or what is wrong with it."""
    try:
        mask = pair.read()
        size = image_size_of(pair.image)
    except DataError as error:
        return str(error)
    if size is not None and mask.shape != size:
        return (
            f"{pair.title} is {mask.shape[1]}x{mask.shape[0]} pixels, but the image is {size[1]}x{size[0]}; "
            f"masks have the size of their images"
        )
    return _Look(frozenset(np.unique(mask).tolist()), hashlib.sha256(mask.tobytes()).hexdigest())


def _check_values(
    pairs: Sequence[MaskPair], looks: dict[str, _Look | str], names: dict[int, str], problems: Problems
) -> None:
    for pair in pairs:
        look = looks[pair.name]
        if isinstance(look, str):
            problems.add(pair.name, look)
        elif unknown := sorted(look.values - names.keys() - {IGNORE}):
            values = ", ".join(map(str, unknown[:5]))
            problems.add(pair.name, f"{pair.title} has values that are no class: {values}")


def _class_names(root: Path, looks: Sequence[_Look]) -> dict[int, str]:
    """Value -> name, from ``classes.txt`` or from what occurs."""
    file = root / "classes.txt"
    if not file.is_file():
        return {value: str(value) for value in sorted(set().union(*(look.values for look in looks)) - {IGNORE})}
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read ({error}); save it as UTF-8, one 'VALUE NAME' a line") from error
    numbered = all(line.split()[0].isdigit() and len(line.split()) > 1 for line in lines)
    pairs = [
        (int(line.split()[0]), line.split(maxsplit=1)[1]) if numbered else (i, line) for i, line in enumerate(lines)
    ]
    for number, (value, name) in enumerate(pairs, start=1):
        if value > IGNORE:
            raise DataError(f"{file} line {number}: value {value} of '{name}' is above 255, the largest in a mask")
    if len(dict(pairs)) < len(pairs) or len({name for _, name in pairs}) < len(pairs):
        raise DataError(f"{file} names a value or a class twice; give each its own line")
    return dict(pairs)


def _number(root: Path, names: dict[int, str], ignored: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    """Class names in order, and the table from values to their indices."""
    unknown = set(ignored) - set(names.values())
    if unknown:
        raise DataError(
            f"ignore_classes has '{sorted(unknown)[0]}', but {root} has the classes {', '.join(names.values())}"
        )
    kept = [
        (value, name)
        for value, name in sorted(names.items())
        if value != IGNORE and name not in ignored and name.casefold() not in IGNORED_NAMES
    ]
    if len(kept) < 2:
        raise DataError(
            f"{root} has {len(kept)} classes besides the ignored ones; telling classes apart needs at least 2"
        )
    table = torch.full((256,), IGNORE, dtype=torch.uint8)
    for index, (value, _) in enumerate(kept):
        table[value] = index
    return tuple(name for _, name in kept), table
