"""Sides in the names that people give: expected orders are written by hand."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, strategies as st

from vitrail.data import mirror_order
from vitrail.data.mirror import classes_with_sides


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ("nose left_ear right_ear leftpaw rightpaw", (0, 2, 1, 4, 3)),
        ("L_Eye R_Eye Nose", (1, 0, 2)),
        ("r_ankle l_ankle", (1, 0)),
        ("LeftEye rightEye nose", (1, 0, 2)),
        ("LEFT_EYE RIGHT_EYE", (1, 0)),
        ("eye.L eye.R tail", (1, 0, 2)),
        ("kneeLeft kneeRight", (1, 0)),
        ("LShoulder RShoulder Neck", (1, 0, 2)),
        ("lhip rhip tail", (1, 0, 2)),
        ("FL FR RL RR", (1, 0, 3, 2)),
        ("LF RF LH RH", (1, 0, 3, 2)),
        ("L1 R1 L2 R2 middle", (1, 0, 3, 2, 4)),
        ("eye_left_1 eye_left_2 eye_right_1 eye_right_2", (2, 3, 0, 1)),
        ("oeil-gauche oeil-droit nez", (1, 0, 2)),
        ("左眼 右眼 鼻", (1, 0, 2)),
        ("nose", (0,)),
    ],
)
def test_sides_in_any_spelling_change_places(names: str, order: tuple[int, ...]) -> None:
    assert mirror_order(names.split()) == order


@pytest.mark.parametrize(
    "names",
    ["left_eye nose", "head tail", "kp_1 kp_2 kp_3", "L_eye left_eye right_eye", "left_eye", "? !", "leftpaw tail"],
)
def test_an_unknown_order_is_empty(names: str) -> None:
    assert mirror_order(names.split()) == ()


def test_given_pairs_are_taken_as_they_are() -> None:
    assert mirror_order(["left_eye", "right_eye", "a", "b"], [(2, 3)]) == (0, 1, 3, 2)


@given(parts=st.lists(st.sampled_from(["eye", "Paw", "hind foot", "knee_2"]), unique=True), seed=st.integers(0, 99))
def test_a_mirror_of_a_mirror_image_is_the_image(parts: list[str], seed: int) -> None:
    """Whatever the spelling and the order: each left keypoint changes places with its right one."""
    chance = random.Random(seed)
    names: list[str] = []
    for part in parts:
        left, right = chance.choice([("left_", "right_"), ("L ", "R "), ("Left-", "Right-"), ("l.", "r.")])
        names += [left + part, right + part]
    names.append("nose")
    chance.shuffle(names)
    order = mirror_order(names)
    if not parts:
        assert order == (0,)
    for number, other in enumerate(order):
        assert order[other] == number
        assert (number == other) == (names[number] == "nose")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("cat dog", ""),
        ("turn_left straight", "turn_left"),
        ("TurnLeft TurnRight stop", "TurnLeft TurnRight"),
        ("lung_L lung_R heart", "lung_L lung_R"),
        ("leftturn rightturn", "leftturn rightturn"),
        ("A L R", "L R"),
        ("S M L", ""),
        ("bright dark upright leftovers", ""),
        ("lock rock", ""),
        ("links rechts", "links rechts"),
    ],
)
def test_classes_that_a_mirror_image_may_turn_into_others(names: str, expected: str) -> None:
    assert classes_with_sides(names.split()) == tuple(expected.split())
