from __future__ import annotations

from dataclasses import replace

import pytest

from vitrail.serve.browser.board import board
from vitrail.serve.browser.offer import Quality


@pytest.fixture
def rows_of(bench, device, offers):
    """The board of files with these qualities and latencies, all on one device."""

    def make(qualities, milliseconds):
        for offer, latency in zip(offers, milliseconds, strict=False):
            device.send(device.measurement(offer.id, samples_ms=[latency]))
        known = {one.id: replace(one, quality=quality) for one, quality in zip(offers, qualities, strict=False)}
        return board(bench.store.measurements(tuple(known)), known)

    return make


def front(rows):
    return [row["on_front"] for row in rows]


def test_where_less_is_better_the_front_knows_it(rows_of):
    errors = [Quality(title="error", value=value, higher_is_better=False) for value in (3.0, 2.0, 4.0)]
    assert front(rows_of(errors, [5.0, 9.0, 6.0])) == [True, True, False]


def test_different_scores_are_no_rivals(rows_of):
    qualities = [
        Quality(title="top-1 (%)", value=90.0, higher_is_better=True),
        Quality(title="mIoU (%)", value=40.0, higher_is_better=True),
        Quality(title="mIoU (%)", value=30.0, higher_is_better=True),
    ]
    assert front(rows_of(qualities, [1.0, 5.0, 6.0])) == [True, True, False]


def test_without_a_quality_there_is_no_front(rows_of):
    rows = rows_of([None, None], [1.0, 2.0])
    assert front(rows) == [False, False]
    assert [row["latency_ms_median"] for row in rows] == [1.0, 2.0]


def test_equal_points_are_both_on_the_front(rows_of):
    same = Quality(title="top-1 (%)", value=90.0, higher_is_better=True)
    assert front(rows_of([same, same], [1.0, 1.0])) == [True, True]
