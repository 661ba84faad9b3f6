"""Small models of every family with lively weights, for tests of several packages."""

from __future__ import annotations

from functools import partial

from vitrail.contract import promise
from vitrail.contract.promise import Make
from vitrail.models import FAMILIES, Backbone, create_model

SMALL = {family.name: next(name for name in family.ours if "nano" in name) for family in FAMILIES.values()}


def make_small(family: str) -> Make:
    """What makes the small variant."""
    return partial(create_model, SMALL[family])


def lively_model(family: str, **fields: object) -> Backbone:
    """A small variant whose random weights reach the logits."""
    return promise.lively_model(make_small(family), **fields)
