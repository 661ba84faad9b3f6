"""Train a token mixer of your own inside MetaFormer, on the embedded photographs of hand signs.

python examples/07_own_token_mixer.py [epochs]    writes runs/own-mixer

Later, in another process: vitrail export runs/own-mixer --import examples/07_own_token_mixer.py
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

import vitrail


@vitrail.register
class ShiftMixer(nn.Module):
    """A quarter of the channels each from the left, the right, above and below; then a projection."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right, up, down = x.chunk(4, dim=1)
        pad = nn.functional.pad
        left, right = pad(left, (1, 0))[..., :-1], pad(right, (0, 1))[..., 1:]
        up, down = pad(up, (0, 0, 1, 0))[:, :, :-1], pad(down, (0, 0, 0, 1))[:, :, 1:]
        return self.proj(torch.cat((left, right, up, down), dim=1)) - x


def main() -> None:
    run = vitrail.train(
        "sample",
        model="poolformer_nano",
        model_fields={"token_mixer": ShiftMixer, "embed_dims": (32, 32), "depths": (1, 1), "strides": (4, 2)},
        image_size=32,
        epochs=int(sys.argv[1]) if len(sys.argv) > 1 else 1,
        warmup_epochs=0.5,
        num_workers=0,
        run="runs/own-mixer",
    )
    needed = run.read().own_code[0]
    print(f"{run.folder} needs the {needed.kind} {needed.name} of {needed.file}")


if __name__ == "__main__":
    main()
