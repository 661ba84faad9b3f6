"""The battery of an Android device over adb: voltage times current, about once a second.

Fuel gauges update their values every quarter of a second to some seconds, so that windows are long. A charging phone
does not show its consumption: it has to be unplugged and reached by wireless adb. Vendors differ in the sign and the
unit of the current; its absolute value is taken, and numbers too small for microamperes are milliamperes.

Source: Documentation/ABI/testing/sysfs-class-power of the Linux kernel; ``BatteryService`` of Android.
"""

from __future__ import annotations

import re
import shutil
import subprocess

from vitrail.bench.energy.sampler import PowerSampler
from vitrail.core.errors import BenchError

INTERVAL_S = 1.0
TIMEOUT_S = 10.0
LEAST_UA = 10_000
"""A running device draws more than 10 mA, hence smaller numbers are in milliamperes."""

QUESTION = (
    "for f in current_now voltage_now; do echo $f $(cat /sys/class/power_supply/battery/$f 2>/dev/null); done; "
    "echo service $(cmd battery get current_now 2>/dev/null); dumpsys battery"
)
"""One command for all values. Many devices deny the shell the files; newer ones answer through the service."""

CHARGING = re.compile(r"^\s*(\w+) powered: true", re.MULTILINE)


def open_battery(serial: str = "") -> PowerSampler:
    """A meter of an Android device.

    Args:
        serial: name of the device in ``adb devices``; may be left out where there is one device.

    Raises:
        BenchError: no adb, no or several devices, a device that charges or does not tell its current.
    """
    adb = shutil.which("adb")
    if adb is None:
        raise BenchError("adb is not installed; install Android's platform tools, or use another meter")
    serial = serial or _only_device(adb)
    return PowerSampler(
        lambda: parse_power(_ask(adb, serial), serial),
        interval_s=INTERVAL_S,
        source="battery",
        reads="battery voltage x current",
        place=serial,
        settle_seconds=3.0,
    ).start()


def parse_power(answer: str, serial: str = "the device") -> float:
    """Watts from the answer to :data:`QUESTION`.

    Raises:
        BenchError: the device charges, or tells no current or no voltage.
    """
    if found := CHARGING.search(answer):
        raise BenchError(
            f"{serial} is charging ({found[1]}), its battery tells nothing; connect by wireless adb (adb tcpip 5555, "
            "adb connect) and unplug it"
        )
    current = _number(answer, r"^current_now (-?\d+)") or _number(answer, r"^service (-?\d+)")
    milliamperes = _number(answer, r"^\s*current now: (-?\d+)")
    if current is None and milliamperes is None:
        raise BenchError(f"{serial} does not tell its battery's current to adb; use an external meter (csv:FILE)")
    amperes = (
        abs(milliamperes or 0) / 1e3 if current is None else abs(current) / (1e6 if abs(current) >= LEAST_UA else 1e3)
    )
    microvolts, millivolts = _number(answer, r"^voltage_now (\d+)"), _number(answer, r"^\s*voltage: (\d+)")
    if not microvolts and not millivolts:
        raise BenchError(f"{serial} does not tell its battery's voltage to adb; use an external meter (csv:FILE)")
    volts = microvolts / 1e6 if microvolts else (millivolts or 0) / 1e3
    return amperes * volts


def _number(text: str, pattern: str) -> float | None:
    found = re.search(pattern, text, re.MULTILINE)
    return float(found[1]) if found else None


def _only_device(adb: str) -> str:
    lines = _run([adb, "devices"], "adb").splitlines()[1:]
    serials = [line.split("\t")[0] for line in lines if line.endswith("\tdevice")]
    if len(serials) != 1:
        there = f"{len(serials)} devices ({', '.join(serials)})" if serials else "no device"
        raise BenchError(f"adb sees {there}; connect one, or name it: battery:SERIAL")
    return serials[0]


def _ask(adb: str, serial: str) -> str:
    return _run([adb, "-s", serial, "shell", QUESTION], serial)


def _run(command: list[str], what: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{what} does not answer: {type(error).__name__}; connect it again") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise BenchError(f"{what} does not answer: {reason}; connect it again")
    return done.stdout
