from __future__ import annotations

import io

import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from vitrail.evaluation import ClassificationReport, ClassResult, ConfidenceBin
from vitrail.figures.evaluation import confusion_figure, reliability_figure


def report(num_classes: int) -> ClassificationReport:
    confusion = [[0] * num_classes for _ in range(num_classes)]
    confusion[0][0], confusion[0][1], confusion[1][1] = 3, 1, 7
    rows = tuple(
        ClassResult(name=f"class ${index}^", precision=1.0, recall=0.5, f1=0.6, support=sum(confusion[index]))
        for index in range(num_classes)
    )
    bins = (
        ConfidenceBin(low=0.4, high=0.6, confidence=0.5, accuracy=0.25, count=4),
        ConfidenceBin(low=0.8, high=1.0, confidence=0.95, accuracy=1.0, count=7),
    )
    return ClassificationReport(
        top1=0.9, top5=1.0, loss=0.3, ece=0.12, num_images=11, per_class=rows, confusion=confusion, calibration=bins
    )


def render(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


@pytest.mark.parametrize("num_classes", [2, 25, 120])
def test_confusion_shows_shares_of_rows_and_counts_where_they_fit(num_classes: int) -> None:
    figure = confusion_figure(report(num_classes))
    axes = figure.axes[0]
    assert axes.images[0].get_array()[:2, :2].tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert [text.get_text() for text in axes.texts] == (["3", "1", "7"] if num_classes == 2 else [])
    assert render(figure).startswith(b"\x89PNG")


def test_reliability_shows_accuracy_against_confidence() -> None:
    figure = reliability_figure(report(3))
    axes, histogram = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [0.25, 1.0]
    assert [bar.get_x() for bar in axes.patches] == [0.4, 0.8]
    assert [bar.get_height() for bar in histogram.patches] == [4, 7]
    assert render(figure).startswith(b"\x89PNG")


def test_pyplots_global_state_is_not_touched() -> None:
    confusion_figure(report(3))
    reliability_figure(report(3))
    assert pyplot.get_fignums() == []
