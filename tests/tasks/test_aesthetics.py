"""Opinions: the distance of distributions, its slope, and the figures of merit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from vitrail.core.errors import ConfigError
from vitrail.models import create_model
from vitrail.tasks import TaskSpec, create_task
from vitrail.tasks.aesthetics import AestheticsAnswers, AestheticsOptions, AestheticsTask, emd

SCALE = tuple(range(1, 6))


def make(**options: Any) -> AestheticsTask:
    return AestheticsTask(create_model("edgevit_nano_stride2", num_classes=0), SCALE, AestheticsOptions(**options))


def test_emd_by_hand() -> None:
    predicted = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.25, 0.25, 0.25, 0.25]])
    target = torch.tensor([[0.0, 0.5, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    # cumulative differences: (.5, .5, 0, 0), (1, 1, 1, 0), none
    torch.testing.assert_close(emd(predicted, target), torch.tensor([(0.5 / 4) ** 0.5, (3 / 4) ** 0.5, 1e-6]))
    torch.testing.assert_close(emd(predicted, target, 1.0)[:2], torch.tensor([1 / 4, 3 / 4]))


def test_the_slope_of_emd_by_hand() -> None:
    predicted = torch.tensor([[0.5, 0.5, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[0.0, 0.5, 0.5, 0.0]], dtype=torch.float64)
    emd(predicted, target).sum().backward()
    distance = (0.5 / 4) ** 0.5
    # d/dp_j = sum over k >= j of (CDF difference at k) / (4 distance)
    wanted = torch.tensor([[1.0, 0.5, 0.0, 0.0]], dtype=torch.float64) / (4 * distance)
    torch.testing.assert_close(predicted.grad, wanted)


def test_the_slope_of_emd_is_that_of_differences() -> None:
    predicted = torch.rand(3, 6, dtype=torch.float64).softmax(1).requires_grad_()
    target = torch.rand(3, 6, dtype=torch.float64).softmax(1)
    for power in (1.5, 2.0, 3.0):
        assert torch.autograd.gradcheck(lambda p, r=power: emd(p, target, r), predicted)


def test_a_perfect_answer_has_a_finite_slope() -> None:
    task = make()
    output = torch.full((2, 5), 0.2, requires_grad=True)
    task.loss(output, {"distribution": torch.full((2, 5), 0.2)}).backward()
    assert torch.isfinite(output.grad).all()


def test_outputs_are_distributions() -> None:
    task = make().eval()
    output = task(torch.randn(3, 3, 48, 48)).detach()
    torch.testing.assert_close(output.sum(1), torch.ones(3))
    assert output.min() >= 0


def test_ratings_by_hand() -> None:
    (rating,) = AestheticsAnswers(make()).decode(torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]))
    assert (rating.score, rating.deviation) == (3.0, 1.0)
    values = AestheticsAnswers(make()).to_dict(rating)
    assert values["distribution"] == {
        "1": 0.0,
        "2": 0.5,
        "3": 0.0,
        "4": 0.5,
        "5": 0.0,
    }


def test_figures_are_those_of_scipy() -> None:
    task = make()
    outputs = torch.rand(40, 5).mul(3).softmax(1)
    given = (task.mean_scores(outputs) + 0.3 * torch.randn(40)).clamp(1, 5)
    metrics = task.metrics()
    for start in (0, 16, 32):
        part = slice(start, start + 16)
        metrics.update(outputs[part], {"score": given[part]})
    values = metrics.compute()
    means = (outputs.double().numpy() * np.arange(1, 6)).sum(1)
    assert float(values["plcc"]) == pytest.approx(stats.pearsonr(means, given.numpy()).statistic, abs=1e-5)
    assert float(values["srcc"]) == pytest.approx(stats.spearmanr(means, given.numpy()).statistic, abs=1e-5)
    assert float(values["mean_error"]) == pytest.approx(np.abs(means - given.numpy()).mean(), abs=1e-5)
    assert float(values["accuracy"]) == pytest.approx(((means > 3) == (given.numpy() > 3)).mean(), abs=1e-6)


def test_the_same_answer_to_everything_ranks_nothing() -> None:
    metrics = make().metrics()
    metrics.update(torch.full((6, 5), 0.2), {"score": torch.tensor([1.0, 2, 3, 4, 5, 3])})
    values = metrics.compute()
    assert values["srcc"] == values["plcc"] == 0


def test_the_threshold_is_5_for_ava_and_the_middle_elsewhere() -> None:
    backbone = create_model("edgevit_nano_stride2", num_classes=0)
    assert AestheticsTask(backbone, range(1, 11)).threshold == 5
    assert make().threshold == 3
    assert make(threshold=4.0).threshold == 4
    with pytest.raises(ConfigError, match=r"threshold=7\.0 is outside of the scale from 1 to 5"):
        make(threshold=7.0)


def test_tasks_that_cannot_be() -> None:
    backbone = create_model("edgevit_nano_stride2", num_classes=0)
    with pytest.raises(ConfigError, match="two or more ascending"):
        AestheticsTask(backbone, [3])
    with pytest.raises(ConfigError, match=r"power=0\.5"):
        make(power=0.5)
    spec = TaskSpec(facts={"scale": [1, 2, 3]})
    assert create_task("aesthetics", "edgevit_nano_stride2", {"num_classes": 0}, spec).scale.tolist() == [1, 2, 3]


def test_the_score_is_drawn_into_the_corner() -> None:
    task = make()
    image = torch.full((3, 60, 80), 128, dtype=torch.uint8)
    drawn = AestheticsAnswers(task).draw(image, AestheticsAnswers(task).truth({"score": torch.tensor(4.25)}))
    assert drawn.shape == image.shape
    changed = (drawn != image).any(0)
    assert changed[:12, :20].any()
    assert not changed[20:].any()
