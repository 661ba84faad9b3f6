"""Images with people's opinion of them: a mean score, the votes, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor
from torchvision.transforms import v2

from vitrail.core.types import Preprocessing
from vitrail.data.pixels.augment import ResolvedAugment, crop_and_mirror
from vitrail.data.pixels.fit import fit_image
from vitrail.data.records import ScoredImage
from vitrail.data.sets.samples import Samples, Transform, image_alone

Target = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ScoreSet(Samples):
    """Images with scores.

    Attributes:
        scale: scores that votes may have, or the bins that are learnt where only means are known.
    """

    records: Sequence[ScoredImage]
    scale: tuple[float, ...]

    def target(self, index: int) -> Target:
        """``score``, the mean, and ``distribution`` (bins,), the shares of the votes; where there are no votes, the
        mean lies between its two neighbours on the scale."""
        record = self.records[index]
        if record.votes:
            votes = torch.tensor(record.votes)
            return {"score": torch.tensor(record.score), "distribution": votes / votes.sum()}
        scale = torch.tensor(self.scale)
        distance = (scale - record.score).abs() / (scale[1] - scale[0])
        return {"score": torch.tensor(record.score), "distribution": (1 - distance).clamp(min=0)}

    def fit(self, image: Tensor, target: Target, preprocessing: Preprocessing) -> tuple[Tensor, Target]:
        """The image resized and cropped in the centre."""
        return fit_image(image, preprocessing), target

    def train_transform(self, preprocessing: Preprocessing, augment: ResolvedAugment) -> Transform:
        """Random crops and mirror images; other colours would deserve another score."""
        steps = crop_and_mirror(preprocessing, augment, mirrored_alike=self.mirrored_alike)
        return partial(image_alone, v2.Compose([*steps]))

    def collate(self, targets: list[Target]) -> Target:
        """``score`` (b,), ``distribution`` (b, bins)."""
        return {name: torch.stack([target[name] for target in targets]) for name in ("score", "distribution")}

    def renumber(self, table: Tensor) -> Self:
        """The same: there are no classes."""
        return self
