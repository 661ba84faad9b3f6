"""Decoding without PyTorch gives what PyTorch's own operations give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import batched_nms

from vitrail.device.outputs import best_classes, enlarge, find_keypoints, find_objects, paste_mask, rate

LIMITS = {"min_confidence": 0.3, "nms_threshold": 0.5, "max_objects": 100}


def rows(count: int, classes: int, seed: int = 0) -> np.ndarray:
    """Boxes with sides of up to half the frame, some of which leave it, and logits."""
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 0.9, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(0.02, 0.5, (count, 2))], 1)
    return np.concatenate([boxes, random.normal(-1, 1.5, (count, classes))], 1).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_duplicates_are_those_of_torchvision(seed: int) -> None:
    values = rows(60, 3, seed)
    found = find_objects(values, 3, **LIMITS)
    scores = torch.from_numpy(values[:, 4:]).sigmoid().flatten()
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] >= 0.3]
    boxes = torch.from_numpy(values[:, :4]).clamp(0, 1)[order // 3]
    kept = batched_nms(boxes, scores[order], order % 3, 0.5)
    assert 10 < len(kept) < len(order)
    np.testing.assert_allclose(found["scores"], scores[order][kept], rtol=1e-6)
    np.testing.assert_array_equal(found["labels"], (order % 3)[kept])
    np.testing.assert_array_equal(found["boxes"], boxes[kept])


def test_there_are_no_more_objects_than_asked_for_and_they_are_the_most_probable() -> None:
    every, few = (find_objects(rows(60, 3), 3, **LIMITS | {"max_objects": count}) for count in (100, 4))
    np.testing.assert_array_equal(few["scores"], every["scores"][:4])
    assert (np.diff(every["scores"]) <= 0).all()


def test_boxes_without_width_or_height_are_no_objects() -> None:
    """Clipping leaves nothing of a box beside the picture; a line and a point show nothing either."""
    values = rows(6, 1)
    values[:, 4] = 3
    values[:, :4] = [
        [0.2, 0.2, 0.4, 0.4],
        [-0.3, 0.1, -0.1, 0.5],
        [0.1, 0.6, 0.1, 0.9],
        [0.7, 0.3, 0.6, 0.9],
        [0.55, 0.1, 0.9, 0.4],
        [0.5, 0.5, 0.5, 0.5],
    ]
    assert len(find_objects(values, 1, **LIMITS)["boxes"]) == 2
    inside = find_objects(values, 1, **LIMITS, limit=(0.56, 1.0), least=(0.02, 0.02))
    assert inside["boxes"].tolist() == [pytest.approx([0.2, 0.2, 0.4, 0.4])], "of the other 0.01 is inside the picture"


def test_heads_without_duplicates_keep_every_object() -> None:
    twice = np.repeat(rows(1, 1), 2, 0)
    twice[:, 4] = 2
    twice[:, :4] = [0.1, 0.1, 0.5, 0.5]
    assert len(find_objects(twice, 1, **LIMITS | {"nms_threshold": None})["boxes"]) == 2
    assert len(find_objects(twice, 1, **LIMITS)["boxes"]) == 1


def test_logits_of_any_size_are_probabilities() -> None:
    values = np.array([[0, 0, 1, 1, 1e30], [0, 0, 1, 1, -1e30], [0, 0, 1, 1, np.nan]], np.float32)
    assert find_objects(values, 1, **LIMITS)["scores"].tolist() == [1]


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0.02, 1), st.floats(0.02, 1)),
    st.integers(0, 9),
)
def test_masks_are_pasted_as_torchvision_does(
    size: tuple[int, int], shares: tuple[float, float, float, float], seed: int
) -> None:
    left, top = shares[0] * size[1], shares[1] * size[0]
    right, bottom = min(left + shares[2] * size[1], size[1]), min(top + shares[3] * size[0], size[0])
    grid = np.random.default_rng(seed).random((28, 28), dtype=np.float32)
    box = torch.tensor([[left, top, right, bottom]])
    wanted = paste_masks_in_image(torch.from_numpy(grid)[None, None], box, size)[0, 0] >= 0.5
    np.testing.assert_array_equal(paste_mask(grid, box[0].tolist(), size), wanted.numpy())


@pytest.mark.parametrize("size", [(5, 9), (40, 31), (1, 1), (16, 12)])
def test_maps_are_enlarged_as_pytorch_does(size: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).random((3, 16, 12), dtype=np.float32)
    wanted = F.interpolate(torch.from_numpy(maps)[None], size=size, mode="bilinear")[0].numpy()
    np.testing.assert_allclose(enlarge(maps, size), wanted, atol=1e-6)
    part = range(size[0] // 2, size[0])
    np.testing.assert_array_equal(enlarge(maps, size, part), enlarge(maps, size)[:, part.start :])


def test_outputs_that_are_no_numbers_warn_nobody() -> None:
    """Validation goes on while training diverges."""
    maps = np.full((1, 2, 8, 8), np.inf, np.float32)
    maps[0, 1] = np.nan
    find_keypoints(maps, 1.5)
    assert best_classes(np.full(3, np.inf, np.float32), ["a", "b", "c"], 1)[0]["label"] == "a"
    assert len(find_objects(np.full((4, 7), np.nan, np.float32), 3, **LIMITS)["boxes"]) == 0


def test_classes_are_sorted_and_the_first_of_equal_ones_comes_first() -> None:
    found = best_classes(np.array([0.0, 2, 2, -1000], np.float32), ["a", "b", "c", "d"], 3)
    assert [one["label"] for one in found] == ["b", "c", "a"]
    assert found[0]["probability"] == pytest.approx(0.468, abs=1e-3)
    with pytest.raises(ValueError, match=r"shape \(4,\) for 3 classes"):
        best_classes(np.zeros(4, np.float32), ["a", "b", "c"], 1)


def test_a_rating_is_mean_and_deviation_of_the_votes() -> None:
    assert rate(np.array([0.25, 0.5, 0.25], np.float32), [1, 2, 3]) == pytest.approx((2, 0.5**0.5))
