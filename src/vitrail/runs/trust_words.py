"""What ``vitrail trust`` found, in sentences."""

from __future__ import annotations

from vitrail.core.paths import typed_path
from vitrail.evaluation.trust.outlier_score import VALIDATION_SHARE
from vitrail.runs.run import Run
from vitrail.runs.telling import share_text
from vitrail.runs.trust_file import IntervalEntry, TrustFile, read_trust_file


def trust_lines(run: Run) -> list[str]:
    """What ``vitrail trust`` found, in sentences for people."""
    file = read_trust_file(run)
    lines = []
    if (classes := file.classes) is not None:
        lines += _class_lines(file)
        used = run.read().temperature
        if used is None:
            lines.append(
                "Answers and files keep their probabilities; to have them over the temperature: "
                f"vitrail trust {typed_path(run.folder)} --use-temperature"
            )
        else:
            lines.append(f"Answers are divided by the temperature {classes.temperature:.3g}, and files from now on.")
    above = file.outlier.test_above
    tested = f", {share_text(above)} of the test images" if above is not None else ""
    lines.append(
        f"Outlier score: {share_text(1 - VALIDATION_SHARE, 0)} of the {file.num_val} validation images are above "
        f"{file.outlier.threshold:.4g}{tested}"
    )
    return [*lines, *(note[0].upper() + note[1:] for note in file.notes)]


def _class_lines(file: TrustFile) -> list[str]:
    classes = file.classes
    assert classes is not None
    fitted = f"Temperature: {classes.temperature:.3g}, fitted on {file.num_val} validation images"
    if classes.before is None or classes.after is None:
        return [fitted]
    where = "test images" if classes.checked_on == "test" else "validation images, in turns"
    chosen = classes.sets[classes.method]
    errors = f"calibration error {_interval(classes.before.ece)} without, {_interval(classes.after.ece)} with it"
    sets = (
        f"Sets of classes: asked for {share_text(classes.coverage)}, right in {share_text(chosen.coverage)} of "
        f"{chosen.num_images} {where}, {chosen.mean_size:.2f} classes on average; 95 % of draws of so many validation "
        f"images lie between {share_text(classes.low)} and {share_text(classes.high)}"
    )
    return [f"{fitted}; {errors}", sets]


def _interval(entry: IntervalEntry) -> str:
    return f"{share_text(entry.mean)} ({share_text(entry.low)} to {share_text(entry.high)})"
