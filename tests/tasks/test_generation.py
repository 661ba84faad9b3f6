"""Generation: what is drawn for which image, and how pictures are compared."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vitrail.core.errors import ConfigError, MissingDependencyError, RunError
from vitrail.core.types import Preprocessing
from vitrail.export.onnx_file import onnx_bytes
from vitrail.export.source import Source
from vitrail.models import create_model
from vitrail.models.maxvit_gan import GeneratorConfig, MaxViTGenerator, as_pixels, create_generator
from vitrail.runs.load import open_backbone
from vitrail.runs.run import Run
from vitrail.tasks import TaskSpec, create_task
from vitrail.tasks.generation import GENERATION, GenerationAnswers, GenerationOptions, GenerationTask
from vitrail.tasks.metrics.frechet import compare_features, find_extractor, share_inside

NANO = "maxvit_gan_nano_32"
PREPROCESSING = Preprocessing(image_size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)


def make(classes: tuple[str, ...] = (), **options: Any) -> GenerationTask:
    told = len(classes) if options.get("conditional") else 0
    return GenerationTask(create_generator(NANO, num_classes=told), classes, GenerationOptions(**options)).eval()


def pictures(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)


def test_latents_belong_to_their_images() -> None:
    task, images = make(), PREPROCESSING.normalize(pictures(300))
    latents = task.inputs(images)
    assert latents.shape == (300, 64, 1, 1)
    order = torch.randperm(300)
    assert torch.equal(task.inputs(images[order]), latents[order]), "in any batch"
    assert torch.equal(make().inputs(images), latents), "for any model"
    flat = latents.flatten()
    assert abs(float(flat.mean())) < 0.03
    assert abs(float(flat.std()) - 1) < 0.03
    assert len(latents.unique(dim=0)) == 300


def test_a_conditional_one_is_told_the_class() -> None:
    task = make(("cat", "dog"), conditional=True)
    images = PREPROCESSING.normalize(pictures(4))
    latents = task.inputs(images, {"label": torch.tensor([1, 0, 0, 1])})
    assert latents[:, 64:, 0, 0].argmax(1).tolist() == [1, 0, 0, 1]
    assert task.input_shape == (66, 1, 1)
    answers = GenerationAnswers(task)
    assert answers.make(torch.randn(2, 64), [1, 0]).shape == (2, 3, 32, 32)
    with pytest.raises(ConfigError, match=r"classes \[2, 0\]: need 2 of 0 to 1"):
        answers.make(torch.randn(2, 64), [2, 0])
    with pytest.raises(ConfigError, match=r"classes \[\]: need 2"):
        answers.make(torch.randn(2, 64))


def test_a_latent_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes 64 random numbers"):
        GenerationAnswers(make()).make(torch.randn(2, 60))


def test_tasks_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="conditional=true, and the data has 1 classes"):
        GenerationTask(create_generator(NANO), ["cat"], GenerationOptions(conditional=True))
    with pytest.raises(ConfigError, match="r1_every=0"):
        make(r1_every=0)
    with pytest.raises(ConfigError, match="neither random nor inception"):
        make(features="none").metrics()
    with pytest.raises(RunError, match="does not exist"):
        find_extractor(str(tmp_path / "none"), open_backbone)
    with pytest.raises(ConfigError, match="a generator starts from random numbers"):
        GENERATION.make_backbone(NANO, weights="some.pth")


def test_it_comes_back_from_its_description() -> None:
    fields = {"num_classes": 2, "image_size": [32, 32], "drop_path_rate": 0.0}
    spec = TaskSpec(classes=("cat", "dog"), options={"conditional": True})
    task = create_task("generation", NANO, fields, spec)
    assert isinstance(task, GenerationTask)
    assert task.num_labels == 2


@pytest.mark.slow  # the verbs' test exports an unconditional one
def test_files_of_it_repeat_it() -> None:
    import onnxruntime

    small = GeneratorConfig(embed_dims=(8,), depths=(1,), num_classes=2, latent_dim=4, memory_dim=8, head_dim=8)
    task = GenerationTask(MaxViTGenerator(small), ("cat", "dog"), GenerationOptions(conditional=True)).eval()
    latents = task.inputs(PREPROCESSING.normalize(pictures(3)))
    file = onnx_bytes(Source(model=task, images=latents))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (given,) = session.run(["pictures"], {"image": latents.numpy()})
    torch.testing.assert_close(torch.from_numpy(given), task(latents).detach(), atol=1e-4, rtol=1e-4)


def test_the_frechet_distance_of_gaussians_is_known() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(3_000, 3, generator=generator) * torch.tensor([1.0, 2.0, 0.5])
    second = torch.randn(3_000, 3, generator=generator) * torch.tensor([1.0, 1.0, 0.5]) + torch.tensor([3.0, 0, 0])
    # 3^2 + (2 - 1)^2, since axes are independent
    assert float(compare_features(first, second)["frechet"]) == pytest.approx(10, rel=0.06)


def test_alike_and_unlike_features() -> None:
    real, same, other = torch.randn(200, 4), torch.randn(200, 4), torch.randn(200, 4) + 6
    alike, unlike = compare_features(real, same), compare_features(real, other)
    assert alike["frechet"] < 0.3 < 50 < unlike["frechet"]
    assert abs(alike["kernel"]) < 0.1 * unlike["kernel"]
    assert alike["precision"] > 0.7
    assert alike["recall"] > 0.7
    assert unlike["precision"] == unlike["recall"] == 0
    again = compare_features(real, same)
    assert all(torch.equal(alike[name], again[name]) for name in alike), "the same every time"


def test_precision_and_recall_by_hand() -> None:
    line = torch.arange(10.0).view(-1, 1)  # the third neighbour is 2 away in the middle, 3 at the ends
    points = torch.tensor([[-2.9], [-3.1], [4.5], [12.1], [11.9]])
    assert float(share_inside(points, line)) == pytest.approx(3 / 5)


def test_few_modes_have_precision_without_recall() -> None:
    real = torch.randn(300, 3)
    values = compare_features(real, real[:1] + 0.01 * torch.randn(300, 3))
    assert values["precision"] > 0.95
    assert values["recall"] < 0.1


def test_the_random_network_is_always_the_same_and_leaves_chance_alone() -> None:
    torch.manual_seed(1)
    wanted = torch.rand(1)
    torch.manual_seed(1)
    first, second = find_extractor("random"), find_extractor("random")
    assert torch.equal(torch.rand(1), wanted)
    images = pictures(3)
    assert torch.equal(first(images), second(images))
    assert len(first(images)) == 3


def test_a_run_of_ours_can_look(tmp_path: Path) -> None:
    backbone = create_model("revit_nano_patch4", num_classes=0)
    run = Run(tmp_path)
    fields = {"num_classes": 7, "image_size": [32, 32], "drop_path_rate": 0.0}
    preprocessing = Preprocessing(image_size=(32, 32))
    model = {"name": "revit_nano_patch4", "fields": fields}
    run.update(task="classification", model=model, preprocessing=preprocessing.to_dict())
    save_file({f"backbone.{name}": value for name, value in backbone.state_dict().items()}, run.weights)
    images = pictures(4)
    wanted = backbone.eval()(preprocessing.normalize(images)).detach()
    torch.testing.assert_close(find_extractor(str(tmp_path), open_backbone)(images), wanted)
    run.update(input_shape=[64, 1, 1])
    with pytest.raises(ConfigError, match="takes no images"):
        find_extractor(str(tmp_path), open_backbone)


def test_inception_needs_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(MissingDependencyError, match="torch-fidelity is not installed"):
        find_extractor("inception")


def test_metrics_over_batches_are_those_of_all() -> None:
    task = make()
    images = pictures(24)
    metrics = task.metrics()
    outputs = []
    for part in images.split(9):
        outputs.append(task(task.inputs(PREPROCESSING.normalize(part))).detach())
        metrics.update(outputs[-1], {"image": part})
    values = metrics.compute()
    extract = find_extractor("random")
    wanted = compare_features(extract(images).clone(), extract(as_pixels(torch.cat(outputs))).clone())
    assert all(float(values[name]) == pytest.approx(float(wanted[name]), rel=1e-3, abs=1e-5) for name in wanted)
    assert not metrics.state_dict(), "the network is no part of a checkpoint"
    few = task.metrics()
    few.update(outputs[0][:3], {"image": images[:3]})
    with pytest.raises(ConfigError, match="3 validation images are too few"):
        few.compute()


def test_the_distance_of_mean_pictures() -> None:
    task = make()
    real = torch.full((2, 3, 32, 32), 255, dtype=torch.uint8)
    assert float(task.loss(torch.full((4, 3, 32, 32), 0.5), {"image": real})) == pytest.approx(0.25)
    assert np.isfinite(float(task.loss(torch.zeros(1, 3, 32, 32), {"image": real})))
