"""Attention, features and filters of one model on some images, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.core.errors import ConfigError, DataError
from vitrail.core.files import atomic_path
from vitrail.core.progress import Whole, track
from vitrail.core.types import Preprocessing
from vitrail.explain.attention_maps import AttentionMap, capture_attention
from vitrail.explain.attribution import attention_rollout, grad_cam, input_gradient, mean_attention_distance
from vitrail.explain.representation import (
    effective_rank,
    filter_components,
    level_similarity,
    position_similarity,
    token_similarity,
)
from vitrail.layers import Places
from vitrail.layers.embed import LearnedPosEmbed1d, LearnedPosEmbed2d, SinCosPosEmbed2d
from vitrail.models import Backbone
from vitrail.tasks import Task

MOST_FIELDS = 4
"""Largest number of levels whose receptive fields are computed, evenly spread."""

STAGES = (("Attention", 1.0), ("Receptive fields", 1.0 + MOST_FIELDS), ("Class activation", 2.0))
"""Title of each work, and a guess of its time over that of a pass forward."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Arrays of :func:`explain_images`; what a model has none of is None, and ``skipped`` says why.

    Attributes:
        images: (b, h, w, 3) uint8, as the model saw them.
        rollout, rollout_without_identity: (b, rows, columns), what reaches the class token, or the mean token; with a
            distillation token the mean of what reaches it and the class token, since classifiers read both.
        last_attention: (b, rows, columns), what the last attention of the same token or tokens takes.
        class_activation: (b, rows, columns), Grad-CAM of the predicted class on the last level, where that is a map.
        layers: names of the modules that attend, in order.
        distances: (layers, heads), pixels; NaN where a layer has fewer heads or its tokens no known place.
        own_distances: the same before residual attention mixes.
        levels: names of the backbone's levels.
        token_similarity, effective_rank: (levels,), averages over the images.
        level_similarity: (levels - 1,), between each level and the next; NaN where their shapes differ.
        filters: (n, height, width, 3), principal components of the first convolution.
        filter_shares: (n,), shares of the variance.
        position_similarity: (rows, columns, rows, columns).
        field_levels: names of the levels whose receptive fields follow.
        receptive_fields: (fields, h, w), each with a sum of 1.
        skipped: name of an array -> why it is None.
    """

    images: np.ndarray
    rollout: np.ndarray | None = None
    rollout_without_identity: np.ndarray | None = None
    last_attention: np.ndarray | None = None
    class_activation: np.ndarray | None = None
    layers: tuple[str, ...] = ()
    distances: np.ndarray | None = None
    own_distances: np.ndarray | None = None
    levels: tuple[str, ...] = ()
    token_similarity: np.ndarray
    level_similarity: np.ndarray
    effective_rank: np.ndarray
    filters: np.ndarray | None = None
    filter_shares: np.ndarray | None = None
    position_similarity: np.ndarray | None = None
    field_levels: tuple[str, ...] = ()
    receptive_fields: np.ndarray
    skipped: dict[str, str]

    def arrays(self) -> dict[str, np.ndarray]:
        """What there is, by name, ready for ``numpy.savez``."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "skipped"}
        return {name: np.asarray(value) for name, value in values.items() if value is not None and len(value)}

    def save(self, path: Path) -> None:
        """Write :meth:`arrays` as ``.npz``, atomically."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **self.arrays())  # type: ignore[arg-type] # its stub takes a flag too


def explain_images(
    model: Task | Backbone,
    images: Tensor,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 8,
    progress: bool = False,
) -> Explanation:
    """Look inside a model.

    Args:
        model: a task, or a backbone; it is run in evaluation mode on its own device, and left as it was.
        images: uint8 (b, 3, h, w), already resized to what the model takes.
        preprocessing: what the model expects of the pixels.
        batch_size: images at once; memory grows with it and with the square of the tokens.
        progress: show bars.

    Raises:
        DataError: there are no images, or they are not uint8 (b, 3, h, w).
        ConfigError: ``batch_size`` below 1.
    """
    if images.ndim != 4 or images.dtype != torch.uint8 or not len(images) or images.shape[1] != 3:
        raise DataError(f"images are {images.dtype} {tuple(images.shape)}; needed: torch.uint8 (b, 3, h, w), b >= 1")
    if batch_size < 1:
        raise ConfigError("is below 1; 8 is usual", batch_size=batch_size)
    backbone = model.backbone if isinstance(model, Task) else model
    was_training = backbone.training
    backbone.eval()
    try:
        device = next(backbone.parameters()).device
        batches = [preprocessing.normalize(part.to(device)) for part in images.split(batch_size)]
        whole = Whole(STAGES)
        with whole:
            parts = [_one_pass(backbone, batch) for batch in track(batches, "Attention", progress=progress)]
        skipped = {name: reason for name, reason in parts[0].items() if isinstance(reason, str)}
        values: dict[str, Any] = {
            name: torch.cat([part[name] for part in parts])
            for name, first in parts[0].items()
            if isinstance(first, Tensor)
        }
        for name in values.keys() - {"rollout", "rollout_without_identity", "last_attention"}:
            values[name] = values[name].double().mean(0)
        with whole:
            values |= _of_weights(backbone, skipped) | _fields(backbone, batches, progress)
            values |= _activation(backbone, batches, skipped, progress)
    finally:
        backbone.train(was_training)
    values = {name: value.cpu().numpy() if isinstance(value, Tensor) else value for name, value in values.items()}
    values |= {"layers": parts[0]["layers"], "levels": tuple(info.name for info in backbone.feature_info)}
    return Explanation(images=images.permute(0, 2, 3, 1).cpu().numpy(), skipped=skipped, **values)


@torch.no_grad()
def _one_pass(backbone: Backbone, images: Tensor) -> dict[str, Any]:
    """Arrays of one forward pass, an image a row; a sentence where something is missing."""
    with capture_attention(backbone) as maps:
        levels = backbone.forward_intermediates(images, intermediates_only=True)
    tokens = [level.flatten(2).transpose(1, 2) for level in levels]
    similarities = [level_similarity(*pair).to(images.device) for pair in pairwise(tokens)]
    found: dict[str, Any] = {
        "layers": tuple(entry.path for entry in maps),
        "token_similarity": torch.stack([token_similarity(level).to(images.device) for level in tokens], 1),
        "level_similarity": torch.stack(similarities, 1) if similarities else images.new_zeros(len(images), 0),
        "effective_rank": torch.stack([effective_rank(level) for level in tokens], 1),
    }
    return found | _attention(maps, 2 if getattr(backbone.config, "distillation_token", False) else 1)


def _attention(maps: Sequence[AttentionMap], read: int) -> dict[str, Any]:
    """``read`` is how many tokens before the patches classifiers read."""
    names = ("rollout", "rollout_without_identity", "last_attention", "distances", "own_distances")
    if not maps:
        return dict.fromkeys(names, "the model has no softmax attention")
    found: dict[str, Any] = {"distances": _distances(maps, [entry.probabilities for entry in maps])}
    own = [entry.own for entry in maps]
    found["own_distances"] = "the model has no residual attention over all tokens"
    if any(part is not None for part in own):
        found["own_distances"] = _distances(maps, own)
    last, places = maps[-1].probabilities, maps[-1].places
    found["last_attention"] = "the places of the last layer's tokens are unknown"
    if places is not None:
        found["last_attention"] = attended(last, places, read)
    whole = all(entry.probabilities.shape[1] == 1 for entry in maps)
    if whole and places is not None and all(e.probabilities.shape[-2:] == last.shape[-2:] for e in maps):
        layers = [entry.probabilities[:, 0] for entry in maps]
        for name, identity in (("rollout", True), ("rollout_without_identity", False)):
            found[name] = attended(attention_rollout(layers, identity=identity)[:, None, None], places, read)
    else:
        reason = "rollout needs all tokens to attend to all in every layer, as in ViT and ReViT; see last_attention"
        found |= dict.fromkeys(("rollout", "rollout_without_identity"), reason)
    return found


def attended(probabilities: Tensor, places: Places, read: int = 1) -> Tensor:
    """The attention of the class token to every place, or that of the mean token where there is no class token.

    Args:
        probabilities: (b, groups, heads, queries, keys).
        places: centres of queries and keys; keys without a place are left out.
        read: tokens before the patches that are averaged; 2 for a class and a distillation token.

    Returns:
        (b, rows, columns), with a sum of 1 an image.
    """
    taken = probabilities.float().mean(2)
    prefixed = places.layout == "tokens" and bool(places.queries[0, 0].isnan().any())
    taken = taken[:, :, :read].mean(2) if prefixed else taken.mean(2)
    centres = places.keys.flatten(0, 1)
    seen = ~centres.isnan().any(-1)
    rows, columns = (centres[seen, axis].unique(return_inverse=True) for axis in (0, 1))
    picture = taken.new_zeros(len(taken), len(rows[0]), len(columns[0]))
    picture[:, rows[1], columns[1]] = taken.flatten(1)[:, seen.to(taken.device)]
    return picture / picture.sum((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def _distances(maps: Sequence[AttentionMap], probabilities: Sequence[Tensor | None]) -> Tensor:
    """(b, layers, heads), NaN where unknown."""
    heads = max(entry.probabilities.shape[2] for entry in maps)
    first = maps[0].probabilities
    result = first.new_full((len(first), len(maps), heads), torch.nan, dtype=torch.float32)
    for index, (entry, values) in enumerate(zip(maps, probabilities, strict=True)):
        if entry.places is not None and values is not None:
            distance = mean_attention_distance(values, entry.places.queries, entry.places.keys)
            result[:, index, : distance.shape[1]] = distance
    return result


def _of_weights(backbone: Backbone, skipped: dict[str, str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    convs = (m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3 and m.groups == 1)
    if (conv := next(convs, None)) is not None:
        components, found["filter_shares"] = filter_components(conv.weight)
        found["filters"] = components.permute(0, 2, 3, 1)
    else:
        skipped["filters"] = "no convolution reads three channels"
    positions = _positions(backbone)
    if positions is not None:
        found["position_similarity"] = position_similarity(*positions)
    else:
        skipped["position_similarity"] = "the model has no table with a row for every place"
    return found


@torch.no_grad()
def _positions(backbone: Backbone) -> tuple[Tensor, tuple[int, int]] | None:
    """The rows of the patches, and their grid."""
    embed = getattr(backbone, "pos_embed", None)
    grid = getattr(backbone, "grid", getattr(backbone.config, "grid", None))
    if grid is None:
        return None
    cells = grid[0] * grid[1]
    if isinstance(embed, LearnedPosEmbed1d | LearnedPosEmbed2d | SinCosPosEmbed2d):
        prefix = int(getattr(backbone, "num_prefix_tokens", 0))
        nothing = next(backbone.parameters()).new_zeros(1, cells + prefix, backbone.feature_info[0].channels)
        return embed(nothing)[0, -cells:], grid
    if isinstance(embed, nn.Parameter) and embed.ndim == 3 and embed.shape[1] >= cells:
        return embed[0, -cells:], grid
    return None


def _activation(
    backbone: Backbone, batches: Sequence[Tensor], skipped: dict[str, str], progress: bool
) -> dict[str, Tensor]:
    """Grad-CAM, which is sound where the classifier reads a map; tokens have rollout."""
    if backbone.num_classes == 0:
        skipped["class_activation"] = "the backbone has no classifier"
        return {}
    found = []
    for batch in track(batches, "Class activation", progress=progress):
        with torch.enable_grad():
            final, (level,) = backbone.forward_intermediates(batch.clone().requires_grad_(), [-1])
            logits = backbone.forward_head(final)
        cam = grad_cam(level, logits.max(1).values.sum())
        if cam is None:
            skipped["class_activation"] = "the classifier reads tokens and no map; see rollout"
            return {}
        found.append(cam)
    return {"class_activation": torch.cat(found)}


def _fields(backbone: Backbone, batches: Sequence[Tensor], progress: bool) -> dict[str, Any]:
    """Receptive fields of up to four levels, averaged over the images."""
    count = len(backbone.feature_info)
    chosen = sorted({round(index) for index in np.linspace(0, count - 1, min(count, MOST_FIELDS)).tolist()})
    total = torch.zeros(())
    number = sum(len(batch) for batch in batches)
    for batch in track(batches, "Receptive fields", progress=progress):
        images = batch.clone().requires_grad_()
        with torch.enable_grad():
            levels = backbone.forward_intermediates(images, chosen, intermediates_only=True)
        fields_ = [input_gradient(images, level, retain_graph=level is not levels[-1]) for level in levels]
        total = total + torch.stack(fields_).cpu() * (len(batch) / number)
    return {"field_levels": tuple(backbone.feature_info[index].name for index in chosen), "receptive_fields": total}
