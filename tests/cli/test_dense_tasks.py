"""Tasks that say more than one class an image, through the verbs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitrail.cli.main import main
from vitrail.tasks import find_task

Capture = pytest.CaptureFixture[str]

TINY = [
    *("--model", "edgevit_nano_stride2", "--image-size", "32", "--epochs", "6", "--batch-size", "4"),
    *("--num-workers", "0", "--learning-rate", "3e-3", "--rand-augment-num-ops", "0", "--ema-decay", "0.8"),
    *("--drop-path-rate", "0"),
]
QUICK = [
    *("--min-runs", "2", "--min-seconds", "0", "--warmup-runs", "1", "--no-memory", "--runtimes", "onnxruntime"),
]


def result(capsys: Capture, words: list[str]) -> Any:
    """What a verb prints with ``--json``."""
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Green ground below a grey sky, with a red box on it."""
    folder = tmp_path_factory.mktemp("scenes")
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 4)):
        for name in ("images", "masks"):
            (folder / part / name).mkdir(parents=True)
        for index in range(count):
            mask = np.zeros((30, 40), np.uint8)
            mask[random.integers(8, 20) :] = 1
            top, left = random.integers(4, 18), random.integers(2, 28)
            mask[top : top + 9, left : left + 9] = 2
            colours = np.array([[150, 150, 160], [40, 160, 50], [200, 30, 30]])[mask]
            pixels = np.clip(colours + random.integers(-20, 20, colours.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / part / "images" / f"{index}.png")
            Image.fromarray(mask).save(folder / part / "masks" / f"{index}.png")
    (folder / "classes.txt").write_text("sky\nground\nbox\n")
    return folder


SEGMENTATION = ["--task", "segmentation", "--option.width", "16"]


def test_segmentation_learns_and_shows_what_it_learnt(scenes: Path, tmp_path: Path, capsys: Capture) -> None:
    run = str(tmp_path / "run")
    best = result(capsys, ["train", *SEGMENTATION, "--data", str(scenes), "--run", run, *TINY])
    assert best["val_miou"] > 0.6
    values = result(capsys, ["evaluate", run])
    report = values["reports"]["torch-float"]
    assert report["miou"] == pytest.approx(best["val_miou"], abs=1e-4)
    assert [row["name"] for row in report["per_class"]] == ["sky", "ground", "box"]
    assert main(["evaluate", run, "--data", str(scenes)]) == 0
    assert "16 images: mIoU" in capsys.readouterr().out
    assert main(["report", run]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    for text in ("mIoU", "pixel accuracy", "Class by class", "ground", "Annotation of"):
        assert text in page
    assert "calibration error" not in page

    words = ["predict", run, str(scenes / "val" / "images"), "--csv", "--out", str(tmp_path / "pictures")]
    capsys.readouterr()
    assert main(words) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["class"] for row in rows} <= {"sky", "ground", "box"}
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {f"{i}.png" for i in range(4)}
    with Image.open(tmp_path / "pictures" / "0.png") as picture:
        assert picture.size == (40, 30)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red box on grey, with its sides as keypoints, and its mask."""
    folder = tmp_path_factory.mktemp("boxes")
    random = np.random.default_rng(0)
    (folder / "annotations").mkdir()
    for part, count in (("train", 8), ("val", 4)):
        (folder / part).mkdir()
        values: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
        values["categories"] = [{"id": 1, "name": "box", "keypoints": ["left", "right"], "skeleton": [[1, 2]]}]
        for i in range(count):
            left, top = (int(n) for n in random.integers(2, 20, 2))
            pixels = np.full((40, 40, 3), 120, np.uint8)
            pixels[top : top + 16, left : left + 16] = [220, 20, 20]
            Image.fromarray(pixels).save(folder / part / f"{i}.png")
            keypoints = [left + 1, top + 8, 2, left + 15, top + 8, 2]
            corners = [left, top, left + 16, top, left + 16, top + 16, left, top + 16]
            box = {"bbox": [left, top, 16, 16], "area": 256, "iscrowd": 0, "keypoints": keypoints}
            box["segmentation"] = [corners]
            values["images"].append({"id": i, "file_name": f"{i}.png", "height": 40, "width": 40})
            values["annotations"].append({"id": i, "image_id": i, "category_id": 1} | box)
        (folder / "annotations" / f"{part}.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize(
    ("task", "score", "answers", "per_class"),
    [
        ("detection", "map", "objects", "ap"),
        ("instances", "mask_map", "objects", "ap"),
        ("pose", "pck", "keypoints", "pck"),
    ],
)
def test_boxes_and_keypoints_through_the_verbs(
    task: str, score: str, answers: str, per_class: str, boxes: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = str(tmp_path / "run")
    given = [
        "--task",
        task,
        "--option.width",
        "16",
        "--data",
        str(boxes),
        "--run",
        run,
        *TINY[:4],
        *TINY[6:],
        "--epochs",
        "2",
    ]
    best = result(capsys, ["train", *given])
    report = result(capsys, ["evaluate", run])["reports"]["torch-float"]
    assert report[score] == pytest.approx(best[f"val_{score}"], abs=1e-4)
    assert per_class in report["per_class"][0]
    pictures = tmp_path / "pictures"
    found = result(capsys, ["predict", run, str(boxes / "val" / "0.png"), "--out", str(pictures), "--top-k", "2"])
    assert len(found["predictions"][0][answers]) <= 2
    with Image.open(pictures / "0.png") as picture:
        assert picture.size == (40, 40)
    assert main(["report", run]) == 0
    assert find_task(task).scores[0].title in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_segmentation_goes_the_whole_way(scenes: Path, tmp_path: Path, capsys: Capture) -> None:
    words = [*SEGMENTATION, "--calibration", "8", "--data", str(scenes), "--run", str(tmp_path / "run")]
    facts = result(capsys, ["run", *words, *TINY, *QUICK])
    assert facts["miou"] > 0.6
    files = {row["file"]: row["miou"] for row in facts["files"]}
    assert files["model.onnx"] == pytest.approx(facts["miou"], abs=1e-3)
    assert files["model.int8.onnx"] > 0.5
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert evaluation["reports"]["onnx-float"]["agreement"] > 0.999


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the runtimes' converters
@pytest.mark.parametrize(
    ("task", "head"),
    [
        *(("detection", head) for head in ("retinanet", "fasterrcnn", "cascade", "dfine", "rtdetrv2")),
        *(("instances", head) for head in ("maskrcnn", "cascade")),
    ],
)
def test_every_head_of_boxes_goes_through_every_verb(
    task: str, head: str, boxes: Path, tmp_path: Path, capsys: Capture
) -> None:
    """After training, when the places of a plain background score alike."""
    run = str(tmp_path / "run")
    words = ["--task", task, "--option.head", head, "--option.width", "16", "--option.proposals", "20"]
    score = result(capsys, ["train", *words, "--data", str(boxes), "--run", run, *TINY])
    result(capsys, ["quantize", run, "--calibration", "4"])
    formats = ("onnx", "openvino", "torch-export")
    records = result(capsys, ["export", run, "--format", ",".join(formats), "--num-images", "4"])
    assert len(records) == 5, "a float file of each, and two of integers"
    assert all(record["verified"] for record in records)
    reports = result(capsys, ["evaluate", run])["reports"]
    main_score = find_task(task).scores[0].name
    assert reports["torch-float"][main_score] == pytest.approx(score[f"val_{main_score}"], abs=1e-4)
    assert reports["onnx-float"][main_score] == pytest.approx(reports["torch-float"][main_score], abs=0.02)
    rows = result(capsys, ["bench", run, *QUICK])
    assert {row["variant"] for row in rows} == {"float", "int8"}
    assert main(["explain", run, str(boxes / "val" / "0.png")]) == 0
    assert main(["report", run]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --task cooking", "unknown task 'cooking'; known: classification, multilabel, segmentation"),
        ("train --task segmentation --option.heads x", "has no option 'heads'; it has head, width"),
        ("train --task segmentation --data nowhere", "data folder nowhere does not exist; give images/ and masks/"),
        ("train --task segmentation --data DATA --mixup-alpha 0.2", "only images with one class each can be mixed"),
        ("train --task segmentation --data DATA --bad-annotations ignore", "--bad-annotations. Choose from"),
    ],
)
def test_mistakes_get_one_line(words: str, message: str, scenes: Path, tmp_path: Path, capsys: Capture) -> None:
    given = [str(scenes) if word == "DATA" else word for word in words.split()]
    capsys.readouterr()
    assert main([*given, *TINY, "--run", str(tmp_path / "run")]) == 2
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1]
