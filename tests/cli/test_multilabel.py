"""Any number of classes an image, through the verbs."""

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
from vitrail.data import AugmentConfig
from vitrail.runs.load import load_task
from vitrail.runs.run import Run
from vitrail.runs.train import train
from vitrail.training import TrainConfig

Capture = pytest.CaptureFixture[str]
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230)}
FIELDS = {"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 8}


def result(capsys: Capture, words: list[str]) -> Any:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pictures with a band of each colour that they have."""
    root = tmp_path_factory.mktemp("squares")
    (root / "images").mkdir()
    random = np.random.default_rng(0)
    lines = ["file,labels,split"]
    for i in range(36):
        pixels = np.full((16, 16, 3), 120) + random.integers(-20, 20, (16, 16, 3))
        own = [place for place in range(3) if random.random() < (0.6, 0.4, 0.3)[place]]
        for place in own:
            pixels[5 * place : 5 * place + 5] = list(COLOURS.values())[place]
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / "images" / f"{i}.png")
        part = "train" if i < 24 else "val" if i < 30 else "test"
        lines.append(f"{i}.png,{';'.join(list(COLOURS)[place] for place in own)},{part}")
    (root / "labels.csv").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def run(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    augment = AugmentConfig(
        random_resized_crop_scale=(0.9, 1.0), rand_augment_num_ops=0, random_erasing=0.0, hflip=0.0, mixup_alpha=0.1
    )
    config = TrainConfig(
        task="multilabel",
        data=str(squares),  # type: ignore[arg-type]  # converted
        model="vit_nano_patch4",
        model_fields=FIELDS,
        image_size=16,
        epochs=12,
        batch_size=8,
        learning_rate=1e-2,
        warmup_epochs=1,
        ema_decay=0.5,
        drop_path_rate=0.0,
        num_workers=0,
        augment=augment,
        loss="asymmetric",
        class_weights="balanced",
    )
    return train(config, run=tmp_path_factory.mktemp("runs") / "run", progress=False)


def test_it_learns_and_says_what_it_learnt(run: Run, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run.read().kind.name == "multilabel"
    before = result(capsys, ["predict", str(run.folder), str(squares / "images" / "0.png")])
    assert "classes" in before["predictions"][0]
    assert main(["evaluate", str(run.folder)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "giving every image the same labels has mAP" in printed
    assert "Answers name each class from its own probability on (" in printed
    values = json.loads(run.evaluation.read_text())
    report = values["reports"]["torch-float"]
    assert report["map"] > values["findings"]["trivial"]["scores"]["map"] + 0.2
    assert {row["name"] for row in report["per_class"]} == set(COLOURS)
    found = run.read().confidence
    assert found is not None
    assert len(found.by_class) == 3
    assert load_task(run).min_confidences == found.by_class

    capsys.readouterr()
    words = ["predict", str(run.folder), str(squares / "images"), "--csv", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    captured = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    assert {row["class"] for row in rows} <= set(COLOURS)
    assert "classes of a probability below their own bound" in captured.err
    assert len(list((tmp_path / "out").iterdir())) == 36
    picture = str(squares / "images" / "1.png")
    every = result(capsys, ["predict", str(run.folder), picture, "--min-confidence", "0"])["predictions"][0]["classes"]
    assert len(every) == 3
    assert (
        len(
            result(capsys, ["predict", str(run.folder), picture, "--min-confidence", "0", "--top-k", "2"])[
                "predictions"
            ][0]["classes"]
        )
        == 2
    )
    none = ["predict", str(run.folder), picture, "--min-confidence", "0.999999"]
    assert main(none) == 0
    assert "1 of 1 images have no class" in " ".join(capsys.readouterr().err.split())

    assert main(["report", str(run.folder)]) == 0
    page = run.report_page.read_text(encoding="utf-8")
    for text in (
        "mAP",
        "micro F1",
        "exact match",
        "labels. Of those" if "Of those" in page else "labels",
        "named from",
    ):
        assert text in page


@pytest.mark.slow  # capture and conversion
def test_quantised_exported_and_measured(run: Run, capsys: Capture) -> None:
    folder = str(run.folder)
    result(capsys, ["quantize", folder, "--calibration", "8", "--preset", "fast"])
    records = result(capsys, ["export", folder, "--num-images", "4"])
    assert len(records) == 2
    reports = result(capsys, ["evaluate", folder])["reports"]
    assert reports["onnx-float"]["map"] == pytest.approx(reports["torch-float"]["map"], abs=1e-3)
    assert reports["onnx-float"]["agreement"] > 0.99
    assert reports["onnx-int8"]["agreement"] > 0.8
    facts = json.loads((run.folder / "model.onnx.json").read_text())
    assert facts["task"]["min_confidences"] == list(run.read().confidence.by_class)
    bench = ["bench", folder, "--min-runs", "2", "--min-seconds", "0", "--warmup-runs", "1", "--no-memory"]
    assert all(row["failure"] is None for row in result(capsys, [*bench, "--runtimes", "onnxruntime"]))
    assert main(["explain", folder, str(Path(run.read().training.data.path) / "images" / "0.png")]) == 0


def test_other_data_and_what_is_refused(run: Run, squares: Path, tmp_path: Path, capsys: Capture) -> None:
    other = tmp_path / "other"
    (other / "images").mkdir(parents=True)
    for name in ("0", "1", "2"):
        (other / "images" / f"{name}.png").write_bytes((squares / "images" / f"{name}.png").read_bytes())
    (other / "labels.csv").write_text("file,green,red\n0.png,1,0\n1.png,0,1\n2.png,1,-1\n")
    report = result(capsys, ["evaluate", str(run.folder), "--data", str(other)])
    assert {row["name"] for row in report["per_class"]} == {"green", "red"}, "blue has no column, so it is unknown"
    for words, message in (
        (["evaluate", str(run.folder), "--robustness"], "gives images no single class"),
        (
            ["probe", str(squares), "--task", "multilabel", "--run", str(tmp_path / "p")],
            "cannot do the task 'multilabel'",
        ),
        (
            ["train", "--data", str(squares), "--run", str(tmp_path / "r"), "--model", "vit_nano_patch4"],
            "--task multilabel",
        ),
    ):
        capsys.readouterr()
        assert main(words) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
    found = result(capsys, ["check", str(squares), "--out", str(tmp_path / "check")])
    assert found["task"] == "multilabel"
    assert "labels an image on average" in found["understood"]["notes"][0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": "logit_adjusted"}, "loss='logit_adjusted' is no loss of the task multilabel; it has cross_entropy"),
        ({"sampler": "balanced"}, "sampler='balanced' task multilabel has no single class an image"),
        ({"task": "classification", "loss": "asymmetric"}, "loss='asymmetric' is no loss of the task classification"),
        ({"options": {"margin": 2}}, "margin=2"),
    ],
)
def test_settings_that_do_not_fit(given: dict[str, Any], message: str, squares: Path, tmp_path: Path) -> None:
    plain = {"task": "multilabel", "data": str(squares), "model": "vit_nano_patch4"}
    with pytest.raises(Exception, match=message):
        train(TrainConfig(**(plain | given)), run=tmp_path / "run", progress=False)


def test_from_weights_a_probe_comes_first(run: Run, squares: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        task="multilabel",
        data=str(squares),  # type: ignore[arg-type]  # converted
        model="vit_nano_patch4",
        model_fields=FIELDS,
        image_size=16,
        weights=str(run.folder),
        epochs=1,
        learning_rate=1e-9,
        num_workers=0,
    )
    description = train(config, run=tmp_path / "run", progress=False).read()
    recipe, trained = description.recipe, description.trained
    assert recipe is not None
    assert trained is not None
    assert recipe.name == "finetune"
    assert recipe.majority is not None
    assert recipe.probe is not None
    assert recipe.probe > recipe.majority
    assert trained.keep == "probe" or trained.best_score > recipe.probe
