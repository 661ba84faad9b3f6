"""One bound for the objects of a list, of a picture and of a file: found on the validation images, kept in the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vitrail.cli.main import main
from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.data import decode_image
from vitrail.export.source import about
from vitrail.runs import min_confidence
from vitrail.runs.data import load_run_data
from vitrail.runs.load import load_task
from vitrail.runs.min_confidence import keep_confidence
from vitrail.runs.predict import predict_run
from vitrail.runs.run import Run
from vitrail.tasks import TaskSpec, create_task
from vitrail.tasks.drawing import draw_boxes

SMALL = {
    "embed_dims": [8, 16],
    "depths": [1, 1],
    "head_dim": 8,
    "sr_ratios": [2, 1],
    "strides": [4, 2],
    "image_size": [32, 32],
}
OPTIONS = {"width": 8, "extra_levels": 0}


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dark box on noise, in YOLO's format."""
    folder = tmp_path_factory.mktemp("boxes")
    random = np.random.default_rng(0)
    for part, count in (("train", 2), ("val", 3)):
        for name in ("images", "labels"):
            (folder / name / part).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(90, 250, (32, 32, 3), dtype=np.uint8)
            pixels[8:24, 4:28] = 10
            Image.fromarray(pixels).save(folder / "images" / part / f"{number}.png")
            (folder / "labels" / part / f"{number}.txt").write_text("0 0.5 0.5 0.75 0.5\n")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [box]\n")
    return folder


@pytest.fixture
def run(boxes: Path, tmp_path: Path) -> Run:
    """A detector with random weights whose probabilities spread over 0 to 1."""
    torch.manual_seed(0)
    task = create_task("detection", "edgevit_nano_stride2", SMALL, TaskSpec(classes=("box",), options=OPTIONS))
    torch.nn.init.normal_(task.head.layers.classification_head.cls_logits.weight, std=0.2)
    torch.nn.init.zeros_(task.head.layers.classification_head.cls_logits.bias)
    run = Run(tmp_path / "run")
    run.update(
        model={"name": "edgevit_nano_stride2", "fields": SMALL},
        task="detection",
        classes=["box"],
        preprocessing=Preprocessing(image_size=(32, 32), crop_fraction=1.0).to_dict(),
        training={"task": "detection", "data": {"path": str(boxes)}, "options": OPTIONS},
        status="trained",
    )
    save_file(task.state_dict(), run.weights)
    return run


def picture_of(run: Run) -> Path:
    return Path(run.read().training.data.path) / "images" / "val" / "0.png"


def objects(run: Run, **options: Any) -> list[Any]:
    (image,) = predict_run(run, [picture_of(run)], **options).images
    return list(image.answer)


def test_before_it_is_found_the_bound_is_one_half(run: Run) -> None:
    found = objects(run)
    assert found
    assert all(one.probability >= 0.5 for one in found)
    assert len(objects(run, min_confidence=0.05)) > len(found)


def test_it_is_found_once_and_kept_with_the_hash_of_the_weights(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keep_confidence(run, load_task(run), load_run_data(run))
    assert kept is not None
    assert kept.num_images == 3
    assert run.read().confidence == kept
    assert load_task(run).min_confidence == kept.min_confidence
    monkeypatch.setattr(min_confidence, "eval_loader", lambda *_, **__: pytest.fail("it is known"))
    assert keep_confidence(run, load_task(run), load_run_data(run)) == kept


def test_other_weights_need_another(run: Run) -> None:
    run.update(confidence={"min_confidence": 0.123, "f1": 1.0, "num_images": 3, "weights_hash": run.weights_hash})
    assert load_task(run).min_confidence == 0.123
    state = load_task(run).state_dict()
    save_file({name: value + 0.01 if value.ndim > 1 else value for name, value in state.items()}, run.weights)
    assert load_task(run).min_confidence == 0.5
    kept = keep_confidence(run, load_task(run), load_run_data(run))
    assert kept is not None
    assert kept.min_confidence != 0.123


def test_a_file_says_the_bound_of_its_run(run: Run) -> None:
    run.update(confidence={"min_confidence": 0.123, "f1": 1.0, "num_images": 3, "weights_hash": run.weights_hash})
    facts = about(run.read().preprocessing, ("box",), load_task(run))
    assert facts["task"] == {
        "name": "detection",
        "frame": "letterbox",
        "min_confidence": 0.123,
        "nms_threshold": 0.5,
        "max_objects": 100,
    }


@pytest.mark.parametrize("bound", [0.0, 0.2, 0.55, 0.999999])
def test_the_list_and_the_picture_show_the_same(
    bound: float, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(run.folder), str(picture_of(run)), "--out", str(tmp_path / "drawn"), "--json"]
    assert main([*words, "--min-confidence", str(bound), "--max-detections", "3"]) == 0
    printed = capsys.readouterr()
    listed = json.loads(printed.out)["predictions"][0]["objects"]
    assert len(listed) == (0 if bound > 0.99 else 3)
    assert all(one["probability"] >= bound for one in listed)
    with Image.open(tmp_path / "drawn" / "0.png") as drawn:
        pixels = torch.from_numpy(np.asarray(drawn).transpose(2, 0, 1).copy())
    pairs = [(one["box"], one["index"]) for one in listed]
    assert torch.equal(pixels, draw_boxes(decode_image(picture_of(run)), pairs, ("box",)))
    assert f"objects of a probability below {bound:.2g} are left out" in printed.err
    assert ("1 of 1 images have no object" in printed.err) == (not listed)


def test_what_is_left_out_by_default_is_said_with_the_reason(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", str(run.folder), str(picture_of(run)), "--csv"]
    assert main(words) == 0
    assert f"below 0.5 are left out (vitrail evaluate {run.folder} finds the best one;" in capsys.readouterr().err
    keep_confidence(run, load_task(run), load_run_data(run))
    assert main(words) == 0
    assert "(the best F1 on the validation images; --min-confidence sets another)" in capsys.readouterr().err


def test_more_objects_than_the_model_was_trained_to_list(run: Run) -> None:
    run.update(training=run.read().model_dump(mode="json")["training"] | {"options": OPTIONS | {"max_objects": 2}})
    assert len(objects(run, min_confidence=0.01)) == 2
    assert len(objects(run, min_confidence=0.01, top_k=7)) == 7


def test_no_object_is_thinner_than_half_a_pixel(run: Run) -> None:
    for one in objects(run, min_confidence=0.0, top_k=1000):
        left, top, right, bottom = one.box
        assert right - left > 0.4999
        assert bottom - top > 0.4999
        assert 0 <= left < right <= 32
        assert 0 <= top < bottom <= 32


@pytest.mark.parametrize("bound", [-0.1, 1.0, 50.0, float("nan")])
def test_a_bound_that_is_no_probability(bound: float, run: Run) -> None:
    with pytest.raises(ConfigError, match=r"min_confidence=.*is outside \[0, 1\)"):
        objects(run, min_confidence=bound)


def test_a_task_without_objects_has_no_bound(run: Run) -> None:
    torch.manual_seed(0)
    task = create_task(
        "segmentation", "edgevit_nano_stride2", SMALL, TaskSpec(classes=("a", "b"), options={"width": 8})
    )
    run.update(task="segmentation", classes=["a", "b"], training={"task": "segmentation", "options": {"width": 8}})
    save_file(task.state_dict(), run.weights)
    with pytest.raises(ConfigError, match="is for objects, and a model of the task 'segmentation' names none"):
        predict_run(run, ["x.png"], min_confidence=0.4)
    assert keep_confidence(run, load_task(run), None) is None  # type: ignore[arg-type]  # it is not looked at
