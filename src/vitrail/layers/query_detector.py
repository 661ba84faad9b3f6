"""Detectors of the transformers library around any backbone: D-FINE (Peng et al., ICLR 2025, arXiv:2410.13842)
and RT-DETRv2 (Lv et al., arXiv:2407.17140). Both are Apache-2.0 and need no non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from vitrail.core.extras import import_extra

QueryKind = Literal["dfine", "rtdetrv2"]

DECODER_LAYERS = 3
"""Number for small backbones; both papers use six layers, and a width of 256, for their large ones."""


def require_transformers() -> Any:
    """The transformers package.

    Raises:
        MissingDependencyError: it is not installed, or scipy is not, which matches its queries to objects.
    """
    import_extra("scipy.optimize", "scipy", "transformers")
    return import_extra("transformers", "transformers", "transformers")


def make_query_detector(
    kind: QueryKind,
    backbone_config: Any,
    channels: Sequence[int],
    strides: Sequence[int],
    num_classes: int,
    *,
    width: int,
    **fields: Any,
) -> nn.Module:
    """An untrained ``DFineForObjectDetection`` or ``RTDetrV2ForObjectDetection``.

    By default transformers freezes the BatchNorms of these detectors' backbones, which harms backbones that are trained
    from scratch; here they are trained.

    Args:
        kind: "dfine" or "rtdetrv2".
        backbone_config: a transformers configuration whose maps have ``channels`` and ``strides``.
        channels: channels of the maps, finest first.
        strides: strides of the maps, each twice the one before.
        num_classes: number of classes without a background.
        width: channels of encoder and decoder; their hidden layers have four times as many.
        **fields: fields of transformers' ``DFineConfig`` or ``RTDetrV2Config``, e.g. ``num_queries=100``.

    Raises:
        MissingDependencyError: see :func:`require_transformers`.
    """
    transformers = require_transformers()
    count = len(channels)
    hidden = fields.get("encoder_hidden_dim", width)
    values = {
        "backbone_config": backbone_config,
        "freeze_backbone_batch_norms": False,
        "d_model": width,
        "encoder_hidden_dim": hidden,
        "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width,
        "decoder_layers": DECODER_LAYERS,
        "encoder_in_channels": list(channels),
        "decoder_in_channels": [hidden] * count,
        "encode_proj_layers": [count - 1],
        "num_feature_levels": count,
        "feat_strides": list(strides),
        "num_labels": num_classes,
    }
    config, model = {
        "dfine": (transformers.DFineConfig, transformers.DFineForObjectDetection),
        "rtdetrv2": (transformers.RTDetrV2Config, transformers.RTDetrV2ForObjectDetection),
    }[kind]
    detector: nn.Module = model(config(**(values | fields)))
    return detector
