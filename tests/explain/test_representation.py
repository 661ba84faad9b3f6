"""Every measure on an input whose answer is known."""

from __future__ import annotations

import torch

from vitrail.explain.representation import (
    effective_rank,
    filter_components,
    level_similarity,
    position_similarity,
    token_similarity,
)


def test_equal_tokens_have_similarity_one_and_orthogonal_ones_zero() -> None:
    tokens = torch.stack([torch.ones(4, 4), torch.eye(4)])
    torch.testing.assert_close(token_similarity(tokens), torch.tensor([1.0, 0.0]))
    assert token_similarity(torch.ones(1, 1, 4)).isnan().all()


def test_token_similarity_is_the_mean_over_pairs() -> None:
    tokens = torch.randn(1, 6, 5)
    cosines = torch.cosine_similarity(tokens[0][:, None], tokens[0][None], dim=-1)
    torch.testing.assert_close(token_similarity(tokens)[0], cosines[~torch.eye(6, dtype=torch.bool)].mean())


def test_levels_are_compared_token_by_token() -> None:
    tokens = torch.randn(2, 5, 3)
    torch.testing.assert_close(level_similarity(tokens, -2 * tokens), -torch.ones(2))
    assert level_similarity(tokens, tokens[:, :4]).isnan().all()


def test_effective_rank_counts_directions() -> None:
    one = torch.outer(torch.arange(1.0, 7.0), torch.randn(4))
    three = torch.cat([torch.eye(3), torch.zeros(3, 3)]) @ torch.linalg.qr(torch.randn(4, 4)).Q[:3]
    torch.testing.assert_close(effective_rank(torch.stack([one, three])), torch.tensor([1.0, 3.0]), rtol=1e-3, atol=0)


def test_filters_made_of_two_pictures_have_two_components() -> None:
    basis = torch.linalg.qr(torch.randn(12, 2)).Q.T
    weight = (torch.randn(20, 2) @ basis).view(20, 3, 2, 2)
    components, shares = filter_components(weight, 4)
    assert components.shape == (4, 3, 2, 2)
    torch.testing.assert_close(shares[:2].sum(), torch.tensor(1.0))
    projected = components[:2].flatten(1) @ basis.T
    torch.testing.assert_close(projected @ projected.T, torch.eye(2), atol=1e-4, rtol=0)


def test_positions_are_compared_with_all_positions() -> None:
    similarity = position_similarity(torch.eye(6) * 3, (2, 3))
    assert similarity.shape == (2, 3, 2, 3)
    assert similarity[1, 2, 1, 2] == 1
    assert similarity.sum() == 6
