from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from vitrail.tasks.heads.selection import nms_order, stable_topk


@given(st.integers(0, 2**31), st.integers(1, 3000), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_clear_logits_are_sorted_as_by_topk(seed: int, places: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.stack([torch.randperm(places, generator=generator) for _ in range(2)]) * (24.0 / places) - 12
    assert torch.equal(stable_topk(logits, count), logits.topk(min(count, places)).indices)


@pytest.mark.parametrize("places", [2, 100, 150_000])
def test_noise_of_rounding_changes_nothing(places: int) -> None:
    """A plain background with some objects: each runtime adds in another order."""
    background = torch.full((1, places), -3.21)
    background[0, ::7] = -1.5
    noisy = [background + 1e-6 * torch.randn(1, places, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    wanted = torch.arange(0, places, 7)[:10]
    for one in noisy:
        assert torch.equal(stable_topk(one, len(wanted)), wanted.unsqueeze(0))
    if places == 100:
        assert not torch.equal(noisy[0].topk(10).indices, noisy[1].topk(10).indices), "an ordinary top-k would differ"


def test_beyond_certainty_nothing_overflows() -> None:
    logits = torch.tensor([[-1e30, 5.0, 1e30, float("inf"), float("-inf")]]).expand(1, 5)
    assert stable_topk(logits, 5).tolist() == [[2, 3, 1, 0, 4]]


def test_duplicates_come_last_and_in_order() -> None:
    duplicate = torch.tensor([[False, True, False, True, False], [True] * 5])
    assert nms_order(duplicate, 4).tolist() == [[0, 2, 4, 1], [0, 1, 2, 3]]
    assert nms_order(duplicate, 9).shape == (2, 5)
