"""Each reader on what the kernel, the driver or the device would show."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vitrail.bench.energy import Mark, open_meter
from vitrail.bench.energy.battery import open_battery, parse_power
from vitrail.bench.energy.estimate import CpuTimeEstimate
from vitrail.bench.energy.jetson import find_rails, open_ina
from vitrail.bench.energy.nvml import open_nvml
from vitrail.bench.energy.rapl import RaplMeter
from vitrail.bench.energy.sampler import PowerSampler
from vitrail.core.errors import BenchError, ConfigError, MissingDependencyError


def test_rapl_adds_packages_and_memory_and_nothing_twice(powercap):
    meter = RaplMeter(powercap)
    assert meter.reads == "package-0 + dram-0"
    start = meter.mark()
    (powercap / "intel-rapl:0" / "energy_uj").write_text("499500000")
    (powercap / "intel-rapl:0:2" / "energy_uj").write_text("499250000")
    (powercap / "intel-rapl:1" / "energy_uj").write_text("1")  # psys, which contains both
    (powercap / "intel-rapl:0:0" / "energy_uj").write_text("1")  # core, which is inside the package
    assert meter.energy_j(start, meter.mark()) == pytest.approx(0.75)


def test_rapl_counter_wraps_around(powercap, world):
    meter = RaplMeter(powercap)
    start = meter.mark()
    world.spend(0.3, 10.0)  # 499 J + 3 J wraps at 500 J
    assert int((powercap / "intel-rapl:0" / "energy_uj").read_text()) < 10_000_000
    assert meter.energy_j(start, meter.mark()) == pytest.approx(3.0, abs=1e-5)


def test_rapl_refuses_windows_that_may_wrap_twice(powercap, world):
    meter = RaplMeter(powercap)
    start = meter.mark()
    world.spend(0.6, 1.0)
    with pytest.raises(BenchError, match="may wrap RAPL's package-0 counter twice; keep energy_seconds below"):
        meter.energy_j(start, meter.mark())


def test_rapl_says_how_to_get_the_permission(powercap, monkeypatch):
    read = Path.read_text

    def forbidden(path, *args, **kwargs):
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", forbidden)
    with pytest.raises(BenchError, match=r"package-0 may be read by root only; .* sudo chmod -R a\+r"):
        RaplMeter(powercap)


def test_rapl_counter_that_vanishes_or_is_garbage(powercap, tmp_path):
    meter = RaplMeter(powercap)
    (powercap / "intel-rapl:0:2" / "energy_uj").unlink()
    with pytest.raises(BenchError, match="dram-0 cannot be read any more"):
        meter.mark()
    with pytest.raises(BenchError, match="dram cannot be read: No such file"):
        RaplMeter(powercap)
    with pytest.raises(BenchError, match="no RAPL counters here"):
        RaplMeter(tmp_path / "nothing")
    (powercap / "intel-rapl:0:2" / "energy_uj").write_text("watts\n")
    with pytest.raises(BenchError, match="dram cannot be read: invalid literal"):
        RaplMeter(powercap)


def hwmon(tree: Path, number: int, chip: str, values: dict[str, object]) -> None:
    folder = tree / f"hwmon{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(chip + "\n")
    for name, value in values.items():
        (folder / name).write_text(f"{value}\n")


def channel(number: int, label: str, millivolts: int, milliamperes: int, **more: object) -> dict[str, object]:
    named = {f"in{number}_label": label, f"in{number}_input": millivolts, f"curr{number}_input": milliamperes}
    return named | {f"in{number}_{key}": value for key, value in more.items()}


def test_the_rail_of_the_whole_board_is_read_alone(tmp_path):
    hwmon(tmp_path, 0, "nct6775", channel(1, "Vcore", 1000, 9000))  # no INA
    orin_nano = channel(1, "VDD_IN", 5000, 1200) | channel(2, "VDD_CPU_GPU_CV", 5000, 400)
    orin_nano |= {"in7_label": "Sum of shunt voltages", "in7_input": 3, "curr7_input": 3}
    hwmon(tmp_path, 1, "ina3221", orin_nano)
    meter = open_ina(tmp_path)
    try:
        assert (meter.source, meter.reads) == ("jetson", "VDD_IN")
        assert [rail.name for rail in find_rails(tmp_path)] == ["VDD_IN", "VDD_CPU_GPU_CV"]
        assert find_rails(tmp_path)[0].watts() == pytest.approx(6.0)
    finally:
        meter.close()


def test_boards_without_such_a_rail_are_the_sum_of_their_rails(tmp_path):
    agx = channel(1, "VDD_GPU_SOC", 19000, 100) | channel(2, "VDD_CPU_CV", 19000, 50, enable=1)
    agx |= channel(3, "VIN_SYS_5V0", 5000, 200) | channel(4, "OFF", 5000, 999, enable=0)
    hwmon(tmp_path, 3, "ina3221", agx)
    rails = find_rails(tmp_path)
    assert [rail.name for rail in rails] == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]
    assert sum(rail.watts() for rail in rails) == pytest.approx(1.9 + 0.95 + 1.0)


def test_a_sensor_that_multiplies_by_itself_is_one_rail_and_no_jetson(tmp_path):
    hwmon(tmp_path, 0, "ina219", {"power1_input": 2_500_000, "in1_input": 5000, "curr1_input": 500})
    meter = open_ina(tmp_path)
    try:
        assert (meter.source, meter.reads) == ("ina", "ina219 power1")
        assert [rail.watts() for rail in find_rails(tmp_path)] == [2.5]
    finally:
        meter.close()
    (tmp_path / "hwmon0" / "power1_input").unlink()
    with pytest.raises(BenchError, match="hwmon0/power1_input cannot be read: No such file"):
        meter.mark()


class FakeNvml:
    """The part of pynvml that is asked, with the errors it has."""

    class NVMLError(Exception): ...

    class NVMLError_NotSupported(NVMLError): ...  # noqa: N801, N818 (its name)

    def __init__(self, counter: bool = True) -> None:
        self.counter, self.millijoules, self.lost = counter, 10_000_000, False

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, device: int) -> bytes:  # noqa: N802
        return b"NVIDIA T4"

    def nvmlDeviceGetTotalEnergyConsumption(self, device: int) -> int:  # noqa: N802
        if self.lost:
            raise self.NVMLError("GPU is lost")
        if not self.counter:
            raise self.NVMLError_NotSupported
        return self.millijoules

    def nvmlDeviceGetPowerUsage(self, device: int) -> int:  # noqa: N802
        return 70_000


def test_nvml_counter(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", fake := FakeNvml())
    meter = open_nvml(1)
    assert (meter.source, meter.reads) == ("nvml", "GPU 1, NVIDIA T4")
    start = meter.mark()
    fake.millijoules += 12_345
    assert meter.energy_j(start, meter.mark()) == pytest.approx(12.345)
    fake.millijoules = 0
    with pytest.raises(BenchError, match="driver was loaded again"):
        meter.energy_j(start, meter.mark())
    fake.lost = True
    with pytest.raises(BenchError, match="NVML stopped answering: GPU is lost"):
        meter.mark()


def test_nvml_without_a_counter_samples_power(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(counter=False))
    meter = open_nvml()
    try:
        start = meter.mark()
        end = meter.mark()
        assert meter.energy_j(start, end) == pytest.approx(70 * (end.unix_s - start.unix_s))
        assert meter.reads == "GPU 0, NVIDIA T4, power"
    finally:
        meter.close()


def test_nvml_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    with pytest.raises(BenchError, match="nvml:2 does not exist; there are 2 GPUs"):
        open_nvml(2)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingDependencyError, match=r"vitrail\[energy\]"):
        open_nvml()


def test_nvml_without_a_driver(monkeypatch):
    pynvml = pytest.importorskip("pynvml", reason="the extra 'energy' is not installed")
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: (_ for _ in ()).throw(pynvml.NVMLError(9)))
    with pytest.raises(BenchError, match="NVML cannot be used here: Driver Not Loaded"):
        open_nvml()


DUMPSYS = """Current Battery Service state:
  AC powered: false
  USB powered: false
  Max charging current: 0
  status: 3
  level: 84
  voltage: 4063
  temperature: 326
"""


@pytest.mark.parametrize(
    ("answer", "watts"),
    [
        ("current_now -251000\nvoltage_now 4000000\nservice \n" + DUMPSYS, 1.004),  # microamperes, negative
        ("current_now 251000\nvoltage_now\nservice\n" + DUMPSYS, 0.251 * 4.063),  # voltage from the service
        ("current_now -321\nvoltage_now 4000000\nservice\n" + DUMPSYS, 1.284),  # milliamperes
        ("current_now\nvoltage_now\nservice -500000\n" + DUMPSYS, 0.5 * 4.063),
        ("current_now\nvoltage_now\nservice\n" + DUMPSYS + "  current now: 321\n", 0.321 * 4.063),
    ],
)
def test_battery_power_of_several_vendors(answer, watts):
    assert parse_power(answer) == pytest.approx(watts)


def test_a_battery_that_tells_nothing():
    with pytest.raises(BenchError, match=r"is charging \(USB\).*wireless adb"):
        parse_power(
            "current_now 900000\nvoltage_now 4000000\n" + DUMPSYS.replace("USB powered: false", "USB powered: true")
        )
    with pytest.raises(BenchError, match="does not tell its battery's current"):
        parse_power(DUMPSYS)
    with pytest.raises(BenchError, match="does not tell its battery's voltage"):
        parse_power("current_now 900000\n")


@pytest.fixture
def adb(tmp_path, monkeypatch) -> Path:
    """A folder with a pretended adb first on the path; ``devices`` and ``answer`` say what it prints."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "adb"
    script.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = devices ]; then cat {folder}/devices; exit; fi\n'
        f'[ "$1 $2 $3" = "-s pixel:5555 shell" ] && [ -f {folder}/answer ] || {{ echo "error: closed" >&2; exit 1; }}\n'
        f"cat {folder}/answer\n"
    )
    script.chmod(0o755)
    (folder / "devices").write_text("List of devices attached\npixel:5555\tdevice\nold\toffline\n\n")
    (folder / "answer").write_text("current_now -250000\nvoltage_now 4000000\nservice\n" + DUMPSYS)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_battery_over_adb(adb):
    meter = open_battery()
    try:
        assert (meter.source, meter.place) == ("battery", "pixel:5555")
        start, end = meter.mark(), meter.mark()
        assert meter.energy_j(start, end) == pytest.approx(1.0 * (end.unix_s - start.unix_s))
        (adb / "answer").unlink()
        with pytest.raises(BenchError, match="pixel:5555 does not answer: error: closed; connect it again"):
            meter.mark()
    finally:
        meter.close()


def test_which_device_must_be_clear(adb, monkeypatch):
    (adb / "devices").write_text("List of devices attached\n\n")
    with pytest.raises(BenchError, match="adb sees no device; connect one"):
        open_battery()
    (adb / "devices").write_text("List of devices attached\na\tdevice\nb\tdevice\n")
    with pytest.raises(BenchError, match=r"2 devices \(a, b\).*battery:SERIAL"):
        open_battery()
    monkeypatch.setenv("PATH", str(adb / "nowhere"))
    with pytest.raises(BenchError, match="adb is not installed"):
        open_battery()


def test_estimate_is_processor_time_times_what_was_stated():
    cpu = iter((3.0, 5.5))
    meter = CpuTimeEstimate(4.0, cpu=lambda: next(cpu))
    assert meter.source == "estimated"
    assert meter.energy_j(meter.mark(), meter.mark()) == pytest.approx(10.0)
    assert "4 W" in meter.reads


def sampler(readings: list[float], times: list[float], interval_s: float = 1.0) -> PowerSampler:
    values, moments = iter(readings), iter([t for t in times for _ in (0, 1)])
    return PowerSampler(
        lambda: next(values), interval_s=interval_s, source="ina", reads="rail", now=lambda: next(moments)
    )


def test_samples_are_integrated_between_marks():
    meter = sampler([2.0, 4.0, 4.0, 0.0], [10.0, 11.0, 12.0, 13.0])
    start = meter.mark()
    meter.sample()
    meter.sample()
    assert meter.energy_j(start, meter.mark()) == pytest.approx(3.0 + 4.0 + 2.0)
    assert meter.energy_j(Mark(10.5), Mark(12.0)) == pytest.approx(1.75 + 4.0)


def test_a_silent_meter_is_noticed():
    meter = sampler([2.0, 2.0], [10.0, 17.0])
    with pytest.raises(BenchError, match=r"silent for 7.00 s of a window \(allowed: 5.00 s\)"):
        meter.energy_j(meter.mark(), meter.mark())


def test_the_thread_reads_until_the_meter_is_gone():
    import threading

    many = threading.Event()
    count = iter(range(100))

    def read() -> float:
        if next(count) == 5:
            many.set()
            raise BenchError("the sensor is gone; measure again")
        return 1.0

    meter = PowerSampler(read, interval_s=0.001, source="ina", reads="rail").start()
    assert many.wait(10)
    meter.close()
    with pytest.raises(BenchError, match="the sensor is gone"):
        meter.mark()


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("wattmeter", "no meter; there are auto, rapl, nvml"),
        ("rapl:0", "rapl takes nothing after a colon"),
        ("nvml:x", "number of a GPU"),
        ("estimate", "watts that a busy core adds"),
        ("estimate:-3", "watts that a busy core adds"),
        ("estimate:nan", "watts that a busy core adds"),
        ("csv:", "needs a file"),
        ("csv:trace.csv@noon", "'noon' is no time"),
    ],
)
def test_bad_choices(choice, message):
    with pytest.raises(ConfigError, match=message):
        open_meter(choice)


def test_auto_never_falls_back_to_an_estimate(monkeypatch):
    def missing(*_: object) -> None:
        raise BenchError("nothing here; use another meter")

    monkeypatch.setattr("vitrail.bench.energy.choose.RaplMeter", missing)
    monkeypatch.setattr("vitrail.bench.energy.choose.open_ina", missing)
    with pytest.raises(BenchError, match="no energy meter works here: nothing here; nothing here; give csv:FILE"):
        open_meter("auto")
    monkeypatch.setattr("vitrail.bench.energy.choose.open_ina", lambda: SimpleNamespace(source="jetson"))
    assert open_meter("auto").source == "jetson"
    assert open_meter("estimate:5").source == "estimated"
