"""Aesthetics: the distribution of the scores that people give an image.

Source: Tu et al., MaxViT, ECCV 2022, arXiv:2204.01697, appendix A.3; the loss is that of Talebi and Milanfar, "NIMA:
Neural Image Assessment", IEEE TIP 2018, arXiv:1709.05424.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from vitrail.core.errors import ConfigError
from vitrail.data import load_scores
from vitrail.device.outputs import rate
from vitrail.models import Backbone
from vitrail.tasks.answers import Answers
from vitrail.tasks.base import Score, Task
from vitrail.tasks.findings.plain_words import out_of
from vitrail.tasks.findings.rating_findings import RatingFindings
from vitrail.tasks.imitation import Imitation, shares
from vitrail.tasks.kind import TaskKind

if TYPE_CHECKING:
    from torchmetrics import Metric

LEAST = 1e-12
"""Lower bound under the root: the root's gradient at 0 is infinite, and one perfect answer would end the training."""

AVA_SCALE = (1.0, 10.0)
AVA_THRESHOLD = 5.0


@dataclass(frozen=True, kw_only=True)
class AestheticsOptions:
    """
    Attributes:
        power: exponent r of the earth mover's distance.
        dropout: dropout before the head; the paper has 0.75 for 255,000 images.
        threshold: score above which an image counts as good in the accuracy; 0 is 5 on the scale of 1 to 10, as usual
            with AVA, and the middle of any other.
    """

    power: float = 2.0
    dropout: float = 0.0
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.power < 1:
            raise ConfigError("is below 1; 2 is usual", power=self.power)
        if not 0 <= self.dropout < 1:
            raise ConfigError("is outside [0, 1)", dropout=self.dropout)


@dataclass(frozen=True)
class Rating:
    """The predicted scores of an image.

    Attributes:
        score: the mean.
        deviation: standard deviation of single votes; after training on means alone, the model's uncertainty.
        distribution: share of the votes for each score of the scale; empty where it is not known.
    """

    score: float
    deviation: float
    distribution: tuple[float, ...]


def emd(predicted: Tensor, target: Tensor, power: float = 2.0) -> Tensor:
    """Earth mover's distance of distributions over ordered bins: (mean over bins of |CDF - CDF|^r)^(1/r).

    Args:
        predicted, target: (b, bins), each row summing to 1.
        power: r.

    Returns:
        (b,), from 0 to 1.
    """
    differences = (predicted.cumsum(1) - target.cumsum(1)).abs()
    return differences.pow(power).mean(1).clamp(min=LEAST).pow(1 / power)


class AestheticsTask(Task):
    """A distribution over scores from pooled features.

    Args:
        backbone: any with ``num_classes == 0``.
        scale: the scores that a vote can have, ascending.
        options: loss and regularisation.

    Raises:
        ConfigError: fewer than two scores, or a threshold outside of the scale.
    """

    name = "aesthetics"
    scores = (
        Score(name="srcc", title="SRCC", percent=False),
        Score(name="plcc", title="PLCC", percent=False),
        Score(name="accuracy", title="accuracy at the threshold"),
        Score(name="mean_error", title="mean error of the score", higher_is_better=False, percent=False),
    )
    crop_fraction = 1.0
    usual_epochs = 40
    output_name = "distribution"
    scale: Tensor

    def __init__(self, backbone: Backbone, scale: Sequence[float], options: AestheticsOptions | None = None) -> None:
        super().__init__(backbone)
        self.options = options or AestheticsOptions()
        if len(scale) < 2 or list(scale) != sorted(set(scale)):
            raise ConfigError(f"scale {list(scale)} is not two or more ascending scores")
        usual = AVA_THRESHOLD if (scale[0], scale[-1]) == AVA_SCALE else (scale[0] + scale[-1]) / 2
        self.threshold = self.options.threshold or usual
        if not scale[0] <= self.threshold < scale[-1]:
            raise ConfigError(f"threshold={self.threshold} is outside of the scale from {scale[0]:g} to {scale[-1]:g}")
        self.dropout = nn.Dropout(self.options.dropout)
        self.head = nn.Linear(backbone.num_features, len(scale))
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (b, c, h, w) to the share of votes for each score (b, bins)."""
        return self.head(self.dropout(self.backbone(images))).softmax(1)

    def loss(self, output: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Mean earth mover's distance of the images."""
        return emd(output.float(), targets["distribution"], self.options.power).mean()

    def imitations(self) -> Mapping[str, Imitation]:
        """The shares of the scores."""
        return {"logits": shares}

    def differs_from(self, teacher: Task) -> str:
        own, other = self.scale.tolist(), teacher.scale.tolist() if isinstance(teacher, AestheticsTask) else []
        same = not other or own == other
        return "" if same else f"it rates from {other[0]:g} to {other[-1]:g} in {len(other)} scores"

    def decoding(self) -> dict[str, Any]:
        """The scores that the shares belong to."""
        return super().decoding() | {"scale": self.scale.tolist()}

    def mean_scores(self, output: Tensor) -> Tensor:
        """Distributions (b, bins) to their means (b,)."""
        return output.float() @ self.scale.to(output.device)

    def metrics(self) -> Metric:
        """``srcc``, ``plcc``, ``accuracy`` and ``mean_error`` of the mean scores."""
        from vitrail.tasks.metrics.correlation import ScoreMetric

        return ScoreMetric(self.scale.tolist(), self.threshold)

    def findings(self) -> RatingFindings:
        """Who is put before whom, and how far scores are off."""
        return RatingFindings(self.scale, self.threshold)

    @classmethod
    def in_words(cls, report: Mapping[str, Any], findings: Mapping[str, Any], images: str) -> str:
        right, error = findings.get("right"), report.get("mean_error")
        if not right or not right["of"] or error is None:
            return super().in_words(report, findings, images)
        share = out_of(right["count"] / 2, right["of"] / 2)
        return (
            f"On {images}, it puts the better of two images first in {share} pairs, and its scores are off by "
            f"{error:.2f} on average."
        )


class AestheticsAnswers(Answers[AestheticsTask, Rating]):
    """A rating of each image; the best images come first."""

    columns = {"score": "number", "deviation": "number"}

    def decode(self, output: Tensor) -> list[Rating]:
        """Distributions (b, bins) to ratings."""
        scale = self.task.scale.tolist()
        return [
            Rating(*rate(shares, scale), tuple(shares.tolist())) for shares in output.detach().float().cpu().numpy()
        ]

    def rank(self, answer: Rating) -> float:
        """Images are listed by their score, the best first."""
        return answer.score

    def rows(self, answer: Rating) -> list[tuple[Any, ...]]:
        """The score, and how far opinions differ."""
        return [(answer.score, answer.deviation)]

    def to_dict(self, answer: Rating) -> dict[str, Any]:
        """``score``, ``deviation`` and ``distribution``: score -> share of the votes."""
        names = [f"{score:g}" for score in self.task.scale.tolist()]
        shares = dict(zip(names, answer.distribution, strict=True)) if answer.distribution else {}
        return {"score": answer.score, "deviation": answer.deviation, "distribution": shares}

    def truth(self, target: Mapping[str, Tensor]) -> Rating:
        """The given mean."""
        return Rating(float(target["score"]), 0.0, ())

    def draw(self, image: Tensor, answer: Rating) -> Tensor:
        """The image with its score in the corner."""
        picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
        text, size = f"{answer.score:.2f}", max(min(image.shape[-2:]) // 8, 10)
        pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
        left, top, right, bottom = pen.textbbox((size // 4, size // 4), text, font=font)
        pen.rectangle((0, 0, right + left, bottom + top), fill=(0, 0, 0))
        pen.text((size // 4, size // 4), text, font=font, fill=(255, 255, 255))
        return torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())


AESTHETICS = TaskKind(
    task=AestheticsTask,
    build=lambda backbone, spec, options: AestheticsTask(
        backbone, [float(one) for one in spec.facts["scale"]], options
    ),
    answers=AestheticsAnswers,
    load_data=load_scores,
    options=AestheticsOptions,
    notes={"scale": lambda data: list(data.train.scale)},
)
