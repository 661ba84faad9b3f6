from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from soundness.conftest import WriteScenes

from vitrail.core.errors import VitrailError
from vitrail.models import create_model
from vitrail.soundness import CheckConfig, check_data
from vitrail.soundness.by_features import find_neighbours, out_of_fold
from vitrail.soundness.confident_learning import judge_labels
from vitrail.soundness.entries import judge_entries


def test_a_confident_joint_by_hand() -> None:
    """Thresholds are the mean probabilities of the given classes: 0.7 and 0.6."""
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.1, 0.9], [0.8, 0.2]])
    found = judge_labels(probabilities, np.array([0, 0, 0, 1, 1, 1]))
    assert found.suggested.tolist() == [1, 1, 1, 0, 0, 0]
    assert found.margin == pytest.approx([0.8, 0.6, -0.2, 0.4, 0.8, -0.6])
    assert found.doubted.tolist() == [False, False, True, False, False, True]
    assert found.num_wrong == pytest.approx(2)


def test_an_unsure_answer_is_no_doubt() -> None:
    """The third image is more like class 1, but less so than images of class 1 usually are."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.45, 0.55], [0.1, 0.9], [0.1, 0.9]])
    found = judge_labels(probabilities, np.array([0, 0, 0, 1, 1]))
    assert not found.doubted.any()
    assert found.num_wrong == 0


def clusters(num_classes: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    centres = 4 * np.eye(num_classes, 12)
    labels = np.repeat(np.arange(num_classes), count)
    return (centres[labels] + draw.normal(size=(len(labels), 12))).astype(np.float32), labels


def test_planted_wrong_labels_are_first() -> None:
    features, labels = clusters(4, 30)
    wrong = np.random.default_rng(1).choice(len(labels), 6, replace=False)
    given = labels.copy()
    given[wrong] = (given[wrong] + 1) % 4
    probabilities, judged = out_of_fold(features, given, np.arange(len(given)), seed=0)
    assert judged.tolist() == list(range(len(given)))
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(given)))
    found = judge_labels(probabilities, given)
    first = np.argsort(found.margin)[:8]
    assert {*wrong.tolist()} <= {*first.tolist()}
    assert found.suggested[wrong].tolist() == labels[wrong].tolist()
    assert 4 <= found.num_wrong <= 8


def marked(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features in which three classes each have a direction, and which image has which of them."""
    draw = np.random.default_rng(0)
    targets = (draw.random((count, 3)) < (0.5, 0.3, 0.15)).astype(np.float32)
    features = 8 * targets @ np.eye(3, 12) + draw.normal(size=(count, 12))
    return features.astype(np.float32), targets


def test_planted_wrong_entries_are_first() -> None:
    features, targets = marked(160)
    given = targets.copy()
    planted = {(int(np.flatnonzero(targets[:, 0] == 1)[3]), 0), (int(np.flatnonzero(targets[:, 2] == 0)[5]), 2)}
    for image, label in planted:
        given[image, label] = 1 - given[image, label]
    unknown = int(np.flatnonzero(targets[:, 1] == 1)[0])
    given[unknown, 1] = -1
    found = judge_entries(features, given, np.arange(160), seed=0)
    assert {(one.image, one.label) for one in found.doubts[:2]} == planted
    assert all(one.given == bool(given[one.image, one.label]) for one in found.doubts)
    assert (unknown, 1) not in {(one.image, one.label) for one in found.doubts}
    assert found.num_judged == 3 * 160 - 1
    assert 1 <= found.num_wrong <= 8


def test_entries_of_a_rare_class_and_of_copies_alone_are_not_judged() -> None:
    features, targets = marked(60)
    rare = targets.copy()
    rare[:, 2] = 0
    rare[:4, 2] = 1
    assert {one.label for one in judge_entries(features, rare, np.arange(60), seed=0).doubts} <= {0, 1}
    assert judge_entries(features, targets, np.zeros(60, np.int64), seed=0).num_judged == 0, "all are one image"


def test_labels_of_images_with_several_classes_are_judged(tmp_path: Path, write_scenes: WriteScenes) -> None:
    root = write_scenes({"images": 24})
    names = ["red", "round, ü"]
    rows = [f"images/{i}.png,{int(i % 2 == 0)},{int(i % 3 == 0)}" for i in range(24)]
    (root / "labels.csv").write_text("\n".join(['file,red,"round, ü"', *rows]), encoding="utf-8")
    weights = tmp_path / "nano.safetensors"
    save_file(create_model("vit_nano_patch4", num_classes=3).state_dict(), weights)
    config = CheckConfig(task="multilabel", model="vit_nano_patch4", weights=str(weights), mean=(0.5,), std=(0.5,))
    found = check_data(root, config)
    assert found.labels_judged
    assert found.relabel, "chance alone leaves doubts"
    for doubt in found.relabel:
        number, has = int(Path(doubt.file).stem), not doubt.label.startswith("not ")
        name = doubt.label.removeprefix("not ")
        assert name in names
        assert has == (number % (2 if name == "red" else 3) == 0)
        assert doubt.suggested == (f"not {name}" if has else name)


def test_an_image_that_is_alone_in_its_class_is_not_judged() -> None:
    features, labels = clusters(3, 10)
    labels[0] = 3
    probabilities, judged = out_of_fold(features, labels, np.arange(len(labels)), seed=0)
    assert 0 not in judged
    assert probabilities.shape == (30, 4)


def test_what_is_far_from_all_others() -> None:
    features, _ = clusters(2, 20)
    features[7] = -features[7]
    near = find_neighbours(features)
    assert near.distances[:, 1:].mean(axis=1).argmax() == 7
    assert near.indices[:, 0].tolist() == list(range(40))
    assert find_neighbours(features[:3]).distances.shape == (3, 3)


def test_weights_let_labels_be_judged(tmp_path: Path, write_scenes: WriteScenes) -> None:
    weights = tmp_path / "nano.safetensors"
    save_file(create_model("vit_nano_patch4", num_classes=3).state_dict(), weights)
    root = write_scenes({"cat": 12, "dog": 12})
    Image.open(root / "dog/3.png").crop((6, 4, 46, 44)).save(root / "dog/part.png")
    config = CheckConfig(model="vit_nano_patch4", weights=str(weights), mean=(0.5,), std=(0.5,))
    found = check_data(root, config)
    assert found.labels_judged
    assert found.unchecked == ()
    copies = found.find("near-copies")
    assert copies is not None
    assert [example.files for example in copies.examples] == [("dog/part.png", "dog/3.png")]
    assert "zoomed" in copies.examples[0].note
    scores = [doubt.score for doubt in found.relabel]
    assert scores == sorted(scores)
    assert all(doubt.label != doubt.suggested for doubt in found.relabel)
    assert check_data(root, config) == found
    unlabelled = check_data(root, CheckConfig(task="pretraining", model="vit_nano_patch4", weights=str(weights)))
    assert not unlabelled.labels_judged


def test_weights_of_a_run_bring_their_model(write_scenes: WriteScenes) -> None:
    """One with fields of its own, whose name alone would not build it."""
    run = Path(__file__).parents[1] / "runs" / "run-0.1.0"
    assert check_data(write_scenes({"cat": 10, "dog": 10}), CheckConfig(weights=str(run))).labels_judged


def test_wrong_weights_are_told_before_the_data_is_read(tmp_path: Path) -> None:
    with pytest.raises(VitrailError, match=r"none\.safetensors"):
        check_data(
            tmp_path / "no-data", CheckConfig(model="vit_nano_patch4", weights=str(tmp_path / "none.safetensors"))
        )
