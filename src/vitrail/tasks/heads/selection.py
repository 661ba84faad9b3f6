"""Top-k and suppression of duplicates with the same result in every runtime."""

from __future__ import annotations

import torch
from torch import Tensor

LIMIT = 16.0
"""Logits are clamped to this range; beyond it a probability is 0 or 1 to six digits."""
FINEST = 4096
"""Steps in a logit; runtimes differ by less than one, far above the rounding of a float."""
KEY_BITS = 30


def stable_topk(logits: Tensor, count: int) -> Tensor:
    """Indices (b, count) of the largest of ``logits`` (b, n), the largest first.

    All places of a plain background have the same logit but for its last bit, and an ordinary top-k would let every
    runtime choose others. Here logits that round to the same step are alike, and the first of them is chosen: a key for
    each place, whole and unique.
    """
    places = logits.shape[1]
    bits = max(places - 1, 1).bit_length()
    steps = min(FINEST, 2 ** (KEY_BITS - bits) / LIMIT)
    rounded = (logits.float().clamp(-LIMIT, LIMIT) * steps).round().to(torch.int32)
    keys = rounded * 2**bits - torch.arange(places, dtype=torch.int32, device=logits.device)
    return keys.topk(min(count, places), dim=1).indices


def nms_order(duplicate: Tensor, count: int) -> Tensor:
    """Indices (b, count) of what is no duplicate (b, n; ordered, the best first), then of duplicates, so that there are
    always enough."""
    places = duplicate.shape[1]
    order = torch.arange(places, device=duplicate.device) + places * duplicate
    return (-order.float()).topk(min(count, places), dim=1).indices
