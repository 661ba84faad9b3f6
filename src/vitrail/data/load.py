"""From a path to checked, split, labelled images."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitrail.core.config import check_choices
from vitrail.core.errors import ConfigError, DataError
from vitrail.data.check import FileCheck, check_files
from vitrail.data.decode import MAX_PIXELS
from vitrail.data.folders import REMEDY, list_class_folders
from vitrail.data.image_set import ImageSet
from vitrail.data.listing import Listing
from vitrail.data.sample import SAMPLE_CLASSES, read_sample
from vitrail.data.samples import draw_order
from vitrail.data.splits import DataSplits
from vitrail.data.table import list_table


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, and how they are split.

    Attributes:
        path: folder of images, or "sample" for the built-in photographs of hand signs. The folder has one folder of
            images a class, or train/, val/ and perhaps test/ with such folders, or a labels.csv.
        val_fraction: share of each class's training images that is kept for validation if the data has no such part; 1
            keeps all (to evaluate on a folder).
        max_bad_fraction: share of the images that may be undecodable; they are listed and skipped.
        seed: random seed of the split; the same seed gives the same split on every machine.
        max_pixels: largest number of pixels (height x width) of an image; larger images count as undecodable.
        ignore_classes: names of classes that are neither learnt nor measured (masks).
        bad_annotations: treatment of wrong boxes, masks and keypoints: "refuse" all of the data, or "skip" and list
            them.
    """

    path: str = "sample"
    val_fraction: float = 0.15
    max_bad_fraction: float = 0.01
    seed: int = 0
    max_pixels: int = MAX_PIXELS
    ignore_classes: tuple[str, ...] = ()
    bad_annotations: Literal["refuse", "skip"] = "refuse"

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction <= 1:
            raise ConfigError("is outside (0, 1]; 0.15 is usual", val_fraction=self.val_fraction)
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError("is outside [0, 1]; 0.01 is usual", max_bad_fraction=self.max_bad_fraction)
        if self.max_pixels < 1:
            raise ConfigError(f"is not positive; {MAX_PIXELS} is usual", max_pixels=self.max_pixels)
        check_choices(self)


def load_data(config: DataConfig, *, progress: bool = False) -> DataSplits[ImageSet]:
    """Find, check and split the images of ``config.path``.

    Every file is decoded once, and again only after it has changed. Parts that the data names are kept; otherwise
    ``val`` is cut from ``train``, class by class. A ``labels.csv`` without a ``split`` column is all ``test``.

    Args:
        config: what to load.
        progress: show a bar while files are checked.

    Raises:
        DataError: missing, empty or one-class data, a class that cannot be split, or more undecodable files than
            ``config.max_bad_fraction``.
    """
    if config.path == "sample":
        return _load_sample(config)
    root = Path(config.path).expanduser()
    if not root.exists():
        raise DataError(f"data folder {config.path} does not exist; {REMEDY}")
    if not root.is_dir():
        raise DataError(f"data {config.path} is not a folder; unpack archives first, then {REMEDY}")
    root = root.resolve()
    try:
        listing = list_table(root) if (root / "labels.csv").is_file() else list_class_folders(root)
    except PermissionError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}; check its permissions") from error
    checks = check_files(root, listing.names, max_pixels=config.max_pixels, progress=progress)
    skipped = _skip(listing, checks, config)
    return _split(listing, checks, skipped, config)


def stratified_split(
    names: Sequence[str], labels: Sequence[int], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Indices of two parts of which the second has ``fraction`` of every class (at least one image, never all of them).

    Fraction 1 puts everything into the second part.

    Raises:
        DataError: a class has one image only.
    """
    if fraction == 1:
        return [], list(range(len(names)))
    counts = Counter(labels)
    single = [names[labels.index(label)] for label, count in sorted(counts.items()) if count == 1]
    if single:
        raise DataError(
            f"{len(single)} {'classes have' if len(single) > 1 else 'class has'} only one image, which cannot be split "
            f"into training and validation ({', '.join(single[:5])}); add images, or give train/ and val/ folders"
        )
    quota = {label: min(max(round(count * fraction), 1), count - 1) for label, count in counts.items()}
    second: list[int] = []
    for index in draw_order(names, seed):
        if quota[labels[index]] > 0:
            quota[labels[index]] -= 1
            second.append(index)
    chosen = set(second)
    return [i for i in range(len(names)) if i not in chosen], sorted(second)


def _load_sample(config: DataConfig) -> DataSplits[ImageSet]:
    train, test = read_sample()
    first, second = stratified_split(train.names, train.labels.tolist(), config.val_fraction, config.seed)
    everything = [
        (name, label, hashlib.sha256(source).hexdigest())
        for part in (train, test)
        for name, label, source in zip(part.names, part.labels.tolist(), part.sources, strict=True)
        if isinstance(source, bytes)
    ]
    return DataSplits(
        classes=SAMPLE_CLASSES,
        train=train.subset(first),
        val=train.subset(second),
        test=test,
        fingerprint=_fingerprint(everything),
        skipped=(),
        source=config.path,
    )


def _skip(listing: Listing, checks: Sequence[FileCheck], config: DataConfig) -> set[int]:
    """Indices of the undecodable files, if they are few enough."""
    bad = {index for index, check in enumerate(checks) if check.problem is not None}
    if len(bad) > config.max_bad_fraction * len(checks):
        first = "; ".join(f"{listing.names[i]} {checks[i].problem}" for i in sorted(bad)[:3])
        more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise DataError(
            f"{len(bad)} of {len(checks)} images in {config.path} are unusable, more than the allowed "
            f"{config.max_bad_fraction:.1%}: {first}{more}; mend or delete them, or raise max_bad_fraction"
        )
    return bad


def _split(listing: Listing, checks: Sequence[FileCheck], bad: set[int], config: DataConfig) -> DataSplits[ImageSet]:
    _require_every_class(listing, bad)
    good = [i for i in range(len(listing.names)) if i not in bad]
    everything = ImageSet(
        listing.names, [listing.root / name for name in listing.names], listing.labels, max_pixels=config.max_pixels
    )
    parts = {part: [i for i in good if listing.parts[i] == part] for part in ("train", "val", "test", "")}
    to_cut = parts[""] or ([] if parts["val"] else parts["train"])
    if to_cut:
        first, second = stratified_split(
            [listing.names[i] for i in to_cut], [listing.labels[i] for i in to_cut], config.val_fraction, config.seed
        )
        parts["train"], parts["val"] = [to_cut[i] for i in first], [to_cut[i] for i in second]
    return DataSplits(
        classes=listing.classes,
        train=everything.subset(parts["train"]),
        val=everything.subset(parts["val"]),
        test=everything.subset(parts["test"]) if parts["test"] else None,
        fingerprint=_fingerprint((listing.names[i], listing.labels[i], checks[i].digest) for i in good),
        skipped=tuple(f"{listing.names[i]}: {checks[i].problem}" for i in sorted(bad)),
        source=config.path,
    )


def _require_every_class(listing: Listing, bad: set[int]) -> None:
    """A class whose training images all turned out undecodable cannot be learnt."""
    trainable = [i for i, part in enumerate(listing.parts) if part in ("train", "")]
    lost = {listing.labels[i] for i in trainable} - {listing.labels[i] for i in trainable if i not in bad}
    if lost:
        names = ", ".join(listing.classes[label] for label in sorted(lost)[:5])
        raise DataError(
            f"{len(lost)} {'classes have' if len(lost) > 1 else 'class has'} no usable training image ({names}); "
            f"add images or remove such classes"
        )


def _fingerprint(rows: Iterable[tuple[str, int, str]]) -> str:
    """SHA-256 over (name, label, digest of the contents), in the order of the names."""
    total = hashlib.sha256()
    for name, label, digest in sorted(rows):
        total.update(f"{name}\0{label}\0{digest}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()
