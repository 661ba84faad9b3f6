"""Batches. A training epoch depends on (seed, epoch) alone: not on workers, earlier epochs, or a restart."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from vitrail.core.errors import ConfigError, DataError
from vitrail.core.seeds import seeded
from vitrail.core.types import Batch, Preprocessing
from vitrail.data.pixels.augment import AugmentConfig, ResolvedAugment
from vitrail.data.sets.samples import Mix, Samples, Transform

Key = tuple[int, int, int]
"""(epoch, index, how many times before in this epoch): what a sampler gives to workers, so that they know the epoch."""

Order = Callable[[torch.Generator], tuple[Tensor, Tensor]]
"""Draws the images of an epoch: their indices, and how many times each of them came before."""


class EpochSampler(DistributedSampler[Key]):
    """A shuffled order that is a pure function of (seed, epoch), divided among the processes of a distributed run.

    The n-th batches of all processes together are the n-th batch of a single process with their joint batch size, and
    there are as many. Where images do not suffice for one batch, some occur twice, so that each process has as many.

    Where ``accumulate`` batches make one step, their images are those of a batch that is as many times larger: what is
    left at the end of an epoch is dropped, unless it is all there is. ``order`` draws the images of an epoch; without
    it each image comes once.

    It is a DistributedSampler so that Lightning and others recognise it, call ``set_epoch``, and leave it in place;
    unlike its parent it looks for the process group when it is iterated, not when it is made.
    """

    def __init__(self, count: int, seed: int, batch_size: int, accumulate: int = 1, order: Order | None = None) -> None:
        super().__init__(range(count), num_replicas=1, rank=0, shuffle=True, seed=seed)  # type: ignore[arg-type]  # sized is enough
        self.count = count
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.order = order

    def __iter__(self) -> Iterator[Any]:
        replicas, rank = _world()
        generator = torch.Generator().manual_seed(_mixed_seed(self.seed, self.epoch, "order"))
        if self.order is None:
            order, times = torch.randperm(self.count, generator=generator), torch.zeros(self.count, dtype=torch.int64)
        else:
            order, times = self.order(generator)
        own = (torch.arange(len(self) * replicas) % self.count)[rank::replicas]
        return iter([(self.epoch, *pair) for pair in zip(order[own].tolist(), times[own].tolist(), strict=True)])

    def __len__(self) -> int:
        replicas, _ = _world()
        whole, step = self.count // replicas, self.batch_size * self.accumulate
        if whole < step:
            return math.ceil(self.count / replicas)
        return whole if self.accumulate == 1 else whole // step * step

    @property
    def images_per_step(self) -> int:
        """Images of one process that an optimiser step sees."""
        return min(self.batch_size * self.accumulate, len(self))


class TrainLoader(DataLoader[Any]):
    """A loader of augmented :class:`~vitrail.core.types.Batch` with an epoch to set."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields; Lightning does it by itself, through the sampler."""
        assert isinstance(self.sampler, EpochSampler)
        self.sampler.set_epoch(epoch)

    @property
    def images_per_step(self) -> int:
        """Images of one process that an optimiser step sees."""
        assert isinstance(self.sampler, EpochSampler)
        return self.sampler.images_per_step


@dataclass(frozen=True, eq=False)
class _Augmented(Dataset[tuple[Tensor, Any, Key]]):
    images: Samples
    transform: Transform
    seed: int
    num_views: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Key) -> tuple[Tensor, Any, Key]:
        epoch, index, times = key
        if self.num_views:
            epoch, times = (epoch + times) % self.num_views, 0
            key = (epoch, index, times)
        image, target = self.images[index]
        with seeded(_mixed_seed(self.seed, epoch, _which(index, times))):
            return *self.transform(image, target), key


@dataclass(frozen=True, eq=False)
class _Fitted(Dataset[tuple[Tensor, Any]]):
    images: Samples
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self.images.fitted(index, self.preprocessing)


@dataclass(frozen=True)
class _TrainCollate:
    collate: Callable[[list[Any]], Any]
    mix: Mix | None
    seed: int
    num_views: int

    def __call__(self, samples: list[tuple[Tensor, Any, Key]]) -> Batch:
        batch = _collate(self.collate, [(image, target) for image, target, _ in samples])
        if self.num_views:
            return replace(batch, keys=torch.tensor([(index, view) for _, _, (view, index, _) in samples]))
        if self.mix is None:
            return batch
        epoch, first, times = samples[0][2]
        with seeded(_mixed_seed(self.seed, epoch, f"mix {_which(first, times)}")):
            mixed, targets = self.mix(batch.images, batch.targets)
        return Batch(images=mixed, targets=targets)


def _collate(collate: Callable[[list[Any]], Any], samples: list[tuple[Tensor, Any]]) -> Batch:
    images, targets = zip(*samples, strict=True)
    return Batch(images=torch.stack(images), targets=collate(list(targets)))


def train_loader(
    images: Samples,
    preprocessing: Preprocessing,
    augment: AugmentConfig,
    *,
    batch_size: int,
    num_workers: int,
    seed: int,
    num_classes: int,
    accumulate: int = 1,
    order: Order | None = None,
    num_views: int = 0,
) -> TrainLoader:
    """Shuffled, augmented batches: uint8 images (b, 3, h, w) and the targets as the samples collate them; class indices
    become soft labels (b, num_classes) where ``augment`` mixes images.

    The order and every random change are a pure function of (seed, epoch); set the epoch with ``set_epoch``. The global
    random state is left as it was. What ``augment`` leaves out is as from random weights. A last batch that is not full
    is dropped, unless it is the only one; so are the last batches where they are fewer than the ``accumulate`` ones of
    a step. ``order`` draws the images of an epoch. With ``num_views`` an image has only so many random views, which the
    epochs take in turn, and batches have :attr:`~vitrail.core.types.Batch.keys`.

    Raises:
        DataError: there are no images.
        ConfigError: ``augment`` mixes images, which are then no views of one, or asks for what the targets do not
            allow.
    """
    if len(images) == 0:
        raise DataError(
            "there are no training images; give class folders, train/ and val/ folders, or labels.csv with a 'split'"
        )
    sampler = EpochSampler(len(images), seed, batch_size, accumulate, order)
    changes = augment.resolved(ResolvedAugment())
    mix = images.mix(changes, num_classes)
    if num_views and mix is not None:
        told = "mixes images, whose answers cannot be kept; leave out mixup_alpha and cutmix_alpha, or give 0"
        raise ConfigError(told, cache_teacher=num_views)
    return TrainLoader(
        _Augmented(images, images.train_transform(preprocessing, changes), seed, num_views),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=_TrainCollate(images.collate, mix, seed, num_views),
        drop_last=len(sampler) >= batch_size * accumulate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        generator=torch.Generator().manual_seed(seed),  # or each epoch would draw from the global one
    )


def eval_loader(
    images: Samples, preprocessing: Preprocessing, *, batch_size: int, num_workers: int = 0
) -> DataLoader[Any]:
    """Batches in order: uint8 images (b, 3, h, w), fitted by ``preprocessing``, and the targets that belong to them.

    Raises:
        DataError: there are no images.
    """
    if len(images) == 0:
        raise DataError("there are no images to evaluate on; check the data folder and its split")
    return DataLoader(
        _Fitted(images, preprocessing),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=partial(_collate, images.collate),
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        generator=torch.Generator().manual_seed(0),
    )


def calibration_images(images: Samples, preprocessing: Preprocessing, count: int, seed: int) -> Tensor:
    """``count`` images (all, if there are fewer) chosen by seed, normalised: float32 (n, 3, h, w).

    Raises:
        DataError: there are no images, or ``count`` is not positive.
    """
    if len(images) == 0 or count < 1:
        raise DataError(f"cannot take {count} calibration images from {len(images)}; need at least 1 of each")
    chosen = images.sample(count, seed)
    fitted = torch.stack([chosen.fitted(i, preprocessing)[0] for i in range(len(chosen))])
    return preprocessing.normalize(fitted)


def _world() -> tuple[int, int]:
    """(number of processes, our rank)"""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size(), distributed.get_rank()
    return 1, 0


def balanced_order(labels: Tensor) -> Order:
    """As many images as there are, each class that occurs as often as any other, or once more.

    Of a class with fewer images all come before one comes again; of a class with more each epoch draws others.

    Args:
        labels: class of each image (n,).
    """
    counts = labels.bincount()
    members = labels.argsort(stable=True).split(counts.tolist())
    classes = counts.nonzero().flatten()

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        each, more = divmod(len(labels), len(classes))
        chosen, times = [], []
        for place, label in enumerate(classes[torch.randperm(len(classes), generator=generator)].tolist()):
            wanted, own = each + (place < more), members[label]
            rounds = [own[torch.randperm(len(own), generator=generator)] for _ in range(math.ceil(wanted / len(own)))]
            chosen += [round[: wanted - i * len(own)] for i, round in enumerate(rounds)]
            times.append(torch.arange(wanted) // len(own))
        order = torch.randperm(len(labels), generator=generator)
        return torch.cat(chosen)[order], torch.cat(times)[order]

    return draw


def _which(index: int, times: int) -> str:
    """An image's name in random draws; one that comes again in an epoch is changed in another way."""
    return f"{index} again {times}" if times else f"{index}"


def _mixed_seed(seed: int, epoch: int, what: int | str) -> int:
    """A seed from three parts: a change of any part gives an unrelated stream, unlike a sum of the parts."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{what}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")
