"""What the distances of a generation run mean: beside noise, an untrained generator, and other real pictures.

    python benchmarks/generation.py runs/maker --picture docs/results/generation.png

All sets have as many pictures as the run's validation part, and are looked at by the network that the run names. The
picture shows the distance over training with these references, and made pictures above real ones.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import make_grid

from vitrail.core.types import Preprocessing
from vitrail.data import PictureSet
from vitrail.runs.load import load_task
from vitrail.tasks import GenerationTask, find_task
from vitrail.tasks.generation import GenerationAnswers
from vitrail.tasks.metrics.frechet import compare_features, find_extractor
from vitrail.training import TrainConfig

BATCH_SIZE = 64
SHOWN = 48


def main() -> None:
    """Print the table, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    run = Run.open(given.run)
    description = run.read()
    task, config = load_task(run), TrainConfig.from_dict(description["training"])
    torch.manual_seed(config.seed)
    fresh = build_task(description)
    assert isinstance(task, GenerationTask)
    assert isinstance(fresh, GenerationTask)
    data = find_task(task.name).load_data(config.data)
    answers = GenerationAnswers(task)
    preprocessing = Preprocessing.from_dict(description["preprocessing"])
    count = len(data.val)
    real = fitted(data.val, preprocessing)
    sets = {
        "uniform noise": torch.randint(0, 256, real.shape, dtype=torch.uint8),
        "the generator before training": GenerationAnswers(fresh.train()).pictures(count, 1),
        "the same colour everywhere": real.float().mean((0, 2, 3)).to(torch.uint8).view(1, 3, 1, 1).expand(real.shape),
        "other real pictures (training part)": fitted(data.train.sample(count, 0), preprocessing),
        "the trained generator, seed 1": answers.pictures(count, 1),
        "the trained generator, seed 2": answers.pictures(count, 2),
    }
    extractor = find_extractor(config.options.get("features", "random"))
    seen = features(extractor, real)
    rows = {name: compare_features(seen, features(extractor, pictures)) for name, pictures in sets.items()}
    print(f"{count} pictures each\n\n| | Fréchet | kernel | precision | recall |\n|---|---|---|---|---|")
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{float(value):.3f}" for value in values.values()) + " |")
    copied(extractor, fitted(data.train, preprocessing), sets["the trained generator, seed 1"], real)
    if given.picture is not None:
        references = {name: float(values["frechet"]) for name, values in list(rows.items())[:4]}
        draw(run, references, sets["the trained generator, seed 1"], real, answers.interpolations(0), given.picture)


def fitted(samples: PictureSet, preprocessing: Preprocessing) -> Tensor:
    """(n, 3, h, w), uint8."""
    return torch.stack([samples.fitted(i, preprocessing)[0] for i in range(len(samples))])


def features(extractor: torch.nn.Module, pictures: Tensor) -> Tensor:
    """(n, d)"""
    return torch.cat([extractor(part) for part in pictures.split(BATCH_SIZE)]).float()


def copied(extractor: torch.nn.Module, train: Tensor, pictures: Tensor, real: Tensor) -> None:
    """Does the generator repeat what it was trained on? Print how far the nearest training picture is."""
    known = features(extractor, train)
    for name, others in (("made", pictures), ("real, held out", real)):
        nearest = torch.cdist(features(extractor, others), known).amin(1)
        low, middle, high = (float(value) for value in nearest.quantile(torch.tensor([0.1, 0.5, 0.9])))
        print(f"distance to the nearest training picture, {name}: median {middle:.3f} (tenths {low:.3f}, {high:.3f})")


def draw(run: Run, references: dict[str, float], pictures: Tensor, real: Tensor, between: Tensor, path: Path) -> None:
    """The curve, and pages of pictures."""
    from matplotlib.figure import Figure

    with run.metrics.open(encoding="utf-8") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.1))
    axes = upper.subplots()
    axes.plot([row["epoch"] for row in rows], [row["val_frechet"] for row in rows], marker=".", label="MaxViT-GAN")
    for (name, value), style in zip(references.items(), (":", "-.", (0, (1, 4)), "--"), strict=True):
        axes.axhline(value, color="grey", linestyle=style, label=f"{name}: {value:.2f}")
    axes.set(xlabel="epoch", ylabel="Fréchet distance", yscale="log")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    pages = {"made": pictures[:SHOWN], "interpolations": between, "real": real[:SHOWN]}
    for place, (title, page) in zip(lower.subplots(1, 3), pages.items(), strict=True):
        place.imshow(make_grid(page, nrow=8, padding=1, pad_value=255).permute(1, 2, 0))
        place.set_title(title)
        place.axis("off")
    figure.savefig(path, dpi=78)


if __name__ == "__main__":
    main()
