"""Train on the embedded photographs of hand signs; everything that belongs together is in one folder.

python examples/02_train.py [epochs]    writes runs/example; 2 epochs by default, 40 for a good model
"""

from __future__ import annotations

import sys

import vitrail


def main() -> None:
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    run = vitrail.train(
        "sample",
        model="edgevit_nano_stride2",
        epochs=epochs,
        warmup_epochs=0.5,
        ema_decay=0.9,
        num_workers=0,
        run="runs/example",
    )
    report = run.evaluate()[0]
    print(f"top-1 {report['top1']:.1%} of {report['num_images']} images after {epochs} epochs; the run is {run.folder}")


if __name__ == "__main__":
    main()
