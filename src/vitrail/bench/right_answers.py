"""Answers of the candidates compared with each other: the time of a wrong answer is no measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.runtimes import Images, Session, Shape, runtime_title
from vitrail.runtimes.alike import INTEGER_TOLERANCE, MOST_UNMATCHED, Agreement, compare

FLOAT = "float"
"""The variant that other variants of a run are judged by."""

FLOAT_TOLERANCE = 1e-2
"""Largest relative error between two runtimes in float; kernels that approximate stay below 1e-3."""

NUM_IMAGES = 4
"""Images that the answers are compared on, at least."""

FARTHER = 2.0
"""Multiple of the reference's own error against the float model from which a codes' answer is the wrong one of two."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a candidate answers.

    Attributes:
        run, variant, runtime: the candidate's.
        shape: shape (b, c, h, w) of its images.
        outputs: its outputs for the images of :func:`ask` (n, ...).
        row_parts: see :class:`~vitrail.bench.candidates.Candidate`.
    """

    run: str
    variant: str
    runtime: str
    shape: Shape
    outputs: NDArray[Any]
    row_parts: tuple[int, ...] = ()


def ask(session: Session, shape: Shape, seed: int) -> NDArray[Any]:
    """The outputs (n, ...) for random images, the same for every session."""
    random = np.random.default_rng(seed)
    batches: list[Images] = [random.standard_normal(shape, dtype=np.float32) for _ in range(-(-NUM_IMAGES // shape[0]))]
    return np.concatenate([session(batch) for batch in batches])


def wrong_answers(answers: Mapping[str, Answer]) -> dict[str, str]:
    """Key of each candidate whose answers disagree with those of the same model in another runtime -> the reason.

    In float the first candidate is right. Of codes the one that is nearest to the float model is, where that takes
    part: which of two runtimes is wrong cannot be told without it.
    """
    groups: dict[tuple[str, Shape, str], dict[str, Answer]] = {}
    for key, answer in answers.items():
        groups.setdefault((answer.run, answer.shape, answer.variant), {})[key] = answer
    failures: dict[str, str] = {}
    for (run, shape, variant), group in groups.items():
        exact = next(iter(groups.get((run, shape, FLOAT), {}).values()), None) if variant != FLOAT else None
        failures |= _judge(group, exact)
    return failures


def _judge(group: Mapping[str, Answer], exact: Answer | None) -> dict[str, str]:
    answers = list(group.values())
    parts = next((answer.row_parts for answer in answers if answer.row_parts), ())
    tolerance = FLOAT_TOLERANCE if answers[0].variant == FLOAT else INTEGER_TOLERANCE
    errors = {key: _error(answer, exact, tolerance, parts) if exact else 0.0 for key, answer in group.items()}
    best = min(errors, key=lambda key: errors[key])
    failures = {}
    for key, answer in group.items():
        agreement = compare(answer.outputs, group[best].outputs, tolerance, parts)
        farther = exact is None or errors[key] > FARTHER * errors[best]
        if farther and _disagrees(agreement, tolerance):
            failures[key] = (
                f"its answers differ from those of {runtime_title(group[best].runtime)} by "
                f"{agreement.max_relative_error:.2g} (relative), allowed are {tolerance:g}; its time would mislead"
            )
    return failures


def _error(answer: Answer, exact: Answer, tolerance: float, parts: Sequence[int]) -> float:
    agreement = compare(answer.outputs, exact.outputs, tolerance, parts)
    return agreement.max_relative_error + agreement.unmatched_rows


def _disagrees(agreement: Agreement, tolerance: float) -> bool:
    return agreement.max_relative_error > tolerance or agreement.unmatched_rows > MOST_UNMATCHED
