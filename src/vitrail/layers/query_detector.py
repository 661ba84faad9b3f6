"""Detectors of transformers around any backbone: D-FINE (Peng et al., ICLR 2025, arXiv:2410.13842) and RT-DETRv2 (Lv et
al., arXiv:2407.17140). Both are Apache-2.0 and need no suppression of duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from vitrail.core.errors import MissingDependencyError

QueryKind = Literal["dfine", "rtdetrv2"]

DECODER_LAYERS = 3
"""What suits small backbones; both papers take six, and a width of 256, for their large ones."""


def require_transformers() -> Any:
    """The package.

    Raises:
        MissingDependencyError: it is not installed, or scipy is not, with which it matches queries and objects.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError("transformers", "transformers") from error
    if not transformers.utils.is_scipy_available():
        raise MissingDependencyError("scipy", "transformers")
    return transformers


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

    transformers freezes the BatchNorms of these detectors' backbones by default, without a word, which harms backbones
    that start from scratch; here they learn.

    Args:
        kind: "dfine" or "rtdetrv2".
        backbone_config: a configuration of transformers, whose maps have ``channels`` and ``strides``.
        channels: of the maps, finest first.
        strides: of the maps, each twice the one before.
        num_classes: without a background.
        width: channels of encoder and decoder; four times as many in their hidden layers.
        **fields: of transformers' ``DFineConfig`` or ``RTDetrV2Config``, e.g. ``num_queries=100``.

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
