"""The least probability of an object in answers: values by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitrail.tasks.metrics.confidence import ConfidenceSearch

HERE, THERE, AWAY = [0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.9, 0.9], [0.4, 0.1, 0.5, 0.2]
Found = list[tuple[float, int, list[float]]]


def target(*objects: tuple[int, list[float]], crowd: bool = False) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor([box for _, box in objects]).reshape(-1, 4),
        "labels": torch.tensor([label for label, _ in objects], dtype=torch.int64),
        "iscrowd": torch.full((len(objects),), crowd),
    }


def search(*images: tuple[Found, dict[str, Tensor]]) -> tuple[float, float]:
    """Every image in a batch of its own."""
    decoded = [
        {
            "scores": torch.tensor([score for score, _, _ in found]),
            "labels": torch.tensor([label for _, label, _ in found], dtype=torch.int64),
            "boxes": torch.tensor([box for _, _, box in found]).reshape(-1, 4),
        }
        for found, _ in images
    ]
    searched = ConfidenceSearch(lambda output: [decoded[int(output)]], 0.05)
    for number, (_, truth) in enumerate(images):
        searched.update(torch.tensor(number), [truth])
    return searched.best()


def test_the_bound_lies_between_the_last_right_object_and_the_first_wrong_one() -> None:
    found = [(0.8, 0, HERE), (0.6, 1, THERE), (0.4, 1, AWAY), (0.1, 0, AWAY)]
    assert search((found, target((0, HERE), (1, THERE)))) == (pytest.approx(0.5), 1.0)


def test_a_wrong_object_is_let_in_where_that_pays() -> None:
    found = [(0.9, 0, HERE), (0.7, 0, AWAY), (0.5, 0, THERE)]
    least, f1 = search((found, target((0, HERE), (0, THERE))))
    assert least == pytest.approx((0.5 + 0.05) / 2)
    assert f1 == pytest.approx(2 * 2 / (3 + 2))


def test_each_annotated_object_is_found_once_and_by_its_class() -> None:
    twice = [(0.9, 0, HERE), (0.8, 0, HERE), (0.7, 1, THERE)]
    least, f1 = search((twice, target((0, HERE), (0, THERE))))
    assert least == pytest.approx(0.85)
    assert f1 == pytest.approx(2 * 1 / (1 + 2))


def test_all_images_count_together_and_those_without_objects_too() -> None:
    first = ([(0.9, 0, HERE)], target((0, HERE)))
    empty = ([(0.6, 0, HERE)], target())
    missed: tuple[Found, dict[str, Tensor]] = ([], target((0, THERE)))
    least, f1 = search(first, empty, missed)
    assert least == pytest.approx(0.75)
    assert f1 == pytest.approx(2 * 1 / (1 + 2))


def test_objects_in_a_crowd_are_neither_right_nor_wrong() -> None:
    crowd = target((0, [0.0, 0.0, 1.0, 1.0]), crowd=True)
    both = {name: torch.cat([crowd[name], target((0, HERE))[name]]) for name in crowd}
    assert search(([(0.9, 0, THERE), (0.5, 0, HERE)], both)) == (pytest.approx(0.275), 1.0)


def test_equal_probabilities_are_let_in_together() -> None:
    found = [(0.5, 0, HERE), (0.5, 0, AWAY), (0.5, 0, [0.4, 0.4, 0.5, 0.5])]
    least, f1 = search((found, target((0, HERE))))
    assert least == pytest.approx(0.275)
    assert f1 == pytest.approx(2 * 1 / (3 + 1))


@pytest.mark.parametrize("found", [[], [(0.9, 0, AWAY)], [(0.9, 1, HERE)]])
def test_where_nothing_is_right_one_half_stays(found: Found) -> None:
    assert search((found, target((0, HERE)))) == (0.5, 0.0)
