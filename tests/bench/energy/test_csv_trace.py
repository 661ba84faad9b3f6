"""Traces of external meters: recorded formats, units, times, and the alignment with a measurement."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from vitrail.bench.energy import EnergyWindow, Mark, PowerTrace, open_meter
from vitrail.bench.energy.csv_trace import CsvMeter, Recorded, find_shift, read_trace
from vitrail.core.errors import BenchError

POWERTOOL = """Time (s),Main Avg Power (mW),Main Avg Current (mA),Main Avg Voltage (V)
0.0002,1000.5,250.1,4.0
0.0004,2000.5,500.1,4.0
0.0006,1500.0,375.0,4.0
"""
PYTHON_LIBRARY = """Time(ms),Main(mA),Main Voltage(V),
0.0002,250.0,4.0,
0.0004,500.0,4.0,
0.0006,375.0,4.0,
"""


@pytest.mark.parametrize(
    ("text", "seconds", "watts"),
    [
        (POWERTOOL, [0.0002, 0.0004, 0.0006], [1.0005, 2.0005, 1.5]),
        (PYTHON_LIBRARY, [0.0002, 0.0004, 0.0006], [1.0, 2.0, 1.5]),  # seconds, whatever the heading says
        ("Time(ms),Main(mA),Main Voltage(V)\n0,250,4\n200,500,4\n", [0.0, 0.2], [1.0, 2.0]),
        ("Capture 7\nMeter,Monsoon\nTime (s),Power (W)\n1,2\n2,3\n3", [1.0, 2.0], [2.0, 3.0]),  # a cut last line
        ("time (s),current (A),voltage (mV)\n1,2,500\n2,4,500\n", [1.0, 2.0], [1.0, 2.0]),
        ("Time (s),Power (W)\n2,3\n1,2\n1,9\n", [1.0, 2.0], [2.0, 3.0]),  # out of order, twice the same time
    ],
)
def test_formats(tmp_path, text, seconds, watts):
    (file := tmp_path / "trace.csv").write_text(text)
    trace = read_trace(file)
    assert trace.seconds == pytest.approx(np.array(seconds))
    assert trace.watts == pytest.approx(np.array(watts))
    assert not trace.absolute


def test_dates_and_unix_times_are_absolute(tmp_path):
    (file := tmp_path / "trace.csv").write_text(
        "Timestamp,Power (W)\n2026-11-21T10:00:00Z,1\n2026-11-21T11:00:01+01:00,2\n"
    )
    trace = read_trace(file)
    noon = datetime(2026, 11, 21, 10, tzinfo=UTC).timestamp()
    assert trace.absolute
    assert trace.seconds.tolist() == [noon, noon + 1]
    file.write_text("time (ms),Power (W)\n1800000000000,1\n1800000000100,2\n")
    trace = read_trace(file)
    assert trace.absolute
    assert trace.seconds == pytest.approx(np.array([1.8e9, 1.8e9 + 0.1]), rel=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no row of headings that begins with Time"),
        ("Time (s),Current (mA)\n1,2\n", "neither a power"),
        ("Time (s),Power (W)\n1,2\n", "has 1 samples"),
        ("Time (s),Power (W)\nx,y\n", "has 0 samples"),
        ("", "no row of headings"),
    ],
)
def test_files_that_are_no_trace(tmp_path, text, message):
    (file := tmp_path / "trace.csv").write_text(text)
    with pytest.raises(BenchError, match=message):
        read_trace(file)
    with pytest.raises(BenchError, match="cannot be read: No such file"):
        read_trace(tmp_path / "none.csv")


def test_energy_of_a_trace_by_hand():
    trace = PowerTrace(np.array([0.0, 1.0, 2.0]), np.array([2.0, 4.0, 0.0]), max_gap_s=1.5)
    assert trace.energy_j(0.0, 2.0) == pytest.approx(3.0 + 2.0)
    assert trace.energy_j(0.5, 1.5) == pytest.approx((3 + 4) / 4 + (4 + 2) / 4)
    with pytest.raises(BenchError, match=r"cover from 0.000 to 2.000 s"):
        trace.energy_j(0.5, 9.0)


@given(
    st.lists(st.tuples(st.floats(0.1, 1.0), st.floats(0, 50)), min_size=3, max_size=20),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_energy_adds_up(steps, one, two):
    seconds = np.cumsum([step for step, _ in steps])
    trace = PowerTrace(seconds, np.array([watts for _, watts in steps]), max_gap_s=2.0)
    length = seconds[-1] - seconds[0]
    low, high = sorted((seconds[0] + one * length, seconds[0] + two * length))
    parts = [trace.energy_j(a, b) for a, b in ((seconds[0], low), (low, high), (high, seconds[-1])) if b > a]
    assert sum(parts) == pytest.approx(trace.energy_j(seconds[0], seconds[-1]))
    assert all(part >= 0 for part in parts)


def schedule(start: float) -> list[EnergyWindow]:
    """Five rounds of idling and two pieces of work, with pauses of irregular length."""
    windows, now = [], start
    for index in range(5):
        idle = (now, now + 2)
        now += 2.2
        for pause in (0.15, 0.3 + 0.1 * index):
            windows.append(EnergyWindow(now, now + 2, 10, *idle))
            now += 2 + pause
    return windows


def trace_of(windows: list[EnergyWindow], origin: float, length: float, noise: float = 0.3, hz: int = 200) -> Recorded:
    """What a meter that was started at ``origin`` would have seen: 3 W idling, 8 W at work, a drift."""
    times = np.arange(0, length, 1 / hz)
    watts = 3 + 0.01 * times + np.random.default_rng(0).normal(0, noise, len(times))
    for window in windows:
        watts[(times + origin >= window.start - 0.1) & (times + origin < window.end)] += 5
    return Recorded(times, watts, False)


@settings(max_examples=10, deadline=None)
@given(st.floats(1, 200))
def test_a_trace_finds_its_place_by_the_pattern(before):
    windows = schedule(1.8e9)
    shift = find_shift(trace_of(windows, 1.8e9 - before, before + 60), windows)
    assert shift == pytest.approx(1.8e9 - before, abs=0.12)  # work goes on for the 0.1 s before a window


def test_a_trace_of_something_else_is_refused():
    windows = schedule(1.8e9)
    noise = Recorded(np.arange(0, 100, 0.01), np.random.default_rng(1).normal(5, 1, 10_000), False)
    with pytest.raises(BenchError, match="does not show the measurement's work and idling"):
        find_shift(noise, windows)
    with pytest.raises(BenchError, match=r"the trace lasts 10.0 s, the measurement"):
        find_shift(trace_of(windows, 1.8e9, 10), windows)
    flat = Recorded(np.arange(0.0, 100.0), np.full(100, 5.0), False)
    with pytest.raises(BenchError, match=r"correlation -1.00"):
        find_shift(flat, windows)
    with pytest.raises(BenchError, match="no energy windows"):
        find_shift(flat, [])


def test_the_start_can_be_stated(tmp_path):
    rows = "".join(f"{t},2\n" for t in range(10))
    (file := tmp_path / "trace@home.csv").write_text("Time (s),Power (W)\n" + rows)
    meter = open_meter(f"csv:{file}@2026-11-21T12:00:00+02:00")
    assert isinstance(meter, CsvMeter)
    meter.align([])
    ten = datetime(2026, 11, 21, 10, tzinfo=UTC).timestamp()
    assert meter.energy_j(Mark(ten + 2), Mark(ten + 5)) == pytest.approx(6.0)
    with pytest.raises(BenchError, match="cover"):
        meter.energy_j(Mark(ten + 600), Mark(ten + 601))
