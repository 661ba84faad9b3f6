"""What an answer that looks at no image scores, on the images that `vitrail evaluate` measures a run on.

    python benchmarks/dense_trivial.py RUN...

Answers are made of the training part alone, judged by the run's own metrics:

segmentation  the class that each place of the frame has most often; each class everywhere
detection     boxes of the median size of the most frequent class, side by side
instances     one object a picture: the median box and the mean mask, with every class at its frequency
pose          the mean place of every keypoint
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from vitrail.data import eval_loader
from vitrail.runs.data import load_run_data
from vitrail.runs.load import load_task
from vitrail.tasks.heads.two_stage import MASK_OUT


def segmentation(task: Any, targets: list[Tensor]) -> dict[str, Tensor]:
    masks = torch.cat(targets)
    counts = torch.stack([(masks == index).sum(0) for index in range(len(task.classes))]).float()
    answers = {"each place's most frequent class": counts}  # what is ignored counts for none
    for index, name in enumerate(task.classes):
        answers[f"everything {name}"] = torch.zeros_like(counts).index_fill(0, torch.tensor([index]), 1.0)
    return answers


def detection(task: Any, targets: list[list[dict[str, Tensor]]]) -> dict[str, Tensor]:
    boxes, labels = objects(targets)
    commonest = int(labels.mode().values)
    sizes = boxes[labels == commonest]
    width, height = (sizes[:, 2:] - sizes[:, :2]).median(0).values.tolist()
    corners = torch.cartesian_prod(torch.arange(0, 1 - height / 2, height), torch.arange(0, 1 - width / 2, width))
    top, left = corners[:, 0], corners[:, 1]
    rows = torch.full((len(corners), 4 + len(task.classes)), -12.0)
    rows[:, :4] = torch.stack([left, top, left + width, top + height], 1)
    rows[:, 4 + commonest] = 0.0
    return {f"a grid of median boxes of {task.classes[commonest]}": rows}


def instances(task: Any, targets: list[list[dict[str, Tensor]]]) -> dict[str, Tensor]:
    boxes, labels = objects(targets)
    size = torch.tensor(task.backbone.config.image_size).flip(0).repeat(2)
    masks = []
    for one in (one for batch in targets for one in batch if len(one["boxes"])):
        which = torch.arange(len(one["boxes"]))
        masks.append(project_masks_on_boxes(one["masks"], one["boxes"] * size, which, MASK_OUT))
    row = torch.cat([boxes.median(0).values, torch.cat(masks).mean(0).flatten().logit(1e-4)])
    shares = torch.bincount(labels, minlength=len(task.classes)) / len(labels)
    rows = row.repeat(len(shares), 1)
    logits = torch.full((len(shares), len(shares)), -12.0).diagonal_scatter(shares.logit(1e-4))
    return {"the median box with the mean mask": torch.cat([rows[:, :4], logits, rows[:, 4:]], 1)}


def pose(task: Any, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    known = torch.cat([batch["keypoints"] for batch in targets])
    seen = known[..., 2:] > 0
    mean = (known[..., :2] * seen).sum(0) / seen.sum(0).clamp(min=1)
    rows, columns = (side // 4 for side in task.backbone.config.image_size)
    return {"each keypoint's mean place": task.peaks(mean.unsqueeze(0), (rows, columns))[0]}


def objects(targets: list[list[dict[str, Tensor]]]) -> tuple[Tensor, Tensor]:
    """Boxes (n, 4) in shares of the frame and labels (n,) of all that are not crowds."""
    every = [one for batch in targets for one in batch]
    boxes = torch.cat([one["boxes"][~one["iscrowd"]] for one in every])
    return boxes, torch.cat([one["labels"][~one["iscrowd"]] for one in every])


ANSWERS = {"segmentation": segmentation, "detection": detection, "instances": instances, "pose": pose}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    for folder in parser.parse_args().runs:
        run = Run.open(folder)
        task, data = load_task(run), load_run_data(run)
        preprocessing = run.read().preprocessing
        known, held_out = (
            [batch.targets for batch in eval_loader(samples, preprocessing, batch_size=64, num_workers=0)]
            for samples in (data.train, data.held_out)
        )
        for name, answer in ANSWERS[task.name](task, known).items():
            metrics = task.metrics()
            for targets in held_out:
                count = len(targets["keypoints"] if isinstance(targets, dict) else targets)
                metrics.update(answer.expand(count, *answer.shape), targets)
            values = metrics.compute()
            scores = ", ".join(f"{score.title} {float(values[score.name]):.3f}" for score in task.scores)
            print(f"{folder}: {name}: {scores}", flush=True)


if __name__ == "__main__":
    main()
