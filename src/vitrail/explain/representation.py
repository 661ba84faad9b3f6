"""Similarity and rank of features, filters and position embeddings: pure functions of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
    """Effective rank of the tokens of an image, (b, n, c) to (b,), from 1 to min(n, c): the exponential of the
    entropy of the normalised singular values (Roy & Vetterli 2007)."""
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
