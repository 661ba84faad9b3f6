from __future__ import annotations

import numpy as np
import pytest
import torch

from vitrail.data.formats.coco_shapes import decode_mask, problem_of_mask, unpack


@pytest.mark.parametrize("seed", range(6))
def test_packed_run_lengths(seed: int) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(seed).random((40, 60)) < (0.0, 0.001, 0.01, 0.5, 0.99, 1.1)[seed]
    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    shape = {"size": [40, 60], "counts": packed["counts"].decode()}
    counts = unpack(shape["counts"])
    assert torch.equal(decode_mask({"size": [40, 60], "counts": counts}, (40, 60)).bool(), torch.from_numpy(mask))
    assert torch.equal(decode_mask(shape, (40, 60)).bool(), torch.from_numpy(mask))
    assert problem_of_mask(shape, (40, 60)) is None
