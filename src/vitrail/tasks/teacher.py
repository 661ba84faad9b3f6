"""What a teacher shows of images, and how a student's output is compared with it.

A teacher is a trained model whose answers another one learns (Hinton et al., "Distilling the Knowledge in a Neural
Network", 2015, arXiv:1503.02531). This file knows neither its runtime nor its file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from vitrail.core.types import FeatureInfo
from vitrail.tasks.base import Task


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What a model says of a batch of images.

    Attributes:
        output: the raw output (b, ...); None where nobody asked for it, or training has none.
        maps: index of a level -> its map (b, c, h, w).
    """

    output: Tensor | None = None
    maps: Mapping[int, Tensor] = field(default_factory=dict)


class Teacher(ABC):
    """A trained model that shows what it sees.

    Attributes:
        title: what it is, for people.
        task: its task, with its raw outputs' meaning; None where only a file is there.
        task_name: name of its task; "" where that is unknown.
        classes: names of its classes, in the order of its outputs; empty where they are unknown.
        levels: maps that it can show; empty where it shows its output alone.
        num_outputs: length of its output, where that is one vector an image; else 0.
        fingerprint: hash of its weights, by which a resumed training knows it again.
        num_params: number of its parameters; 0 where that is unknown.
    """

    title: str = ""
    task: Task | None = None
    task_name: str = ""
    classes: tuple[str, ...] = ()
    levels: tuple[FeatureInfo, ...] = ()
    num_outputs: int = 0
    fingerprint: str = ""
    num_params: int = 0

    @abstractmethod
    def show(self, images: Tensor, levels: Sequence[int] = (), *, output: bool = True) -> Seen:
        """What it says of the very images that a student sees.

        Args:
            images: uint8 (b, 3, h, w), as they come from a loader; the teacher resizes and normalises them itself.
            levels: indices of the :attr:`levels` to show.
            output: whether its output is wanted.

        Returns:
            float32 tensors on the device of the images, without gradients.
        """
