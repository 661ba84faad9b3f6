"""D-FINE and RT-DETRv2 of transformers on any variant with three strides, through the timm registration.

They are Apache-2.0 and need no non-maximum suppression. The result is a model of transformers and is trained by its
rules: targets are ``class_labels`` and ``boxes`` (centre x, centre y, width, height as shares), and images are
normalised as the family expects (``vitrail.create_model(variant).preprocessing``).
"""

from __future__ import annotations

from typing import Any, get_args

from torch import nn

from vitrail.core.errors import ConfigError
from vitrail.integrations.timm import PREFIX, register
from vitrail.layers.query_detector import QueryKind, make_query_detector, require_transformers
from vitrail.models import create_model

LEVELS = 3
WIDTH = 128


def create_detector(variant: str, num_classes: int, *, kind: QueryKind = "dfine", **fields: Any) -> nn.Module:
    """An untrained detector of transformers.

    Args:
        variant: e.g. ``edgevit_xxs``; its family must take any multiple of 32 pixels.
        num_classes: number of classes without a background.
        kind: "dfine" or "rtdetrv2", see :func:`~vitrail.layers.query_detector.make_query_detector`.
        **fields: fields of transformers' ``DFineConfig`` or ``RTDetrV2Config``, e.g. ``num_queries=100``.

    Raises:
        MissingDependencyError: timm or transformers is not installed.
        ConfigError: the variant has fewer than three strides, or ``kind`` is neither.
        UnknownNameError: there is no such variant.
    """
    if kind not in get_args(QueryKind):
        raise ConfigError(f"kind='{kind}' does not exist; take 'dfine' or 'rtdetrv2'")
    info = create_model(variant, num_classes=0).feature_info
    last = {level.stride: index for index, level in enumerate(info)}
    strides = sorted(last)[-LEVELS:]
    if len(strides) < LEVELS:
        raise ConfigError(
            f"{variant} has {len(last)} strides, and these detectors need {LEVELS}; take e.g. edgevit_xxs"
        )
    register()
    levels = [last[stride] for stride in strides]
    backbone = require_transformers().TimmBackboneConfig(backbone=PREFIX + variant, out_indices=levels)
    width = fields.pop("d_model", WIDTH)
    channels = [info[level].channels for level in levels]
    return make_query_detector(kind, backbone, channels, strides, num_classes, width=width, **fields)
