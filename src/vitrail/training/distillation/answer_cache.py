"""What a teacher said, kept on the disk, so that it looks once at each picture."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.core.errors import ConfigError, VitrailError
from vitrail.core.files import atomic_path, remove
from vitrail.core.types import Batch, ImageSize
from vitrail.tasks.teacher import Seen, Teacher

LARGEST = float(np.finfo(np.float16).max)
ZEROS = 1 << 20
"""Bytes that are written at once."""

PREFIX, SUFFIX = "teacher-", ".f16"


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Shapes of what a teacher shows of one image.

    Attributes:
        output: of its output; None where that is not wanted.
        maps: index of a level -> (c, h, w).
    """

    output: tuple[int, ...] | None
    maps: dict[int, tuple[int, ...]]

    @classmethod
    def of(cls, teacher: Teacher, size: ImageSize, levels: Sequence[int], *, output: bool) -> Self:
        """Shapes of what a teacher shows of images of a size, from a look at a black one."""
        shown = teacher.show(torch.zeros(1, 3, *size, dtype=torch.uint8), levels, output=output)
        maps = {level: tuple(one.shape[1:]) for level, one in shown.maps.items()}
        return cls(output=None if shown.output is None else tuple(shown.output.shape[1:]), maps=maps)

    @property
    def parts(self) -> list[tuple[int, ...]]:
        """The shape of everything, the output first."""
        return [*([] if self.output is None else [self.output]), *(self.maps[level] for level in sorted(self.maps))]

    @property
    def num_values(self) -> int:
        """Number of values an image."""
        return sum(map(prod, self.parts))


class AnswerCache:
    """Answers to the views of all training images, in half precision.

    Every value is rounded before its first use, so that a training that continues has the same ones. A row ends with a
    1 once it is there. The file is as long as it will ever be from the start: a full disk is told before the training.

    Args:
        path: the file; one that is there goes on.
        shapes: what is kept of an image.
        num_views: views of each image.
        num_images: training images.

    Raises:
        ConfigError: the disk has not the room.
        VitrailError: the file cannot be written.
    """

    def __init__(self, path: Path, shapes: Shapes, *, num_views: int, num_images: int) -> None:
        self.path, self.shapes = path, shapes
        shape = (num_views, num_images, shapes.num_values + 1)
        self.size_bytes = 2 * prod(shape)
        if not path.exists() or path.stat().st_size != self.size_bytes:
            self._make(num_views)
        self.rows: NDArray[Any] = np.memmap(path, dtype=np.float16, mode="r+", shape=shape)

    def _make(self, num_views: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.path.parent).free
        needed = f"the teacher's answers take {_size(self.size_bytes)}, and {self.path.parent} has {_size(free)} free"
        if self.size_bytes > free:
            raise ConfigError(f"{needed}; lower it, or teach logits alone", cache_teacher=num_views)
        try:
            with atomic_path(self.path) as temporary, temporary.open("wb") as file:
                _fill(file, self.size_bytes)
        except OSError as error:
            raise VitrailError(f"cannot write {self.path}: {error.strerror}; {needed}") from error

    def show(self, teacher: Teacher, batch: Batch) -> Seen:
        """What the teacher says of a batch; it is asked for what is not there yet."""
        assert batch.keys is not None
        images, views = (one.cpu().numpy() for one in batch.keys.unbind(1))
        missing = np.flatnonzero(self.rows[views, images, -1] != 1)
        if len(missing):
            wanted = batch.images[torch.from_numpy(missing).to(batch.images.device)]
            shown = teacher.show(wanted, sorted(self.shapes.maps), output=self.shapes.output is not None)
            self._keep(shown, images[missing], views[missing])
        return self._read(images, views, batch.images.device)

    def _keep(self, shown: Seen, images: NDArray[Any], views: NDArray[Any]) -> None:
        parts = [*([] if shown.output is None else [shown.output]), *(shown.maps[one] for one in sorted(shown.maps))]
        values = torch.cat([one.flatten(1) for one in parts], 1).clamp(-LARGEST, LARGEST).half().cpu().numpy()
        for row, image, view in zip(values, images, views, strict=True):
            self.rows[view, image, :-1] = row
            self.rows[view, image, -1] = 1  # after its values, also for another process

    def _read(self, images: NDArray[Any], views: NDArray[Any], device: torch.device) -> Seen:
        found = torch.from_numpy(self.rows[views, images, :-1]).to(device).float()
        sizes = [prod(shape) for shape in self.shapes.parts]
        parts: list[Tensor] = [
            one.reshape(len(found), *shape) for one, shape in zip(found.split(sizes, 1), self.shapes.parts, strict=True)
        ]
        output = None if self.shapes.output is None else parts.pop(0)
        return Seen(output=output, maps=dict(zip(sorted(self.shapes.maps), parts, strict=True)))


def _fill(file: BinaryIO, size: int) -> None:
    """Make a new file as long as it will be, with room on the disk for all of it."""
    if hasattr(os, "posix_fallocate"):
        try:
            return os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise  # only some file systems lack it
    for start in range(0, size, ZEROS):
        file.write(bytes(min(ZEROS, size - start)))
    return None


def cache_path(folder: Path, facts: Sequence[Any]) -> Path:
    """The file of answers that depend on these facts."""
    return folder / f"{PREFIX}{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}{SUFFIX}"


def forget_answers(folder: Path, *, but: Path | None = None) -> None:
    """Delete the files of answers in a folder, but for one."""
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        if path != but:
            remove(path)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
