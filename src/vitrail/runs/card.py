"""The card of a model: its facts before training."""

from __future__ import annotations

from typing import Any

import torch

from vitrail.models import create_model, find_family
from vitrail.models.complexity import variant_complexity
from vitrail.tasks import TASKS


def model_summary(name: str) -> dict[str, Any]:
    """A row of the list of models.

    Args:
        name: name that :func:`vitrail.list_models` lists.

    Returns:
        ``params``, ``macs`` (multiply-accumulates of one image of ``size`` pixels), ``tasks``, ``weights`` (public
        ones), ``paper``.

    Raises:
        UnknownNameError: no such model.
    """
    family = find_family(name)
    height, width = family.variants[name].image_size
    cost = variant_complexity(name)
    return {
        "name": name,
        "family": family.name,
        "params": cost.params,
        "macs": cost.macs,
        "size": f"{height}x{width}",
        "tasks": list(TASKS),
        "weights": _public_weights(name),
        "paper": family.publication(name).place,
    }


def model_card(name: str) -> dict[str, Any]:
    """Facts of :func:`model_summary`, with paper, code, checkpoint layouts and levels of ``forward_intermediates``.

    Raises:
        UnknownNameError: no such model.
    """
    facts, family = model_summary(name), find_family(name)
    height, width = family.variants[name].image_size
    with torch.device("meta"):  # no memory, no weights
        model = create_model(name)
    ours, paper = family.ours.get(name), family.publication(name)
    return facts | {
        "title": paper.title,
        "authors": paper.authors,
        "code": family.code,
        "checkpoint_layouts": ["vitrail", *family.checkpoint_keys],
        "weights_note": "" if facts["weights"] else family.without_weights(name),
        "note": f"a variant of Vitrail's own: {ours}" if ours else "",
        "stages": [
            {
                "name": info.name,
                "channels": info.channels,
                "stride": info.stride,
                "map": f"{height // info.stride}x{width // info.stride}",
            }
            for info in model.feature_info
        ],
    }


def _public_weights(name: str) -> list[dict[str, Any]]:
    return [
        {
            "tag": weights.tag,
            "size": "x".join(map(str, weights.image_size)),
            "num_classes": weights.num_classes,
            "top1": weights.top1,
            "source": weights.source,
            "licence": weights.licence,
            "repository": weights.hub_id,
        }
        for weights in find_family(name).weights.get(name, ())
    ]
