"""One linear layer that equals scikit-learn's pipeline, for any number of classes and for classes without images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vitrail.core.errors import ConfigError, DataError
from vitrail.core.types import Preprocessing
from vitrail.data import ImageSet, LabelledImage
from vitrail.models import create_model
from vitrail.tasks import TaskSpec, create_task
from vitrail.training.folds import ALWAYS_TRAINED, deal_folds, draw_of_each_class, groups_of, split_folds
from vitrail.training.linear_probe import LinearHead, fit_linear_head, fit_probe

MODEL = "vitae_plain_nano_patch4"


def clusters(counts: list[int], width: int = 12, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(len(counts), width))
    labels = np.repeat(np.arange(len(counts)), counts)
    features = 3 + 5 * (centres[labels] + spread * draw.normal(size=(len(labels), width)))
    return features.astype(np.float32), labels


@pytest.mark.parametrize("counts", [[20, 25, 30], [20, 30]], ids=["three classes", "two classes"])
def test_the_layer_gives_the_logits_of_scikit_learn(counts: list[int]) -> None:
    features, labels = clusters(counts)
    head = fit_linear_head(features, labels, len(counts), strengths=(0.1,))
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(features, labels)
    wanted, logits = theirs.decision_function(features), head.logits(features)
    if len(counts) == 2:
        np.testing.assert_allclose(logits[:, 1] - logits[:, 0], wanted, atol=1e-4)
    else:
        np.testing.assert_allclose(logits, wanted, atol=1e-4)
    backbone = create_model(MODEL, num_classes=len(counts), image_size=32)
    backbone.head = torch.nn.Linear(12, len(counts))
    head.give(backbone)
    ours = backbone.head(torch.from_numpy(features)).detach().numpy()
    np.testing.assert_allclose(ours, logits, atol=1e-4)
    softmax = np.exp(ours) / np.exp(ours).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax, theirs.predict_proba(features), atol=1e-4)


def test_a_class_without_images_never_wins() -> None:
    features, labels = clusters([10, 10, 10])
    labels = np.array([0, 2, 4])[labels]
    head = fit_linear_head(features, labels, 5)
    assert head.absent == (1, 3)
    far = 1e4 * np.random.default_rng(1).normal(size=(1000, 12)).astype(np.float32)
    for images in (features, far):
        assert not np.isin(head.logits(images).argmax(axis=1), (1, 3)).any()


def test_noise_needs_strong_regularisation_and_clear_classes_do_not() -> None:
    noise, labels = clusters([15, 15], width=40, spread=200.0)
    clear, _ = clusters([15, 15], spread=0.05)
    assert fit_linear_head(noise, labels, 2).strength < fit_linear_head(clear, labels, 2).strength


def test_balanced_weights_answer_the_rare_class_more_often() -> None:
    features, labels = clusters([200, 8], width=3, spread=2.0)
    plain = fit_linear_head(features, labels, 2)
    balanced = fit_linear_head(features, labels, 2, class_weights="balanced")
    rare = labels == 1
    assert (balanced.logits(features)[rare].argmax(1) == 1).mean() > (
        plain.logits(features)[rare].argmax(1) == 1
    ).mean()


def test_a_feature_that_hardly_varies_is_not_made_loud() -> None:
    features, labels = clusters([10, 10])
    features[:, 0] = 1 + 1e-7 * labels  # what rounding would leave
    assert np.abs(fit_linear_head(features, labels, 2).weight[:, 0]).max() < 1


@pytest.mark.parametrize("counts", [[1, 1, 1], [1, 6, 2]])
def test_classes_with_few_images_are_fitted(counts: list[int]) -> None:
    features, labels = clusters(counts, spread=0.1)
    head = fit_linear_head(features, labels, 3)
    assert (head.logits(features).argmax(axis=1) == labels).all()


def test_what_cannot_be_told_apart_is_told() -> None:
    with pytest.raises(DataError, match="1 class has training images"):
        fit_linear_head(*clusters([5]), 2)
    with pytest.raises(DataError, match="all 6 training images have the same features"):
        fit_linear_head(np.ones((6, 4), np.float32), np.array([0, 1] * 3), 2)
    backbone = create_model(MODEL, num_classes=3, image_size=32)
    with pytest.raises(ConfigError, match=r"create the model with num_classes=2"):
        LinearHead(weight=np.zeros((2, backbone.num_features)), bias=np.zeros(2), strength=1.0).give(backbone)


def test_folds_hold_copies_together_and_keep_single_images() -> None:
    labels = np.array([0] * 10 + [1] * 5 + [2] + [3] * 2)
    groups = np.array([*range(8), 7, 7, *range(10, 15), 15, 16, 16])  # a triple, and a class of two equal images
    folds = deal_folds(labels, 5, 0, groups)
    assert folds[7] == folds[8] == folds[9]
    assert (folds[15:] == ALWAYS_TRAINED).all()
    for train, held_out in split_folds(folds):
        assert not set(groups[train]) & set(groups[held_out])
        assert {0, 1, 2, 3} == set(labels[train])
    assert (deal_folds(labels, 5, 0, groups) == folds).all()
    assert (deal_folds(labels, 5, 1, groups) != folds).any()


def test_a_draw_takes_as_many_of_each_class() -> None:
    labels = np.array([0] * 9 + [1] * 2)
    drawn = draw_of_each_class(labels, 4, 0)
    assert np.bincount(labels[drawn]).tolist() == [4, 2]
    assert set(draw_of_each_class(labels, 4, 0, among=[1, 3])) == {1, 3}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Dark to the left, dark to the right."""
    folder, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    records = []
    for index in range(40):
        ramp = np.linspace(20, 200, 16)[None, :, None] + draw.integers(-20, 20, (16, 16, 3))
        pixels = np.clip(ramp if index % 2 else ramp[:, ::-1], 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        record = LabelledImage(name=f"{index}.png", source=folder / f"{index}.png", label=index % 2, digest=str(index))
        records.append(record)
    return ImageSet(records=records)


def test_the_head_of_a_task_is_set_in_place(images: ImageSet, tmp_path: Path) -> None:
    task = create_task("classification", MODEL, {"num_classes": 3, "image_size": 16}, TaskSpec(classes=("l", "r", "x")))
    before = {name: value.clone() for name, value in task.state_dict().items() if ".head." not in name}
    preprocessing = Preprocessing(image_size=(16, 16))
    train, val = images.subset(range(28)), images.subset(range(28, 40))
    probe = fit_probe(task, train, preprocessing, val=val, cache=tmp_path)
    assert probe.absent == ("x",)
    assert probe.val_score is not None
    assert probe.val_score > 0.8
    pixels = torch.stack([val.fitted(i, preprocessing)[0] for i in range(len(val))])
    with torch.inference_mode():
        answers = task(preprocessing.normalize(pixels)).argmax(1)
    assert float((answers == val.labels).double().mean()) == probe.val_score
    for name, value in before.items():
        assert torch.equal(task.state_dict()[name], value)
    assert fit_probe(task, train, preprocessing, cache=tmp_path).val_score is None


def test_a_probe_is_of_a_classifier(images: ImageSet) -> None:
    task = create_task("segmentation", MODEL, {"num_classes": 0, "image_size": 32}, TaskSpec(classes=("l", "r")))
    with pytest.raises(ConfigError, match="tells classes apart, and the task is segmentation"):
        fit_probe(task, images, Preprocessing())


def test_copies_are_one_group(images: ImageSet) -> None:
    twice = images.subset([0, 1, 0])
    assert groups_of(twice).tolist() == [0, 1, 0]
