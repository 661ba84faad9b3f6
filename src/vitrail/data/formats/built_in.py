"""The built-in data: 1,200 photographs of hand signs for the digits 0 to 9 (assets/ATTRIBUTION.md)."""

from __future__ import annotations

from importlib.resources import files

import numpy as np

from vitrail.data.records import LabelledImage

CLASSES = tuple("0123456789")


def read_built_in() -> list[LabelledImage]:
    """The 900 training and 300 test photographs, 48x48 pixels, of the classes :data:`CLASSES`."""
    with (
        files("vitrail.data").joinpath("assets/demo_sign_digits_48.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        jpeg, offsets, labels, split = (arrays[name] for name in ("jpeg", "offsets", "labels", "split"))
    data, ends = jpeg.tobytes(), offsets.tolist()
    return [
        LabelledImage(
            name=f"{label}/{i:04d}.jpg",
            source=data[ends[i] : ends[i + 1]],
            part="test" if part else "train",
            label=label,
        )
        for i, (label, part) in enumerate(zip(labels.tolist(), split.tolist(), strict=True))
    ]
