from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from vitrail.compare.outcome import read_outcome
from vitrail.core.errors import RunError
from vitrail.runs.run import Run


def packed(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **{name: np.array(values) for name, values in arrays.items()})
    return file.getvalue()


def test_images_are_in_the_order_of_their_names(old_run: Run) -> None:
    whole = packed(logits=[[1.0, 0.0], [0.0, 1.0]], labels=[0, 0], names=["b", "a"])
    old_run.predictions.write_bytes(whole)
    outcome = read_outcome(old_run)
    assert (outcome.names, outcome.values.tolist()) == (("a", "b"), [0.0, 1.0])


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"no archive",
        packed(labels=[0], names=["a"]),
        packed(logits=[1.0, 2.0], labels=[0, 1], names=["a", "b"]),
        packed(logits=[[1.0], [2.0]], labels=[0], names=["a", "b"]),
        packed(logits=[["x"]], labels=[0], names=["a", "b"]),
        packed(logits=[[1.0], [2.0]], labels=[0, 1], names=["a", "b"])[:-30],
    ],
)
def test_damaged_predictions_are_one_line(old_run: Run, contents: bytes) -> None:
    old_run.predictions.write_bytes(contents)
    with pytest.raises(RunError, match=r"predictions\.npz is damaged .*; delete it, and it is made again"):
        read_outcome(old_run)
