"""The whole measurement on a machine whose power is known: the answer is P x T / N, whatever the meter."""

from __future__ import annotations

import dataclasses
import json
import random

import numpy as np
import pytest
from hypothesis import given, strategies as st

from vitrail.bench.energy import Energy, EnergyWindow, attach_trace, measure_energy
from vitrail.bench.energy.csv_trace import CsvMeter
from vitrail.bench.energy.estimate import CpuTimeEstimate
from vitrail.bench.energy.rapl import RaplMeter
from vitrail.bench.energy.windows import Work, confidence
from vitrail.core.errors import BenchError


def candidates(world) -> dict[str, Work]:
    """40 ms at 10 W above idling are 400 mJ; 10 ms at 20 W are 200 mJ, for 4 images 50 mJ each."""
    return {"slow": Work(world.work(0.04, 10.0), 1), "batch": Work(world.work(0.01, 20.0), 4)}


def measured(world, meter, **more) -> dict[str, Energy]:
    return measure_energy(candidates(world), meter, clock=world.clock, sleep=world.sleep, **more)


def test_rapl_gives_power_times_time_over_runs_although_its_counter_wraps(world, powercap):
    before = world.joules
    results = measured(world, RaplMeter(powercap), rounds=8, window_seconds=0.4)
    assert world.joules - before > 50  # from 499 J, wrapping at 500 J
    assert results["slow"].energy_mj == pytest.approx(400.0, rel=1e-4)
    assert results["batch"].energy_mj == pytest.approx(50.0, rel=1e-4)
    for result, watts in ((results["slow"], 12.0), (results["batch"], 22.0)):
        assert result.power_w == pytest.approx(watts, rel=1e-4)
        assert result.idle_power_w == pytest.approx(2.0, rel=1e-3)
        assert result.ci95_mj == pytest.approx((result.energy_mj, result.energy_mj), rel=1e-4)
        assert (result.source, result.reads, result.failure) == ("rapl", "package-0 + dram-0", None)
        assert len(result.windows) == 8
    assert sum(window.num_images for window in results["slow"].windows) == pytest.approx(8 * 10, abs=8)


def test_idling_is_measured_in_every_round(world, powercap):
    """Something else starts to draw 7 W half-way; both the idle window and the work of a round have it."""
    windows = iter(range(1000))

    def on_window() -> None:
        world.idle_w = 2.0 if next(windows) < 5 else 9.0

    results = measured(world, RaplMeter(powercap), rounds=4, window_seconds=0.4, on_window=on_window)
    assert results["slow"].energy_mj == pytest.approx(400.0, rel=1e-3)
    assert results["slow"].idle_power_w == pytest.approx((2 + 2 + 9 + 9) / 4, rel=1e-2)


def test_the_interval_covers_the_spread_of_the_rounds(world, powercap):
    noise = random.Random(3)
    work = {"a": Work(lambda: world.spend(0.04, 2 + 10 * noise.uniform(0.5, 1.5)), 1)}
    result = measure_energy(
        work, RaplMeter(powercap), rounds=6, window_seconds=0.2, clock=world.clock, sleep=world.sleep
    )["a"]
    low, high = result.ci95_mj
    assert low < 400.0 < high
    assert 10 < high - low < 300


def test_an_estimate_is_processor_time_times_watts_and_says_so(world):
    result = measured(world, CpuTimeEstimate(5.0, cpu=lambda: world.cpu), rounds=2)["slow"]
    assert result.energy_mj == pytest.approx(200.0)
    assert result.estimated
    assert result.text().startswith("≈ 200. ± ")
    assert result.text().endswith(" mJ (estimated)")


def test_an_external_trace_that_knows_no_date(world, tmp_path):
    meter, world.package = CsvMeter(tmp_path / "trace.csv"), None
    world.sleep(3.0)
    results = measured(world, meter, rounds=3)
    assert "cannot be read: No such file" in results["slow"].failure  # it is exported later
    assert len(results["slow"].windows) == 3
    world.sleep(3.0)
    times, watts = np.array(world.power).T
    grid = np.arange(0, times[-1] - times[0], 0.002)
    power = np.interp(grid, times - times[0], watts)
    rows = "".join(f"{moment:.4f},{1e3 * watt:.3f}\n" for moment, watt in zip(grid, power, strict=True))
    (tmp_path / "trace.csv").write_text("Time (s),Main Avg Power (mW)\n" + rows)
    attached = attach_trace(results, CsvMeter(tmp_path / "trace.csv"))
    assert attached["slow"].energy_mj == pytest.approx(400.0, rel=0.02)
    assert attached["batch"].energy_mj == pytest.approx(50.0, rel=0.02)
    assert attached["slow"].source == "external-csv"
    assert attached["slow"].failure is None


def test_a_meter_that_vanishes_fails_the_energy_of_all_and_raises_nothing(world, powercap):
    windows = iter(range(1000))

    def on_window() -> None:
        if next(windows) == 4:
            (powercap / "intel-rapl:0" / "energy_uj").unlink()

    results = measured(world, RaplMeter(powercap), rounds=5, window_seconds=0.4, on_window=on_window)
    for result in results.values():
        assert result.energy_mj is None
        assert "RAPL counter package-0 cannot be read any more" in result.failure
        assert 1 <= len(result.windows) <= 2


def test_a_candidate_that_breaks_leaves_and_the_others_go_on(world, powercap):
    def breaks() -> None:
        raise RuntimeError("no kernel in /secret/place/model.onnx")

    work = candidates(world) | {"broken": Work(breaks, 1)}
    results = measure_energy(
        work, RaplMeter(powercap), rounds=3, window_seconds=0.4, clock=world.clock, sleep=world.sleep
    )
    assert results["broken"].failure == "no kernel in model.onnx"
    assert results["slow"].energy_mj == pytest.approx(400.0, rel=1e-3)


def test_work_that_costs_no_more_than_idling_is_told_so(world, powercap):
    work = {"a": Work(world.work(0.04, -0.5), 1)}
    result = measure_energy(
        work, RaplMeter(powercap), rounds=3, window_seconds=0.4, clock=world.clock, sleep=world.sleep
    )["a"]
    assert result.energy_mj is None
    assert "cannot be told from idling" in result.failure
    assert result.power_w == pytest.approx(1.5, rel=1e-3)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=40))
def test_confidence(values):
    mean, (low, high) = confidence(values)
    assert low <= mean <= high
    assert mean == pytest.approx(sum(values) / len(values), abs=1e-9)


def test_confidence_by_hand():
    # mean 3, standard deviation sqrt(2.5), t(4) = 2.776: 2.776 x 1.5811 / sqrt(5) = 1.963
    assert confidence([1.0, 2.0, 3.0, 4.0, 5.0])[1] == pytest.approx((1.037, 4.963), abs=1e-3)
    assert confidence([7.0]) == (7.0, None)


def test_a_value_has_a_source_through_json_and_back():
    energy = Energy(
        source="rapl", energy_mj=1.5, ci95_mj=(1.0, 2.0), windows=(EnergyWindow(1.0, 2.0, 3, 4.0, 5.0),), reads="p"
    )
    assert Energy.from_dict(json.loads(json.dumps(dataclasses.asdict(energy)))) == energy
    assert energy.text() == "1.50 ± 0.5 mJ (rapl)"
    with pytest.raises(BenchError, match="without a source"):
        Energy.from_dict({"energy_mj": 3.0})
    with pytest.raises(BenchError, match="source 'guess' does not exist"):
        Energy.from_dict({"energy_mj": 3.0, "source": "guess"})
