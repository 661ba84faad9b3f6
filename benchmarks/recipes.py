"""What `--recipe auto` reaches beside a linear probe, on several data sets and numbers of labels.

    python benchmarks/recipes.py --weights vit_tiny_patch16_224_augreg_in1k.safetensors --out recipes \
        --sets flowers17=../shared/data/flowers17_128 signs=../shared/data/sign_digits_64 --labels 5 20 0

A set is a folder with train/ and test/ of one folder a class. Of every class the given number of training images is
drawn by seed (0 takes all); a part of these chooses between the probe and the epochs, as in any training. What is
compared is measured on test images that nothing chose by. Results are kept in `recipes.jsonl`, and rows that are there
are not made again; the table is printed at the end.

`--tune-trials 12` adds the best of a tune with the same training images: its first trial has the recipe's own values,
and the validation images choose. `tuned - auto` says what searching brings beyond the recipe.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from vitrail.data import DataConfig
from vitrail.evaluation.measure import evaluate_task
from vitrail.models.checkpoint import load_strictly, read_trained
from vitrail.runs.data import load_run_data
from vitrail.runs.folder import training_files
from vitrail.runs.load import load_task
from vitrail.runs.train import train
from vitrail.training import TrainConfig
from vitrail.training.recorder import read_checkpoint, task_state
from vitrail.tuning import tune


def draw(source: Path, place: Path, labels: int, most_tests: int, seed: int) -> Path:
    """A folder of links to some images of a set."""
    random = np.random.default_rng(seed)
    for part, count in (("train", labels), ("test", most_tests)):
        for folder in sorted(path for path in (source / part).iterdir() if path.is_dir()):
            images = sorted(folder.iterdir())
            chosen = random.permutation(len(images))[: count or len(images)]
            (place / part / folder.name).mkdir(parents=True)
            for index in chosen:
                (place / part / folder.name / images[index].name).symlink_to(images[index].resolve())
    return place


def measure(args: argparse.Namespace, source: Path, labels: int, seed: int) -> dict[str, float | str | int]:
    """One training, and the accuracies on its test images."""
    place = args.out / "work"
    shutil.rmtree(place, ignore_errors=True)
    data = draw(source, place / "data", labels, args.tests, seed)
    start = time.process_time()
    config = TrainConfig(
        data=DataConfig(path=str(data), seed=seed),
        model=args.model,
        weights=args.weights,
        image_size=args.image_size,
        seed=seed,
        num_workers=0,
    )
    run = train(config, run=place / "run")
    seconds = time.process_time() - start
    files, task = training_files(run), load_task(run)
    images = load_run_data(run).held_out
    preprocessing = run.read().preprocessing
    figures: dict[str, float | str | int] = {"auto": evaluate_task(task, images, preprocessing)["top1"]}
    load_strictly(task, read_trained(files.probe), str(files.probe), remedy="delete it")
    figures["probe"] = evaluate_task(task.eval(), images, preprocessing)["top1"]
    load_strictly(task, task_state(read_checkpoint(files.best)), str(files.best), remedy="delete it")
    figures["finetuned"] = evaluate_task(task.eval(), images, preprocessing)["top1"]
    trained = run.read().trained
    figures |= {"kept": trained.keep if trained else "", "cpu_seconds": round(seconds), "tests": len(images)}
    return figures | (measure_tune(config, place / "tune", args.tune_trials) if args.tune_trials else {})


def measure_tune(config: TrainConfig, folder: Path, trials: int) -> dict[str, float | str | int]:
    """The best of a tune: accuracy on the test images and on the validation images, settings, cost."""
    start = time.process_time()
    report = tune(config, run=folder, trials=trials)
    best, own = report.best, report.own
    assert best is not None
    return {
        "tune_trials": trials,
        "tuned": report.tested[best.number],
        "tuned_val": best.score or 0.0,
        "auto_val": (own.score or 0.0) if own else 0.0,
        "tuned_number": best.number,
        "tuned_values": json.dumps(best.values),
        "tune_cpu_seconds": round(time.process_time() - start),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", required=True, help="NAME=FOLDER")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--model", default="vit_tiny_patch16")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--labels", type=int, nargs="+", default=[5, 20, 0], help="images a class; 0 takes all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tests", type=int, default=20, help="test images a class")
    parser.add_argument("--tune-trials", type=int, default=0, help="trials of a tune beside; 0 for none")
    parser.add_argument("--out", type=Path, default=Path("recipes"))
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    kept = args.out / "recipes.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    for seed in args.seeds:
        for labels in args.labels:
            for name, _, folder in (one.partition("=") for one in args.sets):
                key = {"set": name, "labels": labels, "seed": seed, "image_size": args.image_size, "model": args.model}
                known = [row for row in rows if key.items() <= row.items()]
                if any(not args.tune_trials or row.get("tune_trials") == args.tune_trials for row in known):
                    continue
                rows = [row for row in rows if row not in known]
                rows.append(key | measure(args, Path(folder), labels, seed))
                with kept.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print_table(rows)


def print_table(rows: list[dict[str, float]]) -> None:
    """Means and standard deviations over the seeds, as Markdown."""
    latest = {(row["set"], row["labels"], row["seed"], row["image_size"], row["model"]): row for row in rows}
    cells = defaultdict(list)
    for row in latest.values():
        cells[row["set"], row["labels"]].append(row)
    print("| set | images a class | seeds | probe | fine-tuned | auto | auto - probe | tuned | tuned - auto | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for (name, labels), found in sorted(cells.items()):
        values = {column: [100 * row[column] for row in found] for column in ("probe", "finetuned", "auto")}
        gains = [auto - probe for auto, probe in zip(values["auto"], values["probe"], strict=True)]
        tuned = [100 * row["tuned"] for row in found if "tuned" in row]
        more = [100 * (row["tuned"] - row["auto"]) for row in found if "tuned" in row]
        shown = [
            f"{mean(one):.1f} ± {stdev(one) if len(one) > 1 else 0:.1f}" if one else "-"
            for one in (*values.values(), gains, tuned, more)
        ]
        seconds = mean(row["cpu_seconds"] for row in found)
        print(f"| {name} | {labels or 'all'} | {len(found)} | {' | '.join(shown)} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
