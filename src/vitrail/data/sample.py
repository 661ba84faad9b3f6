"""The built-in data: 1,200 photographs of hand signs for the digits 0 to 9 (assets/ATTRIBUTION.md)."""

from __future__ import annotations

from importlib.resources import files

import numpy as np

from vitrail.data.image_set import ImageSet

SAMPLE_CLASSES = tuple("0123456789")


def read_sample() -> tuple[ImageSet, ImageSet]:
    """The 900 training and 300 test photographs, 48x48 pixels, 10 classes.

    They are not to be mirrored in training: right hands were photographed, and what a mirrored sign means is not for
    an augmentation to decide.
    """
    with (
        files("vitrail.data").joinpath("assets/demo_sign_digits_48.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        jpeg, offsets, labels, split = (arrays[name] for name in ("jpeg", "offsets", "labels", "split"))
    data = jpeg.tobytes()
    blobs = [data[start:stop] for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]

    def part(number: int) -> ImageSet:
        chosen = np.flatnonzero(split == number).tolist()
        names = [f"{labels[i]}/{i:04d}.jpg" for i in chosen]
        return ImageSet(names, [blobs[i] for i in chosen], labels[chosen].astype(np.int64), mirrored_alike=False)

    return part(0), part(1)
