"""Backbones: one family a file, one explicit registry."""

from vitrail.models.base import Backbone, BackboneConfig, TokenBackbone
from vitrail.models.family import Family
from vitrail.models.registry import FAMILIES, create_model, family_of, find_family, list_models, load_checkpoint

__all__ = [
    "FAMILIES",
    "Backbone",
    "BackboneConfig",
    "Family",
    "TokenBackbone",
    "create_model",
    "family_of",
    "find_family",
    "list_models",
    "load_checkpoint",
]
