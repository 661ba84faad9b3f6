"""Outputs whose rows are a set: neither their order nor a choice between equals is an error, everything else is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vitrail.export.model_outputs import agreement_of, complaint
from vitrail.runtimes.alike import MOST_UNMATCHED, compare, compare_sets

PARTS = (4, 2)
ROWS = np.random.default_rng(0).normal(size=(3, 40, 6)).astype(np.float32)


def test_order_is_no_error() -> None:
    shuffled = np.stack([np.random.default_rng(i).permutation(image) for i, image in enumerate(ROWS)])
    agreement = compare_sets(shuffled + 1e-6, ROWS, 1e-4, PARTS)
    assert agreement.unmatched_rows == 0
    assert agreement.max_relative_error < 2e-6
    assert agreement.top1_agreement == 1
    assert compare(shuffled, ROWS).max_relative_error > 0.1


def test_rows_of_one_side_only_are_counted() -> None:
    other = ROWS.copy()
    other[0, :6] += 3
    assert compare_sets(other, ROWS, 1e-4, PARTS).unmatched_rows == pytest.approx(6 / 120)
    repeated = np.repeat(ROWS[:, :1], 40, axis=1)
    assert compare_sets(repeated, ROWS, 1e-4, PARTS).unmatched_rows == pytest.approx(39 / 40), (
        "no row of its own is missing"
    )
    assert compare_sets(ROWS, repeated, 1e-4, PARTS).unmatched_rows == pytest.approx(39 / 40)


def test_each_part_has_its_scale() -> None:
    """Boxes are shares of the frame; logits beside them are ten times as large."""
    scaled = ROWS * np.array([1, 1, 1, 1, 1000, 1000], np.float32)
    moved = scaled + np.array([0.5, 0, 0, 0, 0, 0], np.float32)
    assert compare_sets(moved, scaled, 0.01, PARTS).unmatched_rows == 1
    assert compare_sets(moved, scaled, 0.01, (6,)).unmatched_rows == 0


def test_a_part_is_judged_as_a_whole() -> None:
    """A mask of 784 logits is not wrong because one of them is."""
    masks = np.random.default_rng(1).normal(size=(1, 5, 784)).astype(np.float32)
    other = masks.copy()
    other[..., 0] += 1
    assert compare_sets(other, masks, 0.02, (784,)).unmatched_rows == 0
    assert compare_sets(other, masks, 0.02, (1, 783)).unmatched_rows > 0


def test_nothing_finite_is_nothing_alike() -> None:
    agreement = compare_sets(np.full_like(ROWS, np.nan), ROWS, 1e-4, PARTS)
    assert (agreement.unmatched_rows, agreement.max_relative_error) == (1, float("inf"))


class Proposals(nn.Module):
    row_parts = PARTS

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(ROWS)[images[:, 0, 0, 0].long()]


@pytest.mark.parametrize(("wrong", "allowed"), [(0.2, True), (0.3, False)])
def test_a_file_may_choose_some_other_rows(wrong: float, allowed: bool) -> None:
    count = int(wrong * 40)
    assert allowed == (count / 40 <= MOST_UNMATCHED)

    def predict(images: np.ndarray) -> np.ndarray:
        rows = ROWS[images[:, 0, 0, 0].astype(int), ::-1].copy()
        rows[:, :count] += 3
        return rows

    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 4, 4)  # each says which rows are its
    agreement = agreement_of(predict, Proposals(), images, tolerance=1e-4, batch_size=None, runtime="a runtime")
    assert agreement.unmatched_rows == pytest.approx(wrong)
    said = complaint(agreement, 3, 1e-4)
    assert said == "" if allowed else "30% of the rows on 3 images have no counterpart within" in said
