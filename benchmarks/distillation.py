"""What a teacher brings to a small student, on several data sets and numbers of labels, for equal numbers of steps.

    python benchmarks/distillation.py --weights vit_tiny_patch16_224_augreg_in1k.safetensors --out distillation \
        --sets flowers17=../shared/data/flowers17_128 --labels 10 0 --students edgevit_xxs

A set is a folder with train/ and test/ of one folder a class. Of every class the given number of training images is
drawn by seed (0 takes all); all training images, without their labels, are there for the ways that need none. The
teacher is the model of --weights, fine-tuned by `--recipe auto` on the labelled images. The ways of a student, each
from random weights and of --steps steps altogether:

    scratch     labels alone
    logits      labels, and the teacher's probabilities
    features    labels, and the teacher's maps
    both        labels, probabilities and maps
    unlabelled  half of the steps features of images without labels, then half as `logits`
    mae         half of the steps masked prediction of images without labels, then half as `scratch`

What is compared is measured on test images that nothing chose by. Results are kept in `distillation.jsonl`, and rows
that are there are not made again; the table is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from recipes import draw
from scipy.stats import t as student_t

from vitrail.data import AugmentConfig, DataConfig
from vitrail.evaluation.measure import evaluate_task
from vitrail.runs.data import load_run_data
from vitrail.runs.load import load_task
from vitrail.runs.run import Run
from vitrail.runs.train import train
from vitrail.training import TrainConfig
from vitrail.training.distillation.config import DistillConfig

WAYS = ("scratch", "logits", "features", "both", "unlabelled", "mae")
BATCH = 32
CROPS = AugmentConfig(random_resized_crop_scale=(0.2, 1.0), rand_augment_num_ops=0, random_erasing=0.0)


def accuracy(run: Run) -> float:
    """Share of right answers on the test images."""
    figures = evaluate_task(load_task(run), load_run_data(run).held_out, run.read().preprocessing)
    return float(figures["top1"])


def epochs_of(folder: Path, steps: int) -> int:
    """Epochs that are nearest to a number of steps on the training images of a folder, of which a fifth validates."""
    count = 0.8 * sum(1 for path in (folder / "train").rglob("*") if path.is_file())
    return max(round(steps / max(count // BATCH, 1)), 1)


def student(way: str, place: Path, teacher: Run, args: argparse.Namespace, name: str, seed: int) -> Run:
    """A student, trained in one way."""
    labelled, every = place / "data", place / "all"
    steps = args.steps if way not in ("unlabelled", "mae") else args.steps // 2
    common: dict[str, Any] = {
        "model": name,
        "image_size": args.image_size,
        "seed": seed,
        "num_workers": 0,
        "recipe": "scratch",
        "batch_size": BATCH,
    }
    weights = None
    if way in ("unlabelled", "mae"):
        taught = {"task": "distillation", "distill": DistillConfig(teacher=str(teacher.folder))}
        task: dict[str, Any] = (
            taught if way == "unlabelled" else {"task": "pretraining", "options": {"objective": "mae"}}
        )
        config = TrainConfig(
            data=DataConfig(path=str(every), seed=seed),
            augment=CROPS,
            keep="last",
            epochs=epochs_of(every, steps),
            label_smoothing=0.0,
            **task,
            **common,
        )
        weights = str(train(config, run=place / f"{name}-{way}-first", progress=False).folder)
    lessons = {
        "logits": ("logits",),
        "features": ("features",),
        "both": ("logits", "features"),
        "unlabelled": ("logits",),
    }
    distill = DistillConfig(teacher=str(teacher.folder), teach=lessons[way]) if way in lessons else DistillConfig()
    config = TrainConfig(
        data=DataConfig(path=str(labelled), seed=seed),
        weights=weights,
        distill=distill,
        epochs=epochs_of(labelled, steps),
        **common,
    )
    return train(config, run=place / f"{name}-{way}", progress=False)


def measure(args: argparse.Namespace, source: Path, key: dict[str, Any], known: set[tuple[str, str]]) -> list[dict]:
    """The teacher of a set, a number of labels and a seed, and the students that are not known yet."""
    place, seed = args.out / "work", key["seed"]
    shutil.rmtree(place, ignore_errors=True)
    draw(source, place / "data", key["labels"], args.tests, seed)
    draw(source, place / "all", 0, 1, seed)
    start = time.process_time()
    config = TrainConfig(
        data=DataConfig(path=str(place / "data"), seed=seed),
        model=args.model,
        weights=args.weights,
        image_size=args.image_size,
        seed=seed,
        num_workers=0,
    )
    teacher = train(config, run=place / "teacher", progress=False)
    rows = [
        key | {"way": "teacher", "student": "", "top1": accuracy(teacher), "cpu_seconds": time.process_time() - start}
    ]
    keep(args, rows[0])
    for name in args.students:
        for way in args.ways:
            if (name, way) in known:
                continue
            start = time.process_time()
            run = student(way, place, teacher, args, name, seed)
            seconds = time.process_time() - start
            rows.append(key | {"way": way, "student": name, "top1": accuracy(run), "cpu_seconds": seconds})
            keep(args, rows[-1])
    return rows


def keep(args: argparse.Namespace, row: dict[str, Any]) -> None:
    """Append a row to the results."""
    with (args.out / "distillation.jsonl").open("a") as file:
        file.write(json.dumps(row | {"cpu_seconds": round(row["cpu_seconds"])}) + "\n")


def print_table(rows: list[dict[str, Any]]) -> None:
    """Means with 95 % intervals over the seeds, and the gain over scratch paired by seed, as Markdown."""
    cells: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        cells[row["set"], row["labels"], row["student"], row["way"]][row["seed"]] = row
    print("| set | images a class | student | way | seeds | top-1 | gain over scratch | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    order = {way: place for place, way in enumerate(("teacher", *WAYS))}
    for (name, labels, model, way), found in sorted(cells.items(), key=lambda one: (*one[0][:3], order[one[0][3]])):
        plain = cells.get((name, labels, model, "scratch"), {})
        gains = [100 * (found[seed]["top1"] - plain[seed]["top1"]) for seed in found if seed in plain]
        values = [100 * row["top1"] for row in found.values()]
        seconds = mean(row["cpu_seconds"] for row in found.values())
        gain = "-" if way in ("scratch", "teacher") or not gains else interval(gains, "+")
        cells_shown = (name, labels or "all", model or "-", way, len(found), interval(values), gain, f"{seconds:.0f}")
        print(f"| {' | '.join(map(str, cells_shown))} |")


def interval(values: list[float], sign: str = "") -> str:
    """Mean, and half the 95 % interval of Student's t."""
    if len(values) < 2:
        return f"{mean(values):{sign}.1f}"
    half = student_t.ppf(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return f"{mean(values):{sign}.1f} ± {half:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", required=True, help="NAME=FOLDER")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--model", default="vit_tiny_patch16", help="the teacher")
    parser.add_argument("--students", nargs="+", default=["edgevit_xxs", "mobilevit_xxs"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--labels", type=int, nargs="+", default=[5, 10, 0], help="images a class; 0 takes all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tests", type=int, default=20, help="test images a class")
    parser.add_argument("--out", type=Path, default=Path("distillation"))
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    kept = args.out / "distillation.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    for seed in args.seeds:
        for labels in args.labels:
            for name, _, folder in (one.partition("=") for one in args.sets):
                key = {"set": name, "labels": labels, "seed": seed, "steps": args.steps, "image_size": args.image_size}
                known = {(row["student"], row["way"]) for row in rows if key.items() <= row.items()}
                if not {(one, way) for one in args.students for way in args.ways} <= known:
                    rows += measure(args, Path(folder), key, known)
    print_table([row for row in rows if row["steps"] == args.steps and row["image_size"] == args.image_size])


if __name__ == "__main__":
    main()
