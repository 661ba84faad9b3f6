"""Train on the embedded photographs of hand signs; everything that belongs together is in one folder.

python examples/02_train.py [epochs]    writes runs/example; 2 epochs by default, 40 for a good model
"""

from __future__ import annotations

import sys
from pathlib import Path

from vitrail.core.types import Preprocessing
from vitrail.data import load_data
from vitrail.evaluation import evaluate
from vitrail.runs.load import load_task
from vitrail.runs.train import train
from vitrail.training import TrainConfig


def main() -> None:
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    config = TrainConfig(model="edgevit_nano_stride2", epochs=epochs, warmup_epochs=0.5, ema_decay=0.9, num_workers=0)
    run = train(config, run=Path("runs/example"), progress=False)

    data = load_data(config.data)  # the embedded sample, unless DataConfig(path=...) says otherwise
    preprocessing = Preprocessing.from_dict(run.read()["preprocessing"])
    report = evaluate(load_task(run), data.held_out, preprocessing, data.classes)
    print(f"top-1 {report.top1:.1%} of {report.num_images} images after {epochs} epochs; the run is {run.folder}")


if __name__ == "__main__":
    main()
