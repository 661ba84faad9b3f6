"""Masked prediction: hidden patches are predicted from the others, which teaches a backbone without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from vitrail.core.errors import ConfigError
from vitrail.core.types import ImageSize, Preprocessing
from vitrail.data import fit_image, load_pictures
from vitrail.models import Backbone, TokenBackbone
from vitrail.tasks.answers import Answers
from vitrail.tasks.base import Score, Task
from vitrail.tasks.heads.masking import Cell, CorruptedPatches, DroppedPatches, Hidden, PaintedCells, draw_hidden
from vitrail.tasks.heads.patches import Colours, PatchTarget, Pixels, cut, join
from vitrail.tasks.kind import TaskKind

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

FEWEST_CELLS = 4
"""Least number of cells a side of the painted grid, where the stride can be divided."""

RATIOS = {"mpp": 0.5, "mae": 0.75}
GREY = 128

Target = Literal["auto", "mean_colour", "small_patch", "pixels"]


@dataclass(frozen=True, kw_only=True)
class PretrainingOptions:
    """
    Attributes:
        objective: method: "mpp" corrupts patch embeddings, "mae" drops patches and decodes; backbones that need a whole
            map get a painted image in both.
        target: prediction for a hidden patch: its mean colour in 3 bits, the colours of its 4x4 downsized version, or
            its pixels; "auto" is the mean colour for "mpp" and pixels for "mae".
        ratio: share of the patches that is hidden; 0 is the method's own, 0.5 and 0.75.
        masked: share of the hidden patches whose embedding becomes the mask, in "mpp" on plain backbones.
        other: share of the hidden patches that become another patch; the rest is left as it is, and predicted too.
        normalize: predict pixels relative to each patch's mean and deviation.
        cell: pixels a side of the painted squares; 0 is the stride of the last level, divided until there are 4 a side.
        decoder_width: width of MAE's decoder; 0 is half the backbone's, in whole heads of 32.
        decoder_depth: number of blocks of MAE's decoder.
    """

    objective: Literal["mpp", "mae"] = "mpp"
    target: Target = "auto"
    ratio: float = 0.0
    masked: float = 0.8
    other: float = 0.1
    normalize: bool = True
    cell: int = 0
    decoder_width: int = 0
    decoder_depth: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise ConfigError("is not a share below 1; 0.5 and 0.75 are usual", ratio=self.ratio)
        if self.masked < 0 or self.other < 0 or self.masked + self.other > 1:
            raise ConfigError("need 0 or more, and at most 1 together", masked=self.masked, other=self.other)
        for name, least in (("cell", 0), ("decoder_width", 0), ("decoder_depth", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"is below {least}", **{name: getattr(self, name)})


@dataclass(frozen=True)
class Reconstruction:
    """An image with its hidden patches predicted.

    Attributes:
        loss: mean over the hidden patches.
        picture: the visible patches, the prediction and the image, side by side: (3, h, 3 w), uint8.
    """

    loss: float
    picture: Tensor


class PretrainingTask(Task):
    """Hidden patches are predicted from the others; later tasks use the backbone alone.

    In training, different patches are hidden for every image and epoch. In evaluation they are always the same, so that
    the losses of two models compare and an exported file repeats them.
    """

    name = "pretraining"
    scores = (Score(name="masked_loss", title="loss on hidden patches", higher_is_better=False, percent=False),)
    comparable = False
    teachable = False
    crop_fraction = 1.0
    output_name = "patches"

    def __init__(self, backbone: Backbone, options: PretrainingOptions | None = None) -> None:
        super().__init__(backbone)
        self.options = options or PretrainingOptions()
        size = backbone.config.image_size
        self.painted = not isinstance(backbone, TokenBackbone)
        stride = backbone.feature_info[-1].stride
        self.cell = _cell(self.options.cell, stride, size) if self.painted else stride
        self.grid: ImageSize = (size[0] // self.cell, size[1] // self.cell)
        self.encoder, width = self._make_encoder(backbone)
        self.split = stride // self.cell
        self.patch_target = _make_target(self.options, self.cell)
        self.head = nn.Linear(width, self.patch_target.num_outputs * self.split**2)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        fixed = self._draw(1, generator=torch.Generator().manual_seed(0))
        for name in ("cells", "others", "seen"):
            self.register_buffer(f"fixed_{name}", getattr(fixed, name), persistent=False)

    def _make_encoder(self, backbone: Backbone) -> tuple[nn.Module, int]:
        width = backbone.feature_info[-1].channels
        if not isinstance(backbone, TokenBackbone):
            return PaintedCells(backbone, self.cell), width
        if self.options.objective == "mpp":
            return CorruptedPatches(backbone), width
        decoder = self.options.decoder_width or max(width // 64, 1) * 32
        if decoder % 32:
            raise ConfigError(f"decoder_width={decoder} is not a multiple of 32, the width of its heads")
        return DroppedPatches(backbone, self.grid, decoder, self.options.decoder_depth), decoder

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (b, c, h, w) to predictions of all patches and, last, whether each was hidden:
        (b, n, num_outputs + 1)."""
        count = images.shape[0]  # not len(images), which would tie an exported file to one batch size
        hidden = self._draw(count, device=images.device) if self.training else self._fixed(count)
        output = self.head(self.encoder(self.backbone, images, hidden))
        if self.split > 1:
            output = self._divide(output)
        flags = (hidden.cells != Cell.SEEN).unsqueeze(-1).to(output.dtype)
        return torch.cat([output, flags], 2)

    def _draw(self, batch: int, **source: Any) -> Hidden:
        options = self.options
        corrupts = not self.painted and options.objective == "mpp"
        masked, other = (options.masked, options.other) if corrupts else (1.0, 0.0)
        ratio = options.ratio or RATIOS[options.objective]
        count = self.grid[0] * self.grid[1]
        return draw_hidden(batch, count, ratio=ratio, masked=masked, other=other, **source)

    def _fixed(self, batch: int) -> Hidden:
        parts = (self.get_buffer(f"fixed_{name}").expand(batch, -1) for name in ("cells", "others", "seen"))
        return Hidden(*parts)

    def _divide(self, output: Tensor) -> Tensor:
        """Predictions of a token (b, tokens, split^2 k) as those of its squares, row by row (b, n, k)."""
        rows, columns, split = self.grid[0] // self.split, self.grid[1] // self.split, self.split
        parts = output.reshape(-1, rows, columns, split, split, self.patch_target.num_outputs)
        return parts.permute(0, 1, 3, 2, 4, 5).flatten(1, 4)

    def loss(self, output: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Mean over the hidden patches."""
        flags = output[..., -1].float()
        return (self.patch_target.losses(output[..., :-1], targets["image"]) * flags).sum() / flags.sum()

    def metrics(self) -> MetricCollection:
        """``masked_loss``."""
        from torchmetrics import MeanMetric, MetricCollection

        loss = self.loss

        class MaskedLoss(MeanMetric):
            def update(self, output: Tensor, targets: Mapping[str, Tensor]) -> None:  # type: ignore[override]
                super().update(loss(output, targets).detach(), len(output))

        return MetricCollection({"masked_loss": MaskedLoss()})

    @classmethod
    def in_words(cls, report: Mapping[str, Any], findings: Mapping[str, Any], images: str) -> str:
        return (
            f"{super().in_words(report, findings, images)} How good the backbone is, only a task tells that is trained "
            f"from it (--weights RUN)."
        )

    def agreement(self, output: Tensor, reference: Tensor) -> float:
        """Share of patches whose largest prediction is in the same place."""
        return super().agreement(output[..., :-1].transpose(1, 2), reference[..., :-1].transpose(1, 2))


class PretrainingAnswers(Answers[PretrainingTask, Reconstruction]):
    """Each image with its hidden patches predicted."""

    columns = {"loss": "number"}

    def decode(self, output: Tensor) -> list[Reconstruction]:
        """
        Raises:
            ConfigError: always; a reconstruction needs the image that patches were hidden of.
        """
        raise ConfigError(f"outputs of shape {tuple(output.shape)} are only decoded beside their images; use predict")

    def predict(
        self, images: Sequence[Tensor], preprocessing: Preprocessing, top_k: int | None = None
    ) -> list[Reconstruction]:
        """Every image with half of it hidden and predicted, as large as the model sees it."""
        fitted = [fit_image(image, preprocessing) for image in images]
        outputs = self.outputs(images, preprocessing).cpu()
        return [self._reconstruct(*pair) for pair in zip(outputs, fitted, strict=True)]

    def _reconstruct(self, output: Tensor, image: Tensor) -> Reconstruction:
        output, images = output.unsqueeze(0), image.unsqueeze(0)
        hidden = (output[..., -1] > 0)[..., None, None, None]
        patches = cut(images, self.task.cell)
        predicted = torch.where(hidden, self.task.patch_target.pixels(output[..., :-1], images), patches)
        seen = torch.where(hidden, torch.full_like(patches, GREY), patches)
        pictures = [join(part, self.task.grid[1])[0] for part in (seen, predicted, patches)]
        return Reconstruction(float(self.task.loss(output, {"image": images})), torch.cat(pictures, 2))

    def rows(self, answer: Reconstruction) -> list[tuple[Any, ...]]:
        """The loss."""
        return [(answer.loss,)]

    def to_dict(self, answer: Reconstruction) -> dict[str, Any]:
        """``loss``."""
        return {"loss": answer.loss}

    def draw(self, image: Tensor, answer: Reconstruction) -> Tensor:
        """The visible patches, the prediction, and the image."""
        return answer.picture


def _make_target(options: PretrainingOptions, size: int) -> PatchTarget:
    name = options.target if options.target != "auto" else {"mpp": "mean_colour", "mae": "pixels"}[options.objective]
    if name == "pixels":
        return Pixels(size, options.normalize)
    side = 4 if name == "small_patch" else 1
    if size % side:
        raise ConfigError(f"target=small_patch cuts patches into 4x4 parts, and a side of {size} pixels is no multiple")
    return Colours(size, side)


def _cell(wanted: int, stride: int, size: ImageSize) -> int:
    """Pixels a side of the painted squares."""
    cell = wanted or stride
    while not wanted and cell % 2 == 0 and cell > 4 and min(size) // cell < FEWEST_CELLS:
        cell //= 2
    if stride % cell or size[0] % stride or size[1] % stride:
        raise ConfigError(
            f"cell={cell} does not divide the stride of the last level, {stride} pixels, or that does not divide the "
            f"image of {size[0]}x{size[1]}"
        )
    return cell


PRETRAINING = TaskKind(
    task=PretrainingTask,
    build=lambda backbone, _, options: PretrainingTask(backbone, options),
    answers=PretrainingAnswers,
    load_data=partial(load_pictures, labelled=False, crops=True),
    options=PretrainingOptions,
)
