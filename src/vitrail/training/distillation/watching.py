"""The levels that a backbone passes through, whoever calls it and however."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from vitrail.models import Backbone
from vitrail.models.base import level_indices


@contextmanager
def watched(backbone: Backbone, levels: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Maps of some levels of the passes through a backbone in this block; those of the last pass stay.

    A task calls its backbone as a whole, for its last features, or for some levels; in the block, each of these goes
    through :meth:`~vitrail.models.Backbone.forward_intermediates`, whose results are the same.

    Args:
        backbone: the backbone; without levels nothing is changed.
        levels: indices of the levels to keep.
    """
    maps: dict[int, Tensor] = {}
    if not levels:
        yield maps
        return
    count, passed = len(backbone.feature_info), backbone.forward_intermediates

    def forward_intermediates(
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        intermediates_only: bool = False,
    ) -> Any:
        asked = level_indices(indices, count)
        every = sorted({*asked, *levels})
        result = passed(x, every, norm=norm, intermediates_only=intermediates_only)
        found = dict(zip(every, result if intermediates_only else result[1], strict=True))
        maps.update({index: found[index] for index in levels})
        chosen = [found[index] for index in asked]
        return chosen if intermediates_only else (result[0], chosen)

    def forward_features(x: Tensor) -> Tensor:
        last: Tensor = forward_intermediates(x, levels)[0]
        return last

    changed = {
        "forward_intermediates": forward_intermediates,
        "forward_features": forward_features,
        "forward": lambda x: backbone.forward_head(forward_features(x)),
    }
    for name, method in changed.items():
        setattr(backbone, name, method)
    try:
        yield maps
    finally:
        for name in changed:
            delattr(backbone, name)
