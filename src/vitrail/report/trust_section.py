"""The report's section on how far answers can be trusted; a run without ``vitrail trust`` has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vitrail.report.charts import reliability_diagram
from vitrail.runs.run import Run
from vitrail.runs.trust_file import SetEntry, read_trust_file
from vitrail.runs.trust_words import trust_lines


@dataclass(frozen=True, kw_only=True)
class TrustSection:
    """The section.

    Attributes:
        stale: whether the figures are of other weights than the run's.
        sentences: what ``vitrail trust`` told.
        coverage: coverage of the sets, as it was asked for; None where there are no sets.
        sets: method -> sets on images that they were not fitted to.
        reliability: accuracy over confidence, before and after; None where nothing was checked.
    """

    stale: bool
    sentences: Sequence[str]
    coverage: float | None
    sets: dict[str, SetEntry]
    reliability: Markup | None


def read_trust_section(run: Run) -> TrustSection | None:
    """The section from ``trust.json``; None without the file.

    Raises:
        VitrailError: the file is damaged.
    """
    if not run.trust.exists():
        return None
    file = read_trust_file(run)
    if file.weights_hash != run.weights_hash:
        return TrustSection(stale=True, sentences=(), coverage=None, sets={}, reliability=None)
    classes, reliability = file.classes, None
    if classes is not None and classes.before is not None and classes.after is not None:
        bins = {"as it is": classes.before.bins, "over the temperature": classes.after.bins}
        reliability = reliability_diagram(
            "trust",
            "Accuracy over confidence, with the logits as they are and over the temperature.",
            {name: [one.model_dump() for one in found] for name, found in bins.items()},
        )
    return TrustSection(
        stale=False,
        sentences=trust_lines(run),
        coverage=None if classes is None else classes.coverage,
        sets={} if classes is None else {str(name): found for name, found in classes.sets.items()},
        reliability=reliability,
    )
