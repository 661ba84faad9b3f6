from __future__ import annotations

import contextlib
import io

import pytest
import torch
from torch import Tensor

from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.models import create_model
from vitrail.tasks import PoseTask, TaskSpec
from vitrail.tasks.metrics.keypoint_accuracy import average_precision
from vitrail.tasks.pose import POSE, PoseAnswers, PoseOptions

NAMES = ("left", "right", "tail")


@pytest.fixture(scope="module")
def task() -> PoseTask:
    torch.manual_seed(0)
    backbone = create_model("edgevit_nano_stride2", num_classes=0)
    return PoseTask(backbone, NAMES, PoseOptions(width=16), skeleton=[(0, 1)]).eval()


def targets(places: Tensor, *, labelled: float = 1.0) -> dict[str, Tensor]:
    count, number, _ = places.shape
    return {
        "keypoints": torch.cat([places, torch.full((count, number, 1), labelled)], 2),
        "area": torch.full((count,), 0.2),
        "side": torch.full((count,), 0.6),
    }


def test_maps_have_the_stride_that_was_asked_for(task: PoseTask) -> None:
    assert task(torch.randn(2, 3, 48, 64)).shape == (2, 3, 12, 16)
    backbone = create_model("vit_nano_patch4", num_classes=0)
    assert PoseTask(backbone, NAMES).eval()(torch.randn(1, 3, 32, 32)).shape == (1, 3, 8, 8)


def test_decoding_inverts_the_peaks_to_a_fraction_of_a_pixel(task: PoseTask) -> None:
    places = 0.2 + 0.6 * torch.rand(16, 3, 2, generator=torch.Generator().manual_seed(1))
    found, scores = task.locate(task.peaks(places, (24, 32)))
    assert ((found - places).abs() * torch.tensor([32, 24])).max() < 0.05, "a whole pixel would be 0.5"
    assert scores.min() > 0.8


def test_decoding_at_borders_and_of_flat_maps_stays_finite(task: PoseTask) -> None:
    corner = torch.zeros(1, 3, 8, 8)
    corner[0, 0, 0, 0] = corner[0, 1, 7, 7] = 1
    found, scores = task.locate(corner)
    torch.testing.assert_close(found[0, :2], torch.tensor([[0.5, 0.5], [7.5, 7.5]]) / 8)
    assert torch.isfinite(found).all()
    assert scores.tolist() == [[1, 1, 0]]


def test_loss_is_zero_for_the_peaks_and_blind_to_the_unlabelled(task: PoseTask) -> None:
    places = torch.rand(2, 3, 2)
    right = task.peaks(places, (12, 16))
    assert task.loss(right, targets(places)) == 0
    assert task.loss(right + 1, targets(places)) > 1
    assert task.loss(right + 1, targets(places, labelled=0.0)) == 0


def test_scores_by_hand(task: PoseTask) -> None:
    """Distances in pixels of a 20x20 map: 0, 1 and 3, where 0.1 x 0.6 x 20 = 1.2 are allowed."""
    places = torch.full((1, 3, 2), 0.5)
    moved = places + torch.tensor([[[0, 0], [0.05, 0], [0, 0.15]]])
    metrics = task.metrics()
    metrics.update(task.peaks(moved, (20, 20)), targets(places))
    values = metrics.compute()
    assert values["pck"] == pytest.approx(2 / 3)
    assert values["pck_per_class"].tolist() == [1, 1, 0]
    # OKS: mean of exp(-d^2 / (2 area (2 sigma)^2)) with area 0.2 x 400 and sigma 0.05
    expected = (1 + torch.tensor([-1 / 1.6, -9 / 1.6]).exp().sum()) / 3
    assert metrics.similarity[0].item() == pytest.approx(expected.item(), abs=0.02)
    assert values["oks_ap"] == pytest.approx(0.1, abs=1e-6), "0.51 passes one threshold of ten"


def test_average_precision_agrees_with_coco() -> None:
    """The same answers in pycocotools: one object an image, whose answer is hit or missed."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    hits = torch.tensor([1, 1, 0, 1, 0, 0, 1, 1, 0, 1], dtype=torch.bool)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        box = [0, 0, 100, 100]
        same = {"category_id": 1, "area": 10000, "iscrowd": 0, "bbox": box}
        truth.dataset = {
            "images": [{"id": i} for i in range(1, 11)],
            "categories": [{"id": 1}],
            "annotations": [same | {"id": i, "image_id": i} for i in range(1, 11)],
        }
        truth.createIndex()
        answers = [
            {"image_id": i + 1, "category_id": 1, "bbox": box if hit else [500, 500, 9, 9], "score": 1 - i / 20}
            for i, hit in enumerate(hits.tolist())
        ]
        judge = COCOeval(truth, truth.loadRes(answers), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert average_precision(hits).item() == pytest.approx(judge.stats[1], abs=1e-6)


def test_an_unknown_mirror_image_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    task = PoseTask(create_model("edgevit_nano_stride2", num_classes=0), ("a", "b"), PoseOptions(width=16)).eval()
    seen = []
    forward = task.forward
    monkeypatch.setattr(task, "forward", lambda images: seen.append(images) or forward(images))
    PoseAnswers(task).predict([torch.zeros(3, 40, 40, dtype=torch.uint8)], Preprocessing(image_size=(64, 64)))
    assert len(seen) == 1


@pytest.mark.parametrize("flip_test", [False, True])
def test_answers_are_in_pixels_of_their_image(flip_test: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that finds colours: the red dot is the left one, the green the right one, the blue the tail."""
    backbone = create_model("edgevit_nano_stride2", num_classes=0)
    task = PoseTask(backbone, NAMES, PoseOptions(width=16, flip_test=flip_test))
    seen = []

    def look(images: Tensor) -> Tensor:
        seen.append(images)
        maps = torch.nn.functional.avg_pool2d(images, 4)
        return maps if len(seen) == 1 else maps[:, [1, 0, 2]]  # in the mirror, left is called right

    monkeypatch.setattr(task, "forward", look)
    image = torch.zeros(3, 60, 100, dtype=torch.uint8)
    places = [(30, 20), (70, 24), (52, 40)]
    for channel, (x, y) in enumerate(places):
        image[channel, y - 4 : y + 4, x - 4 : x + 4] = 255
    how = Preprocessing(image_size=(96, 128), mean=(0, 0, 0), std=(1, 1, 1))
    (answer,) = PoseAnswers(task).predict([image], how)
    assert len(seen) == 1 + flip_test
    assert [one.label for one in answer] == list(NAMES)
    for one, (x, y) in zip(answer, places, strict=True):
        assert (one.x, one.y) == pytest.approx((x, y), abs=1.5)
    (best,) = PoseAnswers(task).predict([image], how, 1)[0] if not flip_test else (answer[0],)
    assert best.label in NAMES
    drawn = PoseAnswers(task).draw(image, answer)
    assert drawn.shape == image.shape
    assert (drawn != image).any()


def test_an_annotated_object_is_looked_at_where_it_is(task: PoseTask) -> None:
    image = torch.randint(0, 255, (3, 80, 120), dtype=torch.uint8)
    how = Preprocessing(image_size=(48, 48))
    box = [70.0, 40.0, 110.0, 75.0]
    found = PoseAnswers(task).predict_sample(image, {"box": torch.tensor(box)}, how)
    assert found == PoseAnswers(task).predict([image], how, boxes=[box])[0]
    assert found != PoseAnswers(task).predict([image], how)[0]
    assert all(65 <= one.x <= 115 and 32 <= one.y <= 83 for one in found), "with a margin"


def test_a_run_remembers_names_and_skeleton() -> None:
    spec = TaskSpec(classes=NAMES, facts={"skeleton": [[0, 2]]}, options={"stride": 8})
    backbone = create_model("edgevit_nano_stride2", num_classes=0)
    task = POSE.create(backbone, spec)
    assert (task.classes, task.skeleton, task.options.stride) == (NAMES, ((0, 2),), 8)
    assert task.mirror == (1, 0, 2), "runs of 0.1.0 say nothing of it"
    for mirror in ([2, 1, 0], []):
        facts = {"skeleton": [], "mirror": mirror}
        assert POSE.create(backbone, TaskSpec(classes=NAMES, facts=facts)).mirror == tuple(mirror)
    with pytest.raises(ConfigError, match="sigma=0"):
        POSE.read_options({"sigma": 0})


def test_decoders_are_as_published() -> None:
    plain, stages = create_model("vit_tiny_patch16", num_classes=0, image_size=64), create_model("edgevit_xxs")
    images = torch.randn(1, 3, 64, 64)
    for backbone, count in ((plain, 2), (stages, 3)):
        task = PoseTask(backbone, NAMES, PoseOptions(width=16)).eval()
        transposed = [one for one in task.head.modules() if isinstance(one, torch.nn.ConvTranspose2d)]
        assert len(transposed) == count
        simple = PoseTask(backbone, NAMES, PoseOptions(decoder="simple")).eval()
        assert len([one for one in simple.head.modules() if isinstance(one, torch.nn.Conv2d)]) == 1
        assert task(images).shape == simple(images).shape == (1, 3, 16, 16)
