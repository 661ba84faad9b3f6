"""YOLO model files over our backbones.

What needs no ultralytics is always tested; the rest runs in processes of its own, whose home, settings and network are
the test's, where the optional extra is installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from vitrail.core.errors import ConfigError, ImageSizeError, MissingDependencyError, UnknownNameError
from vitrail.data import DataConfig, load_boxes
from vitrail.integrations.ultralytics import (
    VitrailBackbone,
    find_model_file,
    list_model_files,
    register,
    write_dataset,
    write_model_file,
)
from vitrail.integrations.ultralytics.__main__ import main
from vitrail.models import FAMILIES, find_family

ROOT = Path(__file__).parents[2]
installed = pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None, reason="optional, not installed: ultralytics (AGPL-3.0)"
)
PYRAMIDS = {
    family.name: next(name for name in family.ours if "nano" in name)
    for family in FAMILIES.values()
    if family.name not in ("vit", "revit", "vitae_plain")
}


def variant_of(file: str) -> str:
    return file.partition("-")[2]


@pytest.mark.parametrize("family", PYRAMIDS)
@pytest.mark.parametrize("size", [(64, 64), (40, 33)])
def test_every_pyramid_gives_three_maps_of_any_size(family: str, size: tuple[int, int]) -> None:
    module = VitrailBackbone(PYRAMIDS[family], image_size=(64, 64) if family == "remvit" else None)
    maps = module.train()(torch.rand(2, 3, *size))
    sizes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in module.strides]
    assert [tuple(level.shape) for level in maps] == [
        (2, channels, *place) for channels, place in zip(module.channels, sizes, strict=True)
    ]
    sum(level.square().mean() for level in maps).backward()
    assert module.backbone.get_parameter(next(iter(module.backbone.state_dict()))).grad is not None


def test_the_backbone_normalises_and_changes_nothing_else() -> None:
    module = VitrailBackbone("edgevit_nano_stride2").eval()
    images = torch.rand(1, 3, 48, 48)
    normal = module.backbone.preprocessing.normalize((images * 255).round().to(torch.uint8))
    want = module.backbone.forward_intermediates(normal, module.indices, norm=True, intermediates_only=True)
    for ours, theirs in zip(module((images * 255).round() / 255), want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_module_survives_a_checkpoint() -> None:
    """ultralytics pickles whole models."""
    module = VitrailBackbone("mobilevit_nano").eval()
    again = pickle.loads(pickle.dumps(module))
    x = torch.rand(1, 3, 48, 48)
    assert all(torch.equal(a, b) for a, b in zip(module(x), again(x), strict=True))
    norms = [one for one in module.modules() if isinstance(one, nn.BatchNorm2d)]
    assert norms
    assert all(type(one) is not nn.BatchNorm2d for one in norms), "ultralytics would change their eps"


def test_sizes_and_families_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="has 1 strides, and a YOLO neck needs 3"):
        VitrailBackbone("vit_nano_patch4")
    module = VitrailBackbone(PYRAMIDS["remvit"])
    with pytest.raises(ImageSizeError, match="relative-position tables is for 48x48"):
        module(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize("name", list_model_files())
def test_files_that_come_along_are_what_would_be_written(name: str, tmp_path: Path) -> None:
    write_model_file(tmp_path / f"{name}.yaml", variant_of(name))
    assert (tmp_path / f"{name}.yaml").read_text() == find_model_file(name).read_text()


def test_the_promised_files_are_there() -> None:
    names = list_model_files()
    for scale in "ns":
        assert {f"yolov5{scale}-edgevit_{size}" for size in ("xxs", "xs", "s")} < set(names)
    families = {find_family(variant_of(name)).name for name in names}
    assert families == {"edgevit", "mobilevit", "maxvit", "vitaev2"}


def test_names_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="there is no model file 'yolov5n-edgevit'; Vitrail has yolov5n-edgevit"):
        find_model_file("yolov5n-edgevit")
    with pytest.raises(ConfigError, match="is no name for a model file"):
        write_model_file(tmp_path / "mine.yaml", "edgevit_xxs")
    with pytest.raises(ConfigError, match="scale 'q' does not exist"):
        write_model_file(tmp_path / "yolov5q-mine.yaml", "edgevit_xxs")


def test_ultralytics_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    monkeypatch.setitem(sys.modules, "ultralytics.nn", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'vitrail\[yolo\]'"):
        register()


def cells(root: Path, count: int = 6) -> Path:
    """Bright discs on noise, as COCO JSON."""
    draw = np.random.default_rng(0)
    for part in ("train", "val"):
        images, annotations = [], []
        (root / part).mkdir(parents=True)
        for number in range(count):
            pixels = draw.integers(0, 60, (48, 64, 3), dtype=np.uint8)
            for _ in range(number % 3):
                left, top, side = (int(v) for v in draw.integers((0, 0, 12), (40, 24, 20)))
                pixels[top : top + side, left : left + side] = 255
                annotations.append(
                    {"id": len(annotations), "image_id": number, "category_id": 1, "bbox": [left, top, side, side]}
                )
            Image.fromarray(pixels).save(root / part / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 48})
        (root / "annotations").mkdir(exist_ok=True)
        values = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}
        (root / "annotations" / f"{part}.json").write_text(json.dumps(values))
    return root


def test_converted_data_is_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = cells(tmp_path / "cells")
    path = write_dataset(DataConfig(path=str(source)), tmp_path / "yolo")
    assert yaml.safe_load(path.read_text())["names"] == {0: "cell"}
    before = load_boxes(DataConfig(path=str(source)))
    after = load_boxes(DataConfig(path=str(tmp_path / "yolo")))
    assert after.classes == before.classes
    assert len(after.train) == len(before.train) == 6
    for index in range(6):
        ours, theirs = before.train.target(index), after.train.target(index)
        torch.testing.assert_close(ours["boxes"], theirs["boxes"], atol=1e-3, rtol=0)
        assert ours["labels"].tolist() == theirs["labels"].tolist()
    with pytest.raises(ConfigError, match="is not empty"):
        write_dataset(DataConfig(path=str(source)), tmp_path / "yolo")


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "yolov5m-poolformer_nano.yaml"
    assert main(["write", str(file), "--model", "poolformer_nano"]) == 0
    assert yaml.safe_load(file.read_text())["width_multiple"] == 0.75
    assert main(["list"]) == 0
    assert "yolov5s-vitaev2_s" in capsys.readouterr().out
    assert main(["data", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
    assert "does not exist" in capsys.readouterr().err


PRELUDE = """
import socket, sys, warnings
def refuse(self, address):
    if self.family != socket.AF_UNIX:
        sys.stderr.write(f"REACHED {address}\\n")
        raise OSError(f"no network here: {address}")
socket.socket.connect = refuse
import torch
torch.set_num_threads(1)
"""

TRAIN = """
from vitrail.integrations.ultralytics import build
build("yolov5n-edgevit_xxs").train(
    data=DATA, epochs=1, imgsz=64, batch=3, device="cpu", workers=0, amp=False, plots=False, project=OUT, name="run",
)
"""

EXPORT = """
from ultralytics import YOLO
trained = YOLO(OUT + "/run/weights/best.pt")
file = trained.export(format="onnx", imgsz=64, simplify=False)
image = DATA.replace("data.yaml", "images/val/val_2.png")
models = trained, YOLO(file, task="detect")
ours, exported = (model.predict(image, imgsz=64, conf=1e-4, verbose=False)[0].boxes.data for model in models)
assert len(ours) > 0
assert ours.shape == exported.shape, (ours.shape, exported.shape)
torch.testing.assert_close(ours.cpu(), exported.cpu(), rtol=1e-3, atol=1e-2)
print("AGREES", len(ours))
"""


def run(code: str, home: Path, *arguments: str) -> str:
    """A program of its own, with a home and settings of its own and no network."""
    settings = home / "settings"
    (settings / "Ultralytics").mkdir(parents=True, exist_ok=True)
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    shutil.copyfile(font, settings / "Ultralytics" / "Arial.ttf")  # it would look for one in the network
    (home / "home").mkdir(exist_ok=True)
    environment = os.environ | {
        "HOME": str(home / "home"),
        "MPLCONFIGDIR": str(home / "matplotlib"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "YOLO_CONFIG_DIR": str(settings),
        "YOLO_OFFLINE": "1",
        "YOLO_AUTOINSTALL": "false",
        "PYTHONPATH": str(ROOT / "src"),
    }
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code, *arguments],
        env=environment, cwd=home, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "REACHED" not in done.stderr
    assert not list((home / "home").iterdir()), "something was written into the user's home"
    return done.stdout


@installed
@pytest.mark.slow
def test_every_file_builds(tmp_path: Path) -> None:
    code = """
from vitrail.integrations.ultralytics import build, list_model_files
for name in list_model_files():
    model = build(name).model
    assert model.stride.tolist() == [8, 16, 32], (name, model.stride)
    assert len(model.model) == 20
    print("BUILT", name)
"""
    assert run(code, tmp_path).count("BUILT") == len(list_model_files())


@installed
@pytest.mark.slow
def test_the_command_prints_the_table_of_layers(tmp_path: Path) -> None:
    code = """
import runpy
sys.argv = ["x", "check", "--cfg", "yolov5n-edgevit_xxs"]
try:
    runpy.run_module("vitrail.integrations.ultralytics", run_name="__main__")
except SystemExit as done:
    assert not done.code
"""
    out = run(code, tmp_path)
    assert "VitrailBackbone" in out
    assert "Detect" in out


@installed
@pytest.mark.slow
def test_one_epoch_offline_and_a_file_that_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = write_dataset(DataConfig(path=str(cells(tmp_path / "cells"))), tmp_path / "yolo")
    places = f"DATA, OUT = {str(data)!r}, {str(tmp_path / 'out')!r}\n"
    run(places + TRAIN, tmp_path)
    assert (tmp_path / "out/run/weights/best.pt").is_file()
    assert "AGREES" in run(places + EXPORT, tmp_path), "a new process can read the checkpoint"
