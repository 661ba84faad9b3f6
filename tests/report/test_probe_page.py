"""The page of a probe: every image on the map, mistakes marked, the user's text escaped, nothing loaded."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail.core.types import Preprocessing
from vitrail.data import ImageSet, LabelledImage
from vitrail.evaluation import Interval
from vitrail.evaluation.feature_map import place_on_map
from vitrail.report import probe_page
from vitrail.report.probe_page import hues, write_probe_page
from vitrail.report.rows import probe_rows
from vitrail.runs.probe_results import ProbedImages, ProbeReport, ProbeRow
from vitrail.runs.run import Run
from vitrail.training.cross_validation import CrossValidation, CurvePoint

HOSTILE = "<b>&'\""


@pytest.fixture
def report(tmp_path: Path) -> ProbeReport:
    records = []
    for index in range(6):
        Image.new("RGB", (20, 10), (40 * index, 0, 0)).save(tmp_path / f"{index}.png")
        records.append(LabelledImage(name=f"{HOSTILE}{index}", source=tmp_path / f"{index}.png", label=index % 2))
    labels = np.array([0, 1] * 3)
    answers = np.array([[0, 1, 1, 1, -1, 1]])
    features = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    found = CrossValidation(
        labels=labels, linear=answers, nearest=answers, neighbours=3, confidence=np.linspace(0.5, 1, 6)
    )
    row = ProbeRow(
        label=f"net {HOSTILE}",
        model="net",
        weights="w",
        linear=Interval(mean=0.8, low=0.7, high=0.86),
        nearest=None,
        neighbours=3,
        val_top1=0.75,
        latency_ms=9.0,
        cpu_ms=4.0,
        contended=True,
        num_params=1_000_000,
        image_size=(16, 16),
        strength=0.1,
        curve=tuple(CurvePoint(per_class=n, num_images=2 * n, top1=(0.5, 0.6)) for n in (5, 10)),
        trend=None,
        seconds=1.0,
    )
    return ProbeReport(
        source=f"photos/{HOSTILE}",
        classes=(f"cat {HOSTILE}", "dog"),
        counts=(3, 3),
        num_val=4,
        majority=("dog", 0.5),
        rows=(row,),
        chosen=0,
        advice=("Fine-tune it.",),
        notes=("one is left out",),
        images=ProbedImages(
            samples=ImageSet(records=records), features=features, answers=found, preprocessing=Preprocessing()
        ),
        next_command="vitrail train --data photos/",
        seconds=1.0,
    )


def test_the_page_shows_every_image_and_marks_mistakes(report: ProbeReport, tmp_path: Path) -> None:
    page = write_probe_page(report, Run(tmp_path / "runs" / "probe")).read_text()
    assert page.count('<li tabindex="0"') == 6
    assert page.count('class="wrong "') + page.count('class="wrong to-left') + page.count('class="wrong up') == 1
    assert "1 training images are taken for another class" in page
    assert HOSTILE not in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "80.0 % ± 10.0" in page
    assert "4.00 ms*" in page


def test_many_images_are_thinned_out_but_not_the_mistakes(
    report: ProbeReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_page, "MOST_POINTS", 2)
    page = write_probe_page(report, Run(tmp_path / "runs" / "probe")).read_text()
    assert page.count('<li tabindex="0"') == 2
    assert "2 of 6 images are shown" in page
    assert "1 training images are taken" in page


def test_rows_print_as_a_table(report: ProbeReport) -> None:
    text = repr(probe_rows(report))
    assert "80.0 % ± 10.0" in text
    assert "Always 'dog': 50.0 %" in text
    assert text.endswith("Fine-tune it.")


def test_places_are_in_the_map_and_alike_for_the_same_seed() -> None:
    draw = np.random.default_rng(0)
    features = np.concatenate([draw.normal(size=(20, 8)), 9 + draw.normal(size=(20, 8))]).astype(np.float32)
    places, method = place_on_map(features)
    assert method == "t-SNE"
    assert places.min() == 0
    assert places.max() == 1
    np.testing.assert_array_equal(places, place_on_map(features)[0])
    inside = np.linalg.norm(places[:20] - places[:20].mean(0), axis=1).max()
    assert inside < np.linalg.norm(places[:20].mean(0) - places[20:].mean(0))
    few, method = place_on_map(features[:3])
    assert (few.shape, method) == ((3, 2), "PCA")
    assert not place_on_map(np.ones((5, 4), np.float32))[0].any()
    assert place_on_map(np.arange(6, dtype=np.float32)[:, None])[0].shape == (6, 2)


def test_classes_have_different_colours() -> None:
    assert len(set(hues(60))) == 60
