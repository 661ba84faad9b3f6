"""What attention and features say about a model: pure functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.core.errors import ConfigError


def attention_rollout(layers: Sequence[Tensor], *, identity: bool = True) -> Tensor:
    """How much of every input token is in every output token, if attention were all that mixes (Abnar & Zuidema 2020,
    arXiv:2005.00928; ViT appendix D.8).

    Heads are averaged and the layers' matrices multiplied. Values, MLPs and norms are ignored, so it is a picture and
    not an attribution.

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
    """How far away a head looks, in pixels: distances of keys from the query, weighted by attention, averaged over
    queries (ViT, figures 7 and 11).

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


def token_similarity(tokens: Tensor) -> Tensor:
    """Mean cosine similarity between different tokens of an image, (b, n, c) to (b,): 1 if all point the same way.

    Growing with depth, it is the feature collapse that ReViT slows down (arXiv:2402.11301, section 4).
    """
    count = tokens.shape[1]
    if count < 2:
        return torch.full((tokens.shape[0],), torch.nan)
    directions = F.normalize(tokens.double(), dim=-1)
    own = directions.square().sum((1, 2))
    return ((directions.sum(1).square().sum(-1) - own) / (count * (count - 1))).float()


def level_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Mean cosine similarity of each token with itself a level later, (b, n, c) twice to (b,); NaN if shapes differ."""
    if first.shape != second.shape:
        return torch.full((first.shape[0],), torch.nan)
    return F.cosine_similarity(first.float(), second.float(), dim=-1).mean(1)


def effective_rank(tokens: Tensor) -> Tensor:
    """How many directions the tokens of an image really use, (b, n, c) to (b,) from 1 to min(n, c): the exponential of
    the entropy of the normalised singular values (Roy & Vetterli 2007)."""
    values = torch.linalg.svdvals(tokens.float())
    shares = values / values.sum(-1, keepdim=True)
    return torch.special.entr(shares).sum(-1).exp()


def filter_components(weight: Tensor, count: int = 28) -> tuple[Tensor, Tensor]:
    """Principal components of the filters that read the pixels (ViT, figure 7 left).

    Args:
        weight: (filters, channels, height, width).
        count: how many components; fewer where there are fewer.

    Returns:
        Components (count, channels, height, width) of length 1, and the share of the variance that each explains.
    """
    filters = weight.detach().float().flatten(1)
    _, values, components = torch.linalg.svd(filters - filters.mean(0), full_matrices=False)
    shares = values.square() / values.square().sum().clamp_min(torch.finfo(torch.float32).tiny)
    return components[:count].unflatten(1, weight.shape[1:]), shares[:count]


def position_similarity(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cosine similarity of every position's row with all rows: (rows * columns, c) to (rows, columns, rows, columns)
    (ViT, figure 7 centre)."""
    directions = F.normalize(table.detach().float(), dim=-1)
    return (directions @ directions.T).unflatten(1, grid).unflatten(0, grid)


def grad_cam(level: Tensor, score: Tensor) -> Tensor | None:
    """Where a map speaks for a score: its channels weighted by the mean of the score's gradient, what speaks against it
    left out (Selvaraju et al. 2017, Grad-CAM).

    Args:
        level: (b, c, h, w), that ``score`` was computed from.
        score: one number, such as the sum over images of the predicted class's logit.

    Returns:
        (b, h, w), with a sum of 1 an image (all zero where everything speaks against it); None if the score does not
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
        level: a map (b, d, h', w') computed from them; its central token's channels are added up.
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
