"""Answers to images with what ``vitrail trust`` knows of them: sets of classes, outlier scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from vitrail.core.errors import ConfigError
from vitrail.core.paths import typed_path
from vitrail.evaluation import AnswerTrust, Predictions
from vitrail.evaluation.trust.class_sets import bound_of, check_coverage, misfits, sets_of
from vitrail.evaluation.trust.temperature import probabilities_of
from vitrail.runs.run import Run
from vitrail.runs.seen_images import Recorded, recorded
from vitrail.runs.trust_file import Trust, read_trust
from vitrail.tasks import Task


@dataclass
class TrustedAnswers:
    """What is added to the answers of a classifier.

    Attributes:
        task: the classifier.
        trust: what was fitted; None where nothing is wanted.
        coverage: share of images whose set shall hold the right class; None without sets.
        outlier_score: whether outlier scores are wanted.
        recorded: features and outputs of the images, in the order of the answers.
    """

    task: Task
    trust: Trust | None
    coverage: float | None
    outlier_score: bool
    recorded: Recorded = field(default_factory=Recorded)

    def attach(self, predictions: Predictions) -> Predictions:
        """The answers to the images that the task has seen, with what is wanted."""
        if self.trust is None or not predictions.images:
            return predictions
        logits = self.recorded.outputs * self.task.temperature
        sets: list[tuple[str, ...] | None] = [None] * len(logits)
        scores: list[float | None] = [None] * len(logits)
        if self.coverage is not None:
            classes = self.trust.file.classes
            assert classes is not None
            bound = bound_of(self.trust.misfits[classes.method], self.coverage)
            held = sets_of(misfits(probabilities_of(logits, classes.temperature), classes.method), bound)
            sets = [tuple(name for name, one in zip(self.task.classes, row, strict=True) if one) for row in held]
        if self.outlier_score:
            scores = self.trust.outlier_score(self.recorded.features, logits).tolist()
        threshold = self.trust.file.outlier.threshold
        trusts = [
            AnswerTrust(classes=names, outlier_score=score, unusual=None if score is None else score > threshold)
            for names, score in zip(sets, scores, strict=True)
        ]
        images = tuple(replace(one, trust=trust) for one, trust in zip(predictions.images, trusts, strict=True))
        return replace(predictions, images=images)


def check_per_image(run: Run, task: Task, **option: bool | float) -> None:
    """Refuse an option of classifiers for another task.

    Raises:
        ConfigError: the task gives an image no class.
    """
    if not task.per_image:
        raise ConfigError(
            f"is for tasks that give each image one class, not for '{task.name}'; the outlier scores of images are in "
            f"the table of: vitrail drift {typed_path(run.folder)} IMAGES",
            **option,
        )


@contextmanager
def trusted_answers(run: Run, task: Task, coverage: float | None, *, outlier_score: bool) -> Iterator[TrustedAnswers]:
    """While the block runs, what the task sees is kept for :meth:`TrustedAnswers.attach`.

    Raises:
        ConfigError: the task gives an image no class, or the coverage is no share.
        RunError: nothing was fitted for the run's present weights.
    """
    if coverage is None and not outlier_score:
        yield TrustedAnswers(task, None, None, outlier_score=False)
        return
    check_per_image(run, task, **({"outlier_score": True} if coverage is None else {"coverage": coverage}))
    if coverage is not None:
        check_coverage(coverage)
    answers = TrustedAnswers(task, read_trust(run), coverage, outlier_score)
    with recorded(task) as answers.recorded:
        yield answers
