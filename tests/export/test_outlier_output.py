"""The module that is written has the scores that NumPy computes with 64 bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitrail.core.errors import ExportError
from vitrail.core.types import Preprocessing
from vitrail.evaluation.trust.outlier_score import OutlierScore
from vitrail.export.outlier_output import OutlierOutput, WithOutlierScore, outlier_scores
from vitrail.export.source import Source, about, with_outlier_score
from vitrail.export.verified import export_source
from vitrail.models import create_model
from vitrail.tasks import ClassificationTask

CLASSES = ("a", "b", "c")


@pytest.fixture(scope="module")
def task() -> ClassificationTask:
    torch.manual_seed(0)
    fields = {"depth": 1, "embed_dim": 16, "num_heads": 2, "image_size": 8}
    return ClassificationTask(create_model("vit_nano_patch4", num_classes=3, **fields), CLASSES).eval()


def score_of(scale: float) -> OutlierScore:
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(3, 16))
    return OutlierScore(
        whitening=draw.normal(size=(16, 16)).astype(np.float32), centres=centres.astype(np.float32), scale=scale
    )


@pytest.mark.parametrize(("scale", "temperature"), [(0.0, 1.0), (0.3, 1.0), (0.3, 2.5)])
def test_scores_are_those_of_predict(task: ClassificationTask, scale: float, temperature: float) -> None:
    images, score = torch.randn(20, 3, 8, 8), score_of(scale)
    plain, _ = outlier_scores(task, score, images)
    task.temperature = temperature
    try:
        expected, size = outlier_scores(task, score, images)
        with torch.inference_mode():
            found = WithOutlierScore(task, score)(images)
            logits = task(images)
    finally:
        task.temperature = 1.0
    assert list(found) == ["logits", "outlier_score"]
    assert torch.equal(found["logits"], logits)
    assert found["outlier_score"].numpy() == pytest.approx(expected, abs=1e-5 * size)
    assert expected == pytest.approx(plain, abs=1e-5 * size), "the score does not depend on the temperature"
    assert expected[3] == pytest.approx(outlier_scores(task, score, images[3:4])[0][0], abs=1e-5)


def test_features_far_from_the_origin_lose_no_digits(task: ClassificationTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Squares of numbers around 1000 leave 32 bits no digits for distances around 5."""
    draw, features = np.random.default_rng(0), 1000 + torch.randn(8, 16)
    centres = (1000 + draw.normal(size=(3, 16))).astype(np.float32)
    score = OutlierScore(whitening=np.eye(16, dtype=np.float32), centres=centres)
    monkeypatch.setattr(task, "with_features", lambda images: (torch.zeros(len(images), 3), features))
    found = WithOutlierScore(task, score)(torch.zeros(8, 3, 8, 8))["outlier_score"]
    assert found.numpy() == pytest.approx(score.distances(features.numpy()), abs=1e-3)


def test_a_file_says_what_its_second_output_is(task: ClassificationTask) -> None:
    facts = about(Preprocessing(image_size=(8, 8)), CLASSES, task)
    plain = Source(model=task, images=torch.randn(2, 3, 8, 8), facts=facts)
    source = with_outlier_score(plain, OutlierOutput(score=score_of(1.0), threshold=3.0))
    assert source.output_names == ["logits", "outlier_score"]
    assert source.facts["task"]["outlier_score"] == {"output": "outlier_score", "unusual_above": pytest.approx(3.0003)}
    assert source.facts["rule"].startswith(facts["rule"])
    assert "with more than 3.0003 is unusual" in source.facts["rule"]
    assert "outlier_score" not in plain.facts["task"]
    with pytest.raises(ExportError, match="keeps one output"):
        export_source(source, "model.aoti.pt2", format="aoti")
