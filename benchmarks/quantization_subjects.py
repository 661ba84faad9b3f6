"""The models that quantisers are compared on, each with its calibration and test images.

Run it once to train the four small ones (one to eight minutes each on an idle core; a finished one is kept):

    python benchmarks/quantization_subjects.py --data DATA --runs runs/quantization

DATA holds the folders ``sign_digits_64``, ``imagenet_calib250``, ``imagenet_val650``, ``weights``.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vitrail import create_model, load_data, load_task, train
from vitrail.core.types import HALF, Preprocessing
from vitrail.data import AugmentConfig, DataConfig, decode_image, fit_image
from vitrail.runs.run import Run
from vitrail.training import TrainConfig

# Short trainings of small models learn more from mild augmentation.
MILD = {"rand_augment_num_ops": 0, "random_erasing": 0.0}
COMMON = {"batch_size": 32, "keep": "last", "ema_decay": 0.99, "num_workers": 0}


def _config(model: str, image_size: int, epochs: int, data: Path) -> TrainConfig:
    augment = AugmentConfig(random_resized_crop_scale=(0.7, 1.0), hflip=0.0, **MILD)  # a mirrored hand is another sign
    return TrainConfig(
        model=model,
        image_size=image_size,
        data=DataConfig(path=str(data / "sign_digits_64")),
        augment=augment,
        epochs=epochs,
        **COMMON,
    )


TRAININGS: dict[str, Callable[[Path], TrainConfig]] = {
    "revit": partial(_config, "revit_nano_patch4", 32, 60),
    "mobilevit": partial(_config, "mobilevit_nano", 64, 20),
    "edgevit": partial(_config, "edgevit_xxs", 64, 7),
    "maxvit": partial(_config, "maxvit_nano", 48, 5),
}
IMAGENET = "vit_tiny"
SUBJECTS = (IMAGENET, *TRAININGS)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A trained model and its images, all uint8 (n, 3, h, w) and already of the model's size.

    Attributes:
        pool: calibration images are drawn from these; training images.
        test, labels: images that no training and no calibration has seen, and their classes (n,).
    """

    name: str
    model: nn.Module
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    pool: Tensor
    test: Tensor
    labels: Tensor

    def calibration(self, count: int, seed: int) -> Tensor:
        """Normalised float32 (count, 3, h, w), the same for the same seed."""
        order = torch.randperm(len(self.pool), generator=torch.Generator().manual_seed(seed))
        return self.preprocessing.normalize(self.pool[order[:count]])

    def logits(self, predict: Callable[[np.ndarray], np.ndarray], batch_size: int = 32) -> np.ndarray:
        """(n, classes) of the test images from a function of normalised ones."""
        batches = self.test.split(batch_size)
        return np.concatenate([predict(self.preprocessing.normalize(batch).numpy()) for batch in batches])


def load_subject(name: str, data: Path, runs: Path) -> Subject:
    """A subject by name; all but the ImageNet one have to be trained before."""
    if name == IMAGENET:
        return _imagenet(data)
    run = Run.open(runs / name)
    description = run.read()
    config = TrainConfig.from_dict(description["training"]).data
    splits = load_data(DataConfig(path=str(data / Path(config.path).name), seed=config.seed))
    preprocessing = Preprocessing.from_dict(description["preprocessing"])

    def fitted(images: object) -> tuple[Tensor, Tensor]:
        pairs = [images.fitted(i, preprocessing) for i in range(len(images))]  # type: ignore[attr-defined,arg-type]
        return torch.stack([image for image, _ in pairs]), torch.tensor([int(label) for _, label in pairs])

    test, labels = fitted(splits.held_out)
    return Subject(
        name=name,
        model=load_task(run).eval(),
        preprocessing=preprocessing,
        classes=tuple(description["classes"]),
        pool=fitted(splits.train.sample(512, 0))[0],
        test=test,
        labels=labels,
    )


def _imagenet(data: Path) -> Subject:
    """The public ViT-Tiny; its images are 227 pixels a side, of which the centre is taken."""
    preprocessing = Preprocessing(image_size=(224, 224), mean=HALF, std=HALF, crop_fraction=224 / 227)
    weights = data / "weights" / "vit_tiny_patch16_224_augreg_in1k.safetensors"

    def load(folder: Path) -> tuple[Tensor, Tensor]:
        with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        images = [fit_image(decode_image(folder / "images" / row["image"]), preprocessing) for row in rows]
        return torch.stack(images), torch.tensor([int(row["class_index"]) for row in rows])

    test, labels = load(data / "imagenet_val650")
    return Subject(
        name=IMAGENET,
        model=create_model("vit_tiny_patch16", weights=str(weights)).eval(),
        preprocessing=preprocessing,
        classes=tuple(str(i) for i in range(1000)),
        pool=load(data / "imagenet_calib250")[0],
        test=test,
        labels=labels,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=list(TRAININGS), default=list(TRAININGS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.models:
        run = Run(options.runs / name)
        if not run.weights.exists():
            train(TRAININGS[name](options.data), run=run.folder, resume=run.checkpoints.exists(), progress=True)
        right, count = _count_right(load_subject(name, options.data, options.runs))
        print(f"{name}: {right} of {count} test images right ({right / count:.1%})")


def _count_right(subject: Subject) -> tuple[int, int]:
    with torch.inference_mode():
        logits = subject.logits(lambda images: subject.model(torch.from_numpy(images)).numpy())
    return int((logits.argmax(1) == subject.labels.numpy()).sum()), len(subject.labels)


if __name__ == "__main__":
    main()
