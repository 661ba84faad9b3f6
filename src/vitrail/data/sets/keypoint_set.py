"""Objects with keypoints, one sample an object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from vitrail.core.types import Preprocessing
from vitrail.data.pixels.augment import ResolvedAugment, colour_jitter, mirror_probability
from vitrail.data.pixels.view import View
from vitrail.data.records import PosedObject
from vitrail.data.sets.samples import Samples, Transform

MAX_TURN = 30.0
"""Degrees by which training objects are turned, either way."""

Target = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class KeypointSet(Samples):
    """One object a sample; several may share an image.

    Targets have ``keypoints`` (j, 3): x, y, 1 where labelled; ``area``; ``box``, all in pixels of the image. Fitted and
    augmented ones are in shares of the frame (``area`` of its area), and have no ``box`` but its longer ``side``.

    Attributes:
        skeleton: pairs of the data's keypoints that are joined by a line.
        places: index in the target of each of the data's keypoints.
        mirror: index of the keypoint that takes the place of each of the target's keypoints in a mirror.
    """

    records: Sequence[PosedObject]
    skeleton: tuple[tuple[int, int], ...]
    places: tuple[int, ...]
    mirror: tuple[int, ...]

    def target(self, index: int) -> Target:
        """In pixels of the image."""
        record = self.records[index]
        keypoints = torch.zeros(len(self.mirror), 3)
        keypoints[list(self.places)] = torch.tensor(record.keypoints)
        return {"keypoints": keypoints, "area": torch.tensor(record.area), "box": torch.tensor(record.box)}

    def fit(self, image: Tensor, target: Target, preprocessing: Preprocessing) -> tuple[Tensor, Target]:
        """The object with some margin, upright."""
        view = View.of(target["box"].tolist(), preprocessing.image_size)
        return _through(view, image, target, preprocessing)

    def train_transform(self, preprocessing: Preprocessing, augment: ResolvedAugment) -> Transform:
        """Turned, nearer and farther, mirrored where keypoints have left and right counterparts, other colours."""
        return partial(self._change, preprocessing, augment, colour_jitter(augment))

    def _change(
        self, how: Preprocessing, augment: ResolvedAugment, colours: Sequence[Any], image: Tensor, target: Target
    ) -> tuple[Tensor, Target]:
        turn, zoom, flip = torch.rand(3).tolist()
        low = augment.random_resized_crop_scale[0] ** 0.5
        nearness = low + zoom * (1 / low - low)
        view = View.of(target["box"].tolist(), how.image_size, zoom=nearness, turn=MAX_TURN * (2 * turn - 1))
        image, target = _through(view, image, target, how)
        if self.mirrored_alike and flip < mirror_probability(augment, mirrored_alike=True):
            image, target = self._flip(image, target)
        for step in colours:
            image = step(image)
        return image, target

    def _flip(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        keypoints = target["keypoints"].clone()
        keypoints[:, 0] = 1 - keypoints[:, 0]
        return image.flip(-1), target | {"keypoints": keypoints[torch.tensor(self.mirror)]}

    def collate(self, targets: list[Target]) -> Target:
        """``keypoints`` (b, j, 3), ``area`` (b,), ``side`` (b,)."""
        return {name: torch.stack([target[name] for target in targets]) for name in targets[0]}

    def renumber(self, table: Tensor) -> Self:
        """Keypoint i becomes ``table[i]``; those that the model knows besides stay unlabelled."""
        return replace(
            self,
            places=tuple(int(table[place]) for place in self.places),
            mirror=tuple(range(max(int(table.max()) + 1, len(self.mirror)))),
            mirrored_alike=False,  # pairs would have to be found among the model's names
        )


def _through(view: View, image: Tensor, target: Target, how: Preprocessing) -> tuple[Tensor, Target]:
    """An object as a view shows it."""
    height, width = view.frame
    places = view.to_frame(target["keypoints"][:, :2]) / torch.tensor([width, height])
    labelled = target["keypoints"][:, 2] * ((places > 0) & (places < 1)).all(1)
    box = target["box"]
    side = (box[2:] - box[:2]).max() * view.scale / max(height, width)
    area = target["area"] * view.scale**2 / (height * width)
    keypoints = torch.cat([places, labelled.unsqueeze(1)], 1)
    return view.image(image, how), {"keypoints": keypoints, "area": area, "side": side}
