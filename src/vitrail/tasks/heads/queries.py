"""Detection without anchors and without suppression of duplicates: D-FINE and RT-DETRv2, transformers' own modules.

Everything after the backbone is theirs: hybrid encoder, selection of queries, decoder, losses with Hungarian matching
and denoising. Theirs too are the names in the state dict, under ``head.detector``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from vitrail.core.errors import ConfigError
from vitrail.core.types import ImageSize
from vitrail.layers.query_detector import QueryKind, make_query_detector, require_transformers
from vitrail.tasks.heads.retinanet import Targets
from vitrail.tasks.heads.selection import stable_topk

NUM_LEVELS = 3
"""Number of maps, the coarsest ones, as in both papers."""


class _Maps(list[Tensor]):
    """Projected maps as transformers takes them in place of an image: a list with the batch size and the device."""

    @property
    def shape(self) -> torch.Size:
        return self[0].shape

    @property
    def device(self) -> torch.device:
        return self[0].device


class QueryDetector(nn.Module):
    """A set of queries, each an object or nothing.

    Args:
        kind: "dfine" or "rtdetrv2".
        channels: channels of each map, finest first.
        shapes: (rows, columns) of the maps.
        size: (height, width) of the images.
        num_classes: without a background.
        width: channels of encoder and decoder.
        num_queries: rows of the output, at most one for each place of the maps.

    Raises:
        ConfigError: the maps are not each half the size of the one before, as the encoder needs them.
        MissingDependencyError: transformers, or scipy, is not installed.
    """

    anchors: Tensor
    valid: Tensor

    def __init__(
        self,
        kind: QueryKind,
        channels: Sequence[int],
        shapes: Sequence[ImageSize],
        size: ImageSize,
        num_classes: int,
        *,
        width: int,
        num_queries: int,
    ) -> None:
        super().__init__()
        _check_halves(kind, shapes, size)
        places = sum(rows * columns for rows, columns in shapes)
        detector: Any = make_query_detector(
            kind,
            _no_backbone(len(channels)),
            channels,
            [size[0] // rows for rows, _ in shapes],
            num_classes,
            width=width,
            num_queries=min(num_queries, places),
        )
        model = detector.model
        model.backbone = nn.Identity()  # ours is outside
        anchors, valid = model.generate_anchors(tuple(shapes))
        self.register_buffer("anchors", anchors, persistent=False)
        self.register_buffer("valid", valid.float(), persistent=False)
        self.shapes = tuple(shapes)
        model.encoder_input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(count, width, 1, bias=False), nn.BatchNorm2d(width)) for count in channels
        )
        # the same layers as in the decoder, where alone they are used; a file of weights has no place for both
        del detector.class_embed, detector.bbox_embed
        self.detector = detector

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Levels (b, channels_i, h_i, w_i) to (b, num_queries, 4 + classes), boxes as shares of the frame and logits.

        The detector's own pass reads the batch size as a plain number, which would fix it in files, and its choice
        between equal scores depends on the runtime. Here its parts are called one after another.
        """
        model = self.detector.model
        maps = model.encoder(self._projected(levels)).last_hidden_state
        maps = [project(level) for project, level in zip(model.decoder_input_proj, maps, strict=True)]
        memory = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], 1)
        places = model.enc_output(self.valid.to(memory.dtype) * memory)
        boxes = model.enc_bbox_head(places) + self.anchors
        chosen = stable_topk(model.enc_score_head(places).amax(-1), model.config.num_queries).unsqueeze(-1)
        found = model.decoder(
            inputs_embeds=places.gather(1, chosen.expand(-1, -1, places.shape[-1])),
            encoder_hidden_states=memory,
            reference_points=boxes.gather(1, chosen.expand(-1, -1, 4)),
            spatial_shapes=torch.tensor(self.shapes, device=memory.device),
            spatial_shapes_list=list(self.shapes),
        )
        corners = box_convert(found.intermediate_reference_points[:, -1].float(), "cxcywh", "xyxy")
        return torch.cat([corners, found.intermediate_logits[:, -1].float()], -1)

    def training_answer(self, levels: list[Tensor], targets: Targets) -> tuple[Tensor, Tensor]:
        """The loss of every layer of the decoder, of the chosen queries, and of denoising, without crowds; and the rows
        of the last layer, as :meth:`forward` has them."""
        labels = [_label(target) for target in targets]
        found = self.detector(None, inputs_embeds=self._projected(levels), labels=labels)
        count = self.detector.config.num_queries  # queries of denoising come before them
        corners = box_convert(found.pred_boxes[:, -count:].float(), "cxcywh", "xyxy")
        return found.loss, torch.cat([corners, found.logits[:, -count:].float()], -1)

    def loss(self, output: Tensor, targets: Targets) -> Tensor:
        """Of a finished answer: classes and boxes of the queries that the objects are matched with."""
        from transformers.loss.loss_rt_detr import RTDetrLoss

        boxes = box_convert(output[..., :4], "xyxy", "cxcywh").clamp(0, 1)
        losses = RTDetrLoss(self.detector.config).to(output.device)(
            {"logits": output[..., 4:], "pred_boxes": boxes}, [_label(target) for target in targets]
        )
        return torch.stack(list(losses.values())).sum()

    def _projected(self, levels: Sequence[Tensor]) -> _Maps:
        projections = self.detector.model.encoder_input_proj
        return _Maps(project(level) for project, level in zip(projections, levels, strict=True))


def _label(target: dict[str, Tensor]) -> dict[str, Tensor]:
    """A target in the form that transformers takes, without crowds."""
    kept = ~target["iscrowd"]
    return {"class_labels": target["labels"][kept], "boxes": box_convert(target["boxes"][kept], "xyxy", "cxcywh")}


def _check_halves(kind: str, shapes: Sequence[ImageSize], size: ImageSize) -> None:
    if any((2 * rows, 2 * columns) != finer for finer, (rows, columns) in pairwise(shapes)):
        sizes = ", ".join(f"{rows}x{columns}" for rows, columns in shapes)
        step = (size[0] // shapes[0][0]) * 2 ** (len(shapes) - 1)
        raise ConfigError(
            f"the maps of {size[0]}x{size[1]} pixels are {sizes}, and head {kind} needs each to be half the one "
            f"before; take an image size in multiples of {step}"
        )


def _no_backbone(count: int) -> Any:
    """The smallest one that transformers can build, to be thrown away."""
    stages = [f"stage{i + 1}" for i in range(count)]
    return require_transformers().ResNetConfig(
        embedding_size=8, hidden_sizes=[8] * count, depths=[1] * count, layer_type="basic", out_features=stages
    )
