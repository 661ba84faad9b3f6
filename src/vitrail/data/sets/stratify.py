"""The validation part of images with any number of classes: each class in its share, as far as that goes."""

from __future__ import annotations

import numpy as np

from vitrail.core.errors import DataError
from vitrail.data.data_config import DataConfig
from vitrail.data.sets.multilabel_set import MultiLabelSet
from vitrail.data.sets.samples import draw_order


def cut_by_labels(samples: MultiLabelSet, config: DataConfig) -> list[int]:
    """Indices of the validation part: ``config.val_fraction`` of the images, and of those of every class.

    The rarest class is dealt out first, each of its images to the part that still wants more of it (Sechidis et al.,
    "On the Stratification of Multi-Label Data", ECML PKDD 2011). The only image of a class is trained on. Fraction 1
    takes everything.

    Raises:
        DataError: there is one image only, or no class has two.
    """
    count = len(samples)
    if config.val_fraction == 1:
        return list(range(count))
    if count < 2:
        raise DataError(f"{config.path} has {count} image for training and validation; give at least 2")
    has = (samples.targets() == 1).numpy()
    size = min(max(round(count * config.val_fraction), 1), count - 1)
    totals = has.sum(0)
    wanted = np.clip(np.round(totals * config.val_fraction), np.minimum(totals - 1, 1), np.maximum(totals - 1, 0))
    taken = np.zeros_like(totals)
    order, left = np.array(draw_order(samples.names, config.seed)), np.ones(count, dtype=bool)
    chosen: list[int] = []
    while has[left].any():
        remaining = has[left].sum(0)
        rarest = int(np.where(remaining > 0, remaining, count + 1).argmin())
        for index in [one for one in order.tolist() if left[one] and has[one, rarest]]:
            left[index] = False
            own = has[index]
            if wanted[rarest] > 0 and (taken[own] + 1 < totals[own]).all():  # training keeps one of each class
                wanted[own] -= 1
                taken[own] += 1
                chosen.append(index)
    without = [index for index in order.tolist() if left[index]]
    if not chosen:
        raise DataError(
            f"{config.path} has no class with two images, which could be split into training and validation; add "
            f"images, or name the parts train and val"
        )
    return sorted(chosen + without[: max(size - len(chosen), 0)])
