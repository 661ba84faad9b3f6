"""D-FINE and RT-DETRv2 of transformers on any variant with three strides, through the timm registration.

They are Apache-2.0 and need no suppression of duplicates. What comes back is a model of transformers, to be trained by
its rules: targets are ``class_labels`` and ``boxes`` (centre x, centre y, width, height as shares), and images are
normalised as the family expects (``vitrail.create_model(variant).preprocessing``).
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from vitrail.core.errors import ConfigError, MissingDependencyError
from vitrail.integrations.timm import PREFIX, register
from vitrail.models import create_model

LEVELS = 3
SMALL = {"d_model": 128, "encoder_hidden_dim": 128, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512, "decoder_layers": 3}
"""Widths that suit small backbones; both papers take 256 and six layers for their large ones."""


def create_detector(
    variant: str, num_classes: int, *, kind: Literal["dfine", "rtdetrv2"] = "dfine", **fields: Any
) -> nn.Module:
    """An untrained detector of transformers.

    transformers freezes the BatchNorms of these detectors' backbones by default, without a word, which harms backbones
    that start from scratch; here they learn.

    Args:
        variant: e.g. ``edgevit_xxs``; of a family that takes any multiple of 32 pixels.
        num_classes: without a background.
        kind: "dfine" (Peng et al., ICLR 2025, arXiv:2410.13842) or "rtdetrv2" (Lv et al., arXiv:2407.17140).
        **fields: of transformers' ``DFineConfig`` or ``RTDetrV2Config``, e.g. ``num_queries=100``.

    Raises:
        MissingDependencyError: timm or transformers is not installed.
        ConfigError: the variant has fewer than three strides, or ``kind`` is neither.
        UnknownNameError: there is no such variant.
    """
    if kind not in ("dfine", "rtdetrv2"):
        raise ConfigError(f"kind='{kind}' does not exist; take 'dfine' or 'rtdetrv2'")
    info = create_model(variant, num_classes=0).feature_info
    last = {level.stride: index for index, level in enumerate(info)}
    strides = sorted(last)[-LEVELS:]
    if len(strides) < LEVELS:
        raise ConfigError(
            f"{variant} has {len(last)} strides, and these detectors need {LEVELS}; take e.g. edgevit_xxs"
        )
    register()
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError("transformers", "transformers") from error
    levels = [last[stride] for stride in strides]
    width = fields.get("d_model", SMALL["d_model"])
    hidden = fields.get("encoder_hidden_dim", width)
    values = SMALL | {
        "backbone_config": transformers.TimmBackboneConfig(backbone=PREFIX + variant, out_indices=levels),
        "encoder_hidden_dim": hidden,
        "encoder_in_channels": [info[level].channels for level in levels],
        "decoder_in_channels": [hidden] * LEVELS,
        "feat_strides": strides,
        "freeze_backbone_batch_norms": False,
        "num_labels": num_classes,
    }
    config, model = {
        "dfine": (transformers.DFineConfig, transformers.DFineForObjectDetection),
        "rtdetrv2": (transformers.RTDetrV2Config, transformers.RTDetrV2ForObjectDetection),
    }[kind]
    detector: nn.Module = model(config(**(values | fields)))
    return detector
