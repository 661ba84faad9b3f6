"""Small models of every family with lively weights, for tests of several packages."""

from __future__ import annotations

import torch
from torch import nn

from vitrail.models import FAMILIES, Backbone, create_model

SMALL = {family.name: next(name for name in family.ours if "nano" in name) for family in FAMILIES.values()}


def lively_model(family: str, **fields: object) -> Backbone:
    """A small variant; with the initial weights of some papers hardly anything reaches the logits."""
    torch.manual_seed(0)
    model = create_model(SMALL[family], **({"num_classes": 10} | fields))
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.requires_grad:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model.eval()
