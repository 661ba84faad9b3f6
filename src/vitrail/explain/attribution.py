"""Which places of the image attention and outputs depend on: pure functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vitrail.core.errors import ConfigError


def attention_rollout(layers: Sequence[Tensor], *, identity: bool = True) -> Tensor:
    """Share of every input token in every output token, if attention alone mixed tokens (Abnar & Zuidema 2020,
    arXiv:2005.00928; ViT appendix D.8).

    Heads are averaged and the layers' matrices multiplied. Values, MLPs and norms are ignored, so it is no exact
    attribution.

    Args:
        layers: (b, heads, n, n) each, the first layer first.
        identity: put the residual connection beside every layer, (A + I) / 2; ViT's text does not mention it.

    Returns:
        (b, n, n); rows sum to 1.

    Raises:
        ConfigError: no layers, or layers of different numbers of tokens.
    """
    if not layers or any(layer.shape[-2:] != (layers[0].shape[-1],) * 2 for layer in layers):
        shapes = ", ".join(sorted({f"{layer.shape[-2]}x{layer.shape[-1]}" for layer in layers})) or "no layers"
        raise ConfigError(f"attention rollout needs layers in which all tokens of the image attend; got {shapes}")
    eye = torch.eye(layers[0].shape[-1], device=layers[0].device)
    rollout = eye.expand(layers[0].shape[0], -1, -1)
    for layer in layers:
        mean = layer.float().mean(1)
        mean = (mean + eye) / 2 if identity else mean
        rollout = (mean / mean.sum(-1, keepdim=True)) @ rollout
    return rollout


def mean_attention_distance(probabilities: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """Mean attention distance of each head in pixels: distances of keys from the query, weighted by attention, averaged
    over queries (ViT, figures 7 and 11).

    Tokens without a place (class token, padding: NaN) are left out, and what remains of a row is renormalised.

    Args:
        probabilities: (b, groups, heads, q, k).
        queries, keys: (groups, q, 2) and (groups, k, 2), centres in pixels.

    Returns:
        (b, heads).
    """
    queries, keys = (places.to(probabilities.device) for places in (queries, keys))
    seen_queries, seen_keys = (~places.isnan().any(-1) for places in (queries, keys))
    distance = torch.cdist(
        queries.nan_to_num(0.0).float(), keys.nan_to_num(0.0).float(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    weights = probabilities.float() * seen_keys[:, None, None, :]
    total = weights.sum(-1)
    by_query = (weights * distance[:, None]).sum(-1) / total.clamp_min(torch.finfo(torch.float32).tiny)
    counted = (total > 0) & seen_queries[:, None, :]
    return (by_query * counted).sum((1, 3)) / counted.sum((1, 3))


def grad_cam(level: Tensor, score: Tensor) -> Tensor | None:
    """Grad-CAM (Selvaraju et al. 2017): the channels of a map weighted by the mean of the score's gradient, without
    negative sums.

    Args:
        level: map (b, c, h, w) that ``score`` was computed from.
        score: one number, such as the sum over images of the predicted class's logit.

    Returns:
        (b, h, w), with a sum of 1 an image (all zero where no sum is positive); None if the score does not
        depend on the map.
    """
    gradient: Tensor | None = torch.autograd.grad(score, level, allow_unused=True)[0]
    if gradient is None:
        return None
    weights = gradient.mean((2, 3), keepdim=True)
    cam = (weights * level).sum(1).relu().detach().float()
    return cam / cam.sum((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def input_gradient(images: Tensor, level: Tensor, *, retain_graph: bool = False) -> Tensor:
    """Effective receptive field: size of the gradient of a map's centre by the pixels (Luo et al. 2016,
    arXiv:1701.04128).

    Args:
        images: (b, c, h, w), requiring a gradient.
        level: map (b, d, h', w') computed from them; the channels of its central token are summed.
        retain_graph: keep the graph for another level.

    Returns:
        (h, w), averaged over images and channels, with a sum of 1.
    """
    centre = level[:, :, level.shape[2] // 2, level.shape[3] // 2].sum()
    (gradient,) = torch.autograd.grad(centre, images, retain_graph=retain_graph)
    field = gradient.abs().float().mean((0, 1))
    return field / field.sum().clamp_min(torch.finfo(torch.float32).tiny)


def field_share(field: Tensor, mass: float = 0.9) -> float:
    """The smallest share of the pixels that holds ``mass`` of a receptive field: small is local, ``mass`` is global."""
    sorted_field = field.flatten().double().sort(descending=True).values
    reached = sorted_field.cumsum(0) >= mass * sorted_field.sum() * (1 - 1e-6)
    return (int(reached.int().argmax()) + 1) / field.numel()
