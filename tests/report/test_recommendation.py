from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from report.pretend import row

from vitrail.bench import Energy
from vitrail.core.errors import ConfigError, VitrailError
from vitrail.report.recommendation import Limits, recommend
from vitrail.runs.file_results import FileResult
from vitrail.tasks import Score


def entry(
    run: str, accuracy: float | None, ms: float, mb: float = 4.0, mj: float | None = None, **values
) -> FileResult:
    energy = None if mj is None else Energy(source=values.pop("source", "rapl"), energy_mj=mj)
    result = row("onnxruntime int8", ms, energy=energy, **values)
    object.__setattr__(result, "size_bytes", int(mb * 1e6))
    note = "" if accuracy is not None else "this file was not evaluated; repeat vitrail evaluate"
    score = Score(name="top1", title="top-1")
    return FileResult(run=run, model="m", result=result, score=score, accuracy=accuracy, num_images=1000, note=note)


LARGE, MIDDLE, SMALL = entry("large", 0.95, 30, 20, 90), entry("middle", 0.93, 12, 8, 40), entry("small", 0.80, 4, 2, 9)
ALL = [SMALL, LARGE, MIDDLE]


def test_without_limits_the_most_accurate_and_then_the_next():
    found = recommend(ALL, Limits())
    assert (found.best, found.next_best) == (LARGE, MIDDLE)
    assert "the most accurate of 3 candidates: 95.0 %" in found.reasons[0]
    assert "2.0 points less accurate, 0.40 times its latency, 0.40 times its size" in found.reasons[-1]


def test_limits_exclude_and_the_reasons_say_by_how_much():
    found = recommend(ALL, Limits(max_latency_ms=15, max_size_mb=10))
    assert (found.best, found.next_best) == (MIDDLE, SMALL)
    assert found.num_fitting == 2
    assert "12 ms, where 15 ms are allowed" in found.reasons
    assert "8 MB, where 10 MB are allowed" in found.reasons
    only = recommend(ALL, Limits(max_latency_ms=5))
    assert (only.best, only.next_best) == (SMALL, None)
    assert "the only one of 3 candidates within --max-latency-ms 5: 80.0 %" in only.reasons[0]


def test_among_equals_the_faster_then_the_smaller():
    twin = entry("twin", 0.95, 20)
    smaller = entry("smaller", 0.95, 20, 3)
    assert recommend([*ALL, twin, smaller], Limits()).best == smaller


def test_a_limit_that_excludes_all_is_named_with_the_nearest():
    with pytest.raises(
        VitrailError, match=r"--max-latency-ms 2 excludes all of 3 files: the fastest is small/.*with 4 ms"
    ):
        recommend(ALL, Limits(max_latency_ms=2, max_size_mb=100))
    with pytest.raises(
        VitrailError, match=r"--min-accuracy 0.99 excludes all of 3 files: the most accurate is large/.*95.0 %"
    ):
        recommend(ALL, Limits(min_accuracy=0.99))


def test_limits_that_exclude_each_other_are_told_apart():
    with pytest.raises(
        VitrailError, match=r"each limit is kept by some of 3 files, but not .* by one; the nearest, .*breaks"
    ):
        recommend(ALL, Limits(max_latency_ms=5, min_accuracy=0.9))


def test_an_estimated_energy_is_called_one_and_missing_ones_are_counted():
    guess = entry("guess", 0.94, 10, mj=50, source="estimated")
    blind = entry("blind", 0.99, 10)
    found = recommend([guess, blind, MIDDLE], Limits(max_energy_mj=60))
    assert found.best == guess
    assert "50 mJ, an estimate, where 60 mJ are allowed" in found.reasons
    assert "1 have no energy and were left out; repeat: vitrail bench RUN --energy METER" in found.reasons
    with pytest.raises(VitrailError, match="none of 1 files has a measured energy for --max-energy-mj 60"):
        recommend([blind], Limits(max_energy_mj=60))


def test_only_files_whose_own_accuracy_is_known_and_single_images():
    unknown, batch = entry("unknown", None, 1), entry("batch", 0.99, 1, batch_size=8)
    assert recommend([unknown, batch, SMALL], Limits()).best == SMALL
    with pytest.raises(VitrailError, match="none of 1 measurements can be recommended: this file was not evaluated"):
        recommend([unknown], Limits())


def test_a_difference_within_chance_is_called_so():
    close = entry("close", 0.945, 10)
    assert "within chance on 1000 images" in recommend([LARGE, close], Limits()).reasons[-1]
    assert "within chance" not in recommend([LARGE, SMALL], Limits()).reasons[-1]


@pytest.mark.parametrize("values", [{"max_latency_ms": 0}, {"min_accuracy": 90}, {"max_size_mb": float("nan")}])
def test_bad_limits(values):
    with pytest.raises(ConfigError):
        Limits(**values)


@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.1, 100), st.floats(0.1, 100)), min_size=1, max_size=8),
    st.floats(0.1, 100),
    st.floats(0.1, 100),
)
def test_the_choice_keeps_the_limits_and_nothing_better_does(values, latency, size):
    entries = [entry(str(i), *value) for i, value in enumerate(values)]
    fitting = [e for e in entries if e.latency_ms <= latency and e.size_mb <= size]
    limits = Limits(max_latency_ms=latency, max_size_mb=size)
    if not fitting:
        with pytest.raises(VitrailError):
            recommend(entries, limits)
        return
    best = recommend(entries, limits).best
    assert best in fitting
    assert best.accuracy == max(e.accuracy for e in fitting)
