from __future__ import annotations

from typing import Any

from vitrail.figures.robustness import robustness_figures


def robustness(top1: float) -> dict[str, Any]:
    """Curves of two groups: two shifts and a change of scale."""
    points = [
        {"x": x, "top1": top1, "top1_low": top1 - 0.1, "top1_high": top1 + 0.1, "consistency": 0.9} for x in (-1, 0, 1)
    ]
    names = [("translation", "horizontal shift"), ("translation", "vertical shift"), ("scale", "scale")]
    return {"curves": [{"group": group, "name": name, "unit": "pixels", "points": points} for group, name in names]}


def test_a_figure_for_each_group_with_a_panel_for_each_curve() -> None:
    figures = robustness_figures({"one": [robustness(0.5)], "two": [robustness(0.4), robustness(0.6)]})
    assert list(figures) == ["translation", "scale"]
    horizontal, vertical = figures["translation"].axes
    assert (horizontal.get_title(), vertical.get_title()) == ("horizontal shift", "vertical shift")
    one, _, two, _ = horizontal.lines[:4]
    assert list(one.get_ydata()) == [50.0] * 3
    assert list(two.get_ydata()) == [50.0] * 3


def test_the_band_is_the_interval_of_one_run_or_the_deviation_of_several() -> None:
    figures = robustness_figures({"one": [robustness(0.5)], "two": [robustness(0.4), robustness(0.6)]})
    heights = [band.get_paths()[0].get_extents().height for band in figures["scale"].axes[0].collections]
    assert [round(height, 3) for height in heights] == [20.0, 28.284]
