from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from vitrail.bench.conditions import Conditions, drift_of, pinned, warnings_of, watch
from vitrail.core.errors import BenchError


def sysfs(root: Path, mhz: int, degrees: int, throttled: int) -> Path:
    """Two cores and two sensors, as Linux shows them."""
    for core in (0, 1):
        folder = root / "devices/system/cpu" / f"cpu{core}"
        (folder / "cpufreq").mkdir(parents=True, exist_ok=True)
        (folder / "thermal_throttle").mkdir(exist_ok=True)
        (folder / "cpufreq/scaling_cur_freq").write_text(f"{(mhz + 200 * core) * 1000}\n")
        (folder / "cpufreq/scaling_governor").write_text("schedutil\n")
        (folder / "thermal_throttle/core_throttle_count").write_text(f"{throttled}\n")
    for zone, more in ((0, 0), (1, 20)):
        folder = root / "class/thermal" / f"thermal_zone{zone}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "temp").write_text(f"{(degrees + more) * 1000}\n")
    return root


def test_clock_heat_and_throttling_are_compared(tmp_path):
    tell = watch(sysfs(tmp_path, 2900, 40, 7))
    sysfs(tmp_path, 1700, 75, 9)
    seen = tell()
    assert seen.frequency_mhz == (3000.0, 1800.0)
    assert seen.temperature_c == (60.0, 95.0)
    assert seen.num_throttled == 4
    assert seen.governor == "schedutil"
    found = warnings_of(seen, None, 50)
    assert "the clock fell from 3000 to 1800 MHz" in found
    assert "heat slowed cores down 4 times" in found


def test_a_system_that_tells_nothing(tmp_path):
    seen = watch(tmp_path)()
    assert (seen.frequency_mhz, seen.governor, seen.temperature_c, seen.num_throttled) == (None, None, None, None)


def test_other_programs_are_what_the_system_did_beyond_us(monkeypatch, tmp_path):
    from types import SimpleNamespace

    class Times(tuple):
        """user, system, idle"""

        idle = property(lambda self: self[2])

    busy = iter([Times((10.0, 5.0, 100.0)), Times((22.0, 6.0, 107.0))])  # 13 s of work
    clock = iter([0.0, 10.0])
    own = iter([1.0, 4.0])  # of which 3 s are ours
    monkeypatch.setattr("vitrail.bench.conditions.psutil", SimpleNamespace(cpu_times=lambda: next(busy)))
    times = SimpleNamespace(perf_counter=lambda: next(clock), process_time=lambda: next(own))
    monkeypatch.setattr("vitrail.bench.conditions.time", times)
    seen = watch(tmp_path)()
    assert seen.other_cores == 1.0
    assert warnings_of(seen, None, 50) == ("other programs used 1.0 cores meanwhile",)


def test_quiet_conditions_warn_of_nothing():
    quiet = Conditions(other_cores=0.1, frequency_mhz=(3000, 2900), num_throttled=0)
    assert warnings_of(quiet, 1.05, 50) == ()
    assert warnings_of(quiet, 0.8, 12) == (
        "the last quarter of runs took 0.80 times the first quarter's processor time",
        "only 12 timed runs; raise min_runs or budget_seconds",
    )


def test_drift_is_the_last_quarter_over_the_first():
    assert drift_of([1.0] * 25 + [7.0] * 50 + [1.5] * 25) == 1.5
    assert drift_of([1.0] * 7) is None
    assert drift_of([0.0] * 8) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot choose cores")
def test_all_threads_are_held_to_the_cores_and_let_go_again():
    allowed = os.sched_getaffinity(0)
    core = min(allowed)
    go, seen = threading.Event(), []
    thread = threading.Thread(target=lambda: (go.wait(10), seen.append(os.sched_getaffinity(0))))
    thread.start()  # a pool that exists before
    with pinned((core,)):
        assert os.sched_getaffinity(0) == {core}
        go.set()
        thread.join(10)
    assert seen == [{core}]
    assert os.sched_getaffinity(0) == allowed
    with pytest.raises(BenchError, match="cores=99999 are not all to be had"), pinned((99999,)):
        pass


def test_cores_on_a_system_that_cannot_choose_them(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pytest.raises(BenchError, match="cannot be chosen on this system"), pinned((0,)):
        pass
    with pinned(()):
        pass
