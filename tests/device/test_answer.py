"""An exported file, ONNX Runtime and vitrail.device say what ``vitrail predict`` says, for every task."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from vitrail.core.types import Preprocessing
from vitrail.device.answer import RunFile, answer, make_picture, read_facts
from vitrail.device.pixels import read_image
from vitrail.evaluation import predict_images
from vitrail.export import export_model
from vitrail.export.source import about
from vitrail.models.maxvit_gan import join_latent
from vitrail.tasks import TASKS, Answers, GenerationTask, Task, TaskSpec, answers_of, create_task

CLASSES = ("left eye", "nose", "right eye")
SIZES = [(48, 48), (30, 40), (90, 33), (7, 5), (1, 1), (200, 110)]
MODEL = "edgevit_nano_stride2"
EXAMPLE = Path(__file__).parents[2] / "examples" / "04_predict_without_pytorch.py"
SMALL = {
    "embed_dims": (8, 16),
    "depths": (1, 1),
    "head_dim": 8,
    "sr_ratios": (2, 1),
    "strides": (4, 2),
    "image_size": (48, 48),
}
TASK_SPECS = {
    "classification": TaskSpec(classes=CLASSES),
    "multilabel": TaskSpec(classes=CLASSES),
    "segmentation": TaskSpec(classes=CLASSES, options={"width": 8}),
    "detection": TaskSpec(classes=CLASSES, options={"width": 8, "extra_levels": 0}),
    "instances": TaskSpec(classes=CLASSES, options={"width": 8, "proposals": 6, "extra_levels": 0}),
    "pose": TaskSpec(classes=CLASSES, options={"width": 8}, facts={"skeleton": [], "mirror": [2, 1, 0]}),
    "aesthetics": TaskSpec(facts={"scale": [1.0, 2.0, 5.0]}),
}


def lively(task: Task) -> Task:
    """Weights whose answers depend on the image; fresh ones say nearly the same of all."""
    generator = torch.Generator().manual_seed(1)
    part = task.backbone if task.name == "instances" else task  # its boxes would fly out of the frame
    for parameter in part.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * parameter[0].numel() ** -0.5
    return task.eval()


def make(name: str) -> Task:
    torch.manual_seed(0)
    fields = SMALL | {"num_classes": TASKS[name].num_outputs(TASK_SPECS[name])}
    task = lively(create_task(name, MODEL, fields, TASK_SPECS[name]))
    if task.min_confidence is not None:
        task.min_confidence = 0.01  # fresh detectors are unsure
    return task


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        exif = Image.Exif()
        exif[0x0112] = number + 3
        small = Image.fromarray(random.integers(0, 256, (8, 6, 3), dtype=np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.png", exif=exif)
    return sorted(folder.iterdir())


def as_file(task: Task, folder: Path, how: Preprocessing) -> tuple[RunFile, dict[str, Any]]:
    """A task in ONNX Runtime, and what its file says."""
    images = torch.randn(2, 3, *how.image_size, generator=torch.Generator().manual_seed(0))
    path = folder / "model.onnx"
    export_model(task, path, preprocessing=how, classes=task.classes, images=images)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = read_facts(session.get_modelmeta().custom_metadata_map)
    return lambda batch: session.run(None, {"image": batch})[0], facts


def same(found: Any, wanted: Any) -> None:
    """Numbers up to the last bits of the file's output."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for name in wanted:
            same(found[name], wanted[name])
    elif isinstance(wanted, list) and wanted and isinstance(wanted[0], dict):
        assert len(found) == len(wanted)
        for pair in zip(found, wanted, strict=True):
            same(*pair)
    else:
        assert found == (pytest.approx(wanted, rel=1e-3, abs=1e-3) if not isinstance(wanted, str) else wanted)


def compare(task: Task, run: RunFile, facts: dict[str, Any], how: Preprocessing, pictures: list[Path]) -> None:
    """``predict`` and a file in its runtime, with all of an answer and with a part of it."""
    answers: Answers[Any, Any] = answers_of(task)
    for top_k in (None, 2):
        predicted = predict_images(task, pictures, how, top_k=top_k)
        assert len(predicted.images) == len(pictures)
        said = []
        for image in predicted.images:
            found = answer(run, read_image(image.path, facts["preprocessing"]), facts, top_k=top_k)
            if (labels := found.pop("labels", None)) is not None:
                assert (labels == image.answer.labels.numpy()).mean() > 0.999
            same(found, answers.to_dict(image.answer))
            said.append(found)
        assert len({str(one) for one in said}) > 1, "answers depend on the image"
        assert "objects" not in said[0] or sum(len(one["objects"]) for one in said) > len(pictures)


@pytest.mark.parametrize("name", TASK_SPECS)
def test_the_same_function_decodes_here_and_on_a_device(name: str, pictures: list[Path]) -> None:
    """With PyTorch in place of the file."""
    task = make(name)
    how = Preprocessing(image_size=(48, 48), crop_fraction=task.crop_fraction or 0.875)
    facts = read_facts(json.loads(json.dumps(about(how, task.classes, task))))
    compare(task, answers_of(task).raw, facts, how, pictures)


@pytest.mark.parametrize(
    "name",  # capture and conversion of the others take ten seconds each
    [name if name == "classification" else pytest.param(name, marks=pytest.mark.slow) for name in TASK_SPECS],
)
def test_a_file_without_pytorch_answers_as_predict_does(name: str, pictures: list[Path], tmp_path: Path) -> None:
    task, pictures = make(name), pictures[:3]  # on plain ones objects are alike up to the last bit
    how = Preprocessing(image_size=(48, 48), crop_fraction=task.crop_fraction or 0.875)
    compare(task, *as_file(task, tmp_path, how), how, pictures)
    words = [str(EXAMPLE), str(tmp_path / "model.onnx"), *map(str, pictures)]
    code = f"import runpy, sys; sys.argv = {words}; runpy.run_path(sys.argv[0], run_name='__main__')"
    check = "; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, check=True)
    said = {one.pop("image"): one for one in map(json.loads, done.stdout.splitlines())}
    for image in predict_images(task, pictures, how).images:
        same(said[str(image.path)], answers_of(task).to_dict(image.answer))


def test_a_generator_makes_its_pictures() -> None:
    spec = TaskSpec(classes=("a", "b"), options={"conditional": True})
    fields = {"num_classes": 2, "image_size": 32}
    task = create_task("generation", "maxvit_gan_nano_32", fields, spec).eval()
    assert isinstance(task, GenerationTask)
    facts = about(Preprocessing(image_size=(32, 32)), task.classes, task)
    noise = torch.randn(1, facts["task"]["latent_dim"])
    with torch.inference_mode():
        (wanted,) = answers_of(task).decode(task(join_latent(noise, [1], 2)))
    made = make_picture(answers_of(task).raw, facts, noise[0].numpy(), 1)
    assert np.abs(made.astype(int) - wanted.permute(1, 2, 0).numpy()).max() <= 1


def test_every_task_is_tried_or_says_that_it_has_no_answer() -> None:
    assert {*TASK_SPECS, "generation", "pretraining", "distillation"} == TASKS.keys()
    facts = {"preprocessing": {}, "classes": [], "task": {"name": "pretraining", "frame": "crop"}}
    with pytest.raises(ValueError, match="'pretraining' are not known here; known: classification"):
        answer(lambda batch: batch, np.zeros((1, 1, 3), np.uint8), facts)


def test_a_file_of_an_earlier_version_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="does not say its task; export it again"):
        read_facts({"vitrail.preprocessing": "{}", "vitrail.classes": "[]"})


def test_facts_are_read_from_the_file_beside_too() -> None:
    facts = {"preprocessing": {"image_size": [8, 8]}, "classes": ["a"], "task": {"name": "pose"}}
    assert read_facts(facts | {"record": {}, "rule": "..."}) == facts


def test_the_folder_is_all_that_is_copied(tmp_path: Path) -> None:
    """Without the rest of Vitrail, and with nothing but NumPy and Pillow imported."""
    source = Path(sys.modules[answer.__module__].__file__ or "").parent
    for path in source.glob("*.py"):
        (tmp_path / "vitrail" / "device").mkdir(parents=True, exist_ok=True)
        (tmp_path / "vitrail" / "device" / path.name).write_bytes(path.read_bytes())
    code = "import sys; sys.path.insert(0, '.'); import vitrail.device.answer; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    ours = {name for name in done.stdout.split() if name.split(".")[0] in ("vitrail", "torch", "onnx", "pydantic")}
    parts = {f"vitrail.device.{path.stem}" for path in source.glob("*.py")} - {"vitrail.device.__init__"}
    assert ours == {"vitrail", "vitrail.device", *parts}
