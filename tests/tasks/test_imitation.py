from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from vitrail.tasks.imitation import (
    Imitation,
    anchored_rows,
    channels,
    correlation,
    each_label,
    hard_labels,
    matched_rows,
    painted,
    shares,
    soft_labels,
    squares,
    weighted_mean,
)


@pytest.mark.parametrize("imitation", [soft_labels, correlation, each_label, squares])
@given(seed=st.integers(0, 1000), temperature=st.sampled_from([0.5, 1.0, 4.0]))
@settings(max_examples=20, deadline=None)
def test_a_perfect_student_loses_nothing_and_any_other_something(
    imitation: Imitation, seed: int, temperature: float
) -> None:
    teacher = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))
    assert float(imitation(teacher, teacher, temperature)) == pytest.approx(0, abs=1e-5)
    assert float(imitation(teacher.flip(1) + 1, teacher, temperature)) > 1e-4


def test_soft_labels_are_the_divergence_times_the_squared_temperature() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * math.log(3), 0.0]])
    # at temperature 2 the teacher has 3/4 and 1/4, the student one half each
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert float(soft_labels(student, teacher, 2.0)) == pytest.approx(expected, rel=1e-5)


def test_soft_labels_of_pixels_are_a_mean_over_the_pixels() -> None:
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    rows = [one.permute(0, 2, 3, 1).reshape(-1, 3) for one in (student, teacher)]
    torch.testing.assert_close(soft_labels(student, teacher, 2.0), soft_labels(rows[0], rows[1], 2.0))


def test_hard_labels_want_the_first_class_of_the_teacher_alone() -> None:
    student, teacher = torch.zeros(1, 4), torch.tensor([[0.0, 3.0, 2.9, 0.0]])
    assert float(hard_labels(student, teacher, 1.0)) == pytest.approx(math.log(4))


def test_correlation_forgives_a_less_certain_student_and_soft_labels_do_not() -> None:
    teacher = torch.eye(3) * 6
    unsure = torch.eye(3) * 2
    assert float(correlation(unsure, teacher, 1.0)) == pytest.approx(0, abs=1e-5)
    assert float(soft_labels(unsure, teacher, 1.0)) > 0.1


def test_correlation_compares_within_classes_too() -> None:
    teacher = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    constant = torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # the same answer to both images
    assert float(correlation(constant, teacher, 1.0)) >= 1
    assert torch.isfinite(correlation(constant[:1], teacher[:1], 1.0))


def test_channels_compare_where_a_class_is_and_not_how_much() -> None:
    teacher = torch.randn(1, 2, 4, 4)
    assert float(channels(teacher + 5, teacher, 1.0)) == pytest.approx(0, abs=1e-5)
    assert float(channels(teacher.flip(3), teacher, 1.0)) > 0.1


def test_shares_grow_with_the_distance_of_the_scores() -> None:
    teacher = torch.tensor([[1.0, 0.0, 0.0]])
    near, far = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    assert float(shares(teacher, teacher, 1.0)) == 0
    assert float(shares(near, teacher, 1.0)) == 1
    assert float(shares(far, teacher, 1.0)) == 2


def rows(score: float, box: tuple[float, ...]) -> Tensor:
    """Two anchors: one with an object, one without."""
    return torch.tensor([[[*box, score, -8.0], [0.0, 0.0, 1.0, 1.0, -8.0, -8.0]]])


def test_anchors_learn_boxes_where_the_teacher_is_certain() -> None:
    teacher = rows(4.0, (0.1, 0.1, 0.5, 0.5))
    assert float(anchored_rows(teacher, teacher, 1.0)) == pytest.approx(0, abs=1e-4)
    moved = rows(4.0, (0.3, 0.1, 0.7, 0.5))
    unsure = rows(-4.0, (0.1, 0.1, 0.5, 0.5))
    assert float(anchored_rows(moved, teacher, 1.0)) > 0.3
    assert float(anchored_rows(unsure, teacher, 1.0)) > 0.3
    background = teacher.clone()
    background[0, 1, :4] = torch.tensor([0.4, 0.4, 0.6, 0.6])  # where there is nothing, a box means nothing
    assert float(anchored_rows(background, teacher, 1.0)) < 0.01


def found(*rows: tuple[float, float, float]) -> Tensor:
    """Rows of an image: left edge, logit of either class."""
    return torch.tensor([[[left, 0.1, left + 0.2, 0.5, first, second] for left, first, second in rows]])


def test_what_queries_find_is_matched_whatever_row_it_is_in() -> None:
    teacher = found((0.1, 5.0, -5.0), (0.6, -5.0, 5.0), (0.3, -9.0, -9.0))
    swapped = teacher[:, [2, 1, 0]]
    assert float(matched_rows(teacher, teacher, 2.0)) == pytest.approx(0, abs=1e-4)
    assert float(matched_rows(swapped, teacher, 2.0)) == pytest.approx(0, abs=1e-4)
    assert float(matched_rows(swapped[:, :2], teacher, 1.0)) > 0.1  # one of the two is missing
    confused = found((0.1, -5.0, 5.0), (0.6, 5.0, -5.0), (0.3, -9.0, -9.0))
    moved = found((0.2, 5.0, -5.0), (0.7, -5.0, 5.0), (0.3, -9.0, -9.0))
    assert float(matched_rows(confused, teacher, 1.0)) > 1
    assert float(matched_rows(moved, teacher, 1.0)) > 0.5


def test_a_teacher_of_queries_that_finds_nothing_teaches_nothing() -> None:
    student = found((0.1, 5.0, -5.0)).requires_grad_()
    loss = matched_rows(student, found((0.1, -9.0, -9.0)), 1.0)
    assert float(loss.detach()) == 0
    loss.backward()  # also then a step goes on


def test_places_of_boxes_have_the_largest_score() -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 1.0, 0.25], [0.9, 0.9, 0.91, 0.91]])
    found = painted(boxes, torch.tensor([0.5, 0.8, 0.3]), (4, 4))
    expected = [[0.8, 0.8, 0.8, 0.8], [0.5, 0.5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0.3]]
    torch.testing.assert_close(found, torch.tensor([expected]))
    assert painted(boxes[:0], boxes[:0, 0], (2, 3)).tolist() == [[[0, 0, 0], [0, 0, 0]]]


def test_a_weighted_mean_of_equal_weights_is_the_mean() -> None:
    values = torch.randn(2, 1, 3, 3)
    torch.testing.assert_close(weighted_mean(values, torch.full_like(values, 0.3)), values.mean())
    torch.testing.assert_close(weighted_mean(values, None), values.mean())
