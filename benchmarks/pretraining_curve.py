"""Does masked pretraining help where labels are few? Accuracy over the number of labels, with and without it.

    python benchmarks/pretraining_curve.py --data ../shared/data/sign_digits_64 --work runs/curve

A backbone is pretrained on all training images without their labels; then it, and one that starts from random numbers,
are trained on a few labelled images of each class under one recipe, and evaluated on the test images. A seed chooses
the labelled images, and how training goes on them; pretraining takes the longest and is done once, unless
``--pretrain-every-seed``.
Rows are appended to ``curve.jsonl`` in the work folder, and what is there is not repeated. ``--table`` prints the
table, ``--picture FILE`` draws the curve.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitrail.core.types import Preprocessing
from vitrail.data import AugmentConfig, DataConfig, draw_order
from vitrail.evaluation import evaluate_task
from vitrail.runs.load import load_task, task_of
from vitrail.runs.run import Run
from vitrail.runs.train import train
from vitrail.training import TrainConfig

LABELS = (5, 10, 20)
SEEDS = (0, 1, 2)
STARTS = {"scratch": None, "mae": 100, "mpp": 25}
"""How the backbone starts -> epochs of pretraining; MPP's epochs cost about four times as much as MAE's."""

PER_CLASS = 20
"""Images of a class in an epoch of fine-tuning: fewer are repeated, so that all label counts take the same steps."""

IMAGES = AugmentConfig(
    random_resized_crop_scale=(0.5, 1.0),
    random_resized_crop_ratio=(0.85, 1.18),
    hflip=0.0,
    rand_augment_num_ops=1,
    rand_augment_magnitude=5,
)


def main() -> None:
    """Train what is missing, then show what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/curve"))
    parser.add_argument("--model", default="revit_nano_patch4")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--pretrain-every-seed", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    rows = read_rows(given.work)
    if not given.table and given.picture is None:
        torch.set_num_threads(1)
        for start in given.starts:
            for seed in SEEDS:
                for labels in LABELS:
                    if not any((r["start"], r["seed"], r["labels"]) == (start, seed, labels) for r in rows):
                        measure(given, start, seed, labels)
    rows = read_rows(given.work)
    print(table(rows))
    if given.picture is not None:
        draw(rows, given.picture)


def read_rows(work: Path) -> list[dict[str, Any]]:
    """What has been measured."""
    path = work / "curve.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measure(given: argparse.Namespace, start: str, seed: int, labels: int) -> None:
    """One fine-tuning, with the pretraining that it needs."""
    clock = time.perf_counter()
    weights = (
        None
        if STARTS[start] is None
        else str(pretrained(given, start, seed if given.pretrain_every_seed else 0).folder)
    )
    pretraining_seconds = time.perf_counter() - clock
    config = TrainConfig(
        model=given.model,
        image_size=given.image_size,
        weights=weights,
        data=DataConfig(path=str(few_labels(given, labels, seed))),
        augment=IMAGES,
        epochs=40,
        batch_size=40,
        learning_rate=1e-3,
        ema_decay=0.98,
        keep="last",
        num_workers=0,
        seed=seed,
    )
    run = train(config, run=given.work / f"{start}-{labels}-{seed}", overwrite=True, progress=False)
    description = run.read()
    data = task_of(description).load_data(DataConfig(path=str(given.data)))
    report = evaluate_task(load_task(run), data.held_out, Preprocessing.from_dict(description["preprocessing"]))
    row = {"start": start, "labels": labels, "seed": seed, "top1": report["top1"], "num_test": report["num_images"]}
    row |= {"seconds": round(time.perf_counter() - clock), "pretraining_seconds": round(pretraining_seconds)}
    with (given.work / "curve.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    shutil.rmtree(run.folder)
    print(row, flush=True)


def pretrained(given: argparse.Namespace, objective: str, seed: int) -> Run:
    """A backbone that has seen the training images, not their labels."""
    config = TrainConfig(
        task="pretraining",
        options={"objective": objective},
        model=given.model,
        image_size=given.image_size,
        data=DataConfig(path=str(given.data)),
        augment=IMAGES,
        epochs=STARTS[objective] or 1,
        batch_size=64,
        learning_rate=2e-3,
        drop_path_rate=0.0,
        ema_decay=0.99,
        keep="last",
        num_workers=0,
        seed=seed,
    )
    return train(config, run=given.work / f"{objective}-{seed}", resume=True, progress=False)


def few_labels(given: argparse.Namespace, count: int, seed: int) -> Path:
    """A folder with ``count`` training images of each class, chosen by the seed, and a few to validate on."""
    folder: Path = given.work / "labelled" / f"{count}-{seed}"
    if folder.exists():
        shutil.rmtree(folder)
    for label in sorted(path.name for path in (given.data / "train").iterdir() if path.is_dir()):
        files = sorted((given.data / "train" / label).iterdir())
        chosen = [files[i] for i in draw_order([file.name for file in files], seed)[:count]]
        for part in ("train", "val"):
            (folder / part / label).mkdir(parents=True)
        for copy in range(PER_CLASS // count):
            for file in chosen:
                shutil.copy(file, folder / "train" / label / f"{copy}-{file.name}")
        for file in sorted((given.data / "val" / label).iterdir())[:5]:
            shutil.copy(file, folder / "val" / label / file.name)
    return folder


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and deviation over the seeds, as Markdown."""
    lines = ["| start | " + " | ".join(f"{n} labels a class" for n in LABELS) + " |", "|---" * (len(LABELS) + 1) + "|"]
    for start in {row["start"]: None for row in rows}:
        cells = []
        for count in LABELS:
            values = [100 * r["top1"] for r in rows if (r["start"], r["labels"]) == (start, count)]
            cells.append(f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")
        lines.append(f"| {start} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Top-1 over labels a class; a dot a seed, a line through the means."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for start in {row["start"]: None for row in rows}:
        by_count: dict[int, list[float]] = defaultdict(list)
        for row in rows:
            if row["start"] == start:
                by_count[row["labels"]].append(100 * row["top1"])
        counts = sorted(by_count)
        (line,) = axes.plot(counts, [np.mean(by_count[n]) for n in counts], marker="o", label=start)
        for count in counts:
            axes.scatter([count] * len(by_count[count]), by_count[count], s=12, color=line.get_color(), alpha=0.5)
    axes.set(xlabel="labelled images a class", ylabel="top-1 on test images (%)", xscale="log")
    axes.set_xticks(LABELS, [str(n) for n in LABELS])
    axes.minorticks_off()
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
