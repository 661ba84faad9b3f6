"""The rule in words: in every file, and on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitrail.device import answer, pixels
from vitrail.export import rule
from vitrail.tasks import TASKS

PAGE = " ".join((Path(__file__).parents[2] / "docs" / "exporting.md").read_text(encoding="utf-8").split())


@pytest.mark.parametrize(
    "text",
    [rule.PIXELS, rule.RESIZE, rule.NORMALISE, rule.OBJECTS, rule.MASKS, *rule.FRAMES.values(), *rule.ANSWERS.values()],
)
def test_the_page_has_every_sentence(text: str) -> None:
    for part in (text.removesuffix(rule.MASKS), rule.MASKS):
        assert " ".join(part.split()) in PAGE


def test_every_task_that_answers_has_a_rule() -> None:
    assert rule.ANSWERS.keys() == TASKS.keys() - {"pretraining", "distillation"}
    words = rule.rule_of({"name": "pose", "frame": "view"})
    assert words.startswith("Decode the first frame")
    assert "Newton" in words


def test_numbers_in_the_rule_are_those_of_the_code() -> None:
    assert f"round({pixels.LONGEST_SIDE_RATIO} max(H, W) / s)" in " ".join(rule.FRAMES["crop"].split())
    assert f"({pixels.MARGIN} h)" in " ".join(rule.FRAMES["view"].split())
    assert (answer.SMALLEST_SIDE, answer.WINDOW_OVERLAP, answer.SLIDE_ABOVE) == (1 / 2, 1 / 3, 3 / 2)
