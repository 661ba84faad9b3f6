"""Results of all devices in one SQLite file. What was stored is on the disk when the device is told so."""

from __future__ import annotations

import sqlite3
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vitrail.core.errors import BenchError
from vitrail.core.files import check_regular
from vitrail.core.parse import parse_json
from vitrail.serve.browser.messages import DeviceDescription, Measurement

APPLICATION_ID = 0x56697472  # "Vitr"
VERSION = 1
"""Of the tables and of the messages in them."""

SCHEMA = """
CREATE TABLE device (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, label TEXT NOT NULL UNIQUE, description TEXT NOT NULL,
    joined TEXT NOT NULL
);
CREATE TABLE measurement (
    device INTEGER NOT NULL REFERENCES device (id), key TEXT NOT NULL, model TEXT NOT NULL, backend TEXT NOT NULL,
    threads INTEGER NOT NULL, received TEXT NOT NULL, result TEXT NOT NULL, samples_ms BLOB NOT NULL,
    device_then TEXT NOT NULL, PRIMARY KEY (device, key)
);
CREATE INDEX of_model ON measurement (model);
"""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A measurement as it lies in the file.

    Attributes:
        device: row of the device.
        label: how the device is called, different from all others.
        description: what the device said of itself when it joined for this measurement.
        received: when, UTC.
        measurement: what it sent.
    """

    device: int
    label: str
    description: DeviceDescription
    received: str
    measurement: Measurement


class Store:
    """The SQLite file, in WAL mode so that others can read while devices write. Methods may be called by any thread.

    Raises:
        BenchError: the file cannot be opened, or is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                check_regular(path)
            self._db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise BenchError(
                f"{path} cannot be used as the database of devices: {reason}; choose another with --database"
            ) from error

    def _prepare(self) -> None:
        with self._writing():  # or a process that looks meanwhile would see half of the preparation
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            (application,) = self._db.execute("PRAGMA application_id").fetchone()
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if tables and application != APPLICATION_ID:
                raise sqlite3.DatabaseError("it belongs to another program")
            if tables and version != VERSION:
                raise sqlite3.DatabaseError(f"it is of version {version}, and this Vitrail writes version {VERSION}")
            if not tables:
                for statement in SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {VERSION}")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")

    def close(self) -> None:
        """Fold the log into the file; other methods must not be called any more."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def add_device(self, device: DeviceDescription) -> tuple[int, str]:
        """Its row and its label: the name that it gave, with a number where another device has that name."""
        text = device.model_dump_json()
        with self._writing():
            label = self._free_label(device)
            (row,) = self._db.execute(
                "INSERT INTO device (key, label, description, joined) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET label = excluded.label, description = excluded.description "
                "RETURNING id",
                (device.id, label, text, _now()),
            ).fetchone()
            return row, label

    def rename_device(self, row: int, device: DeviceDescription) -> str | None:
        """The label of a device that describes itself anew; None if the row is of another device."""
        with self._writing():
            label = self._free_label(device)
            changed = self._db.execute(
                "UPDATE device SET label = ?, description = ? WHERE id = ? AND key = ?",
                (label, device.model_dump_json(), row, device.id),
            )
            return label if changed.rowcount == 1 else None

    def _free_label(self, device: DeviceDescription) -> str:
        taken = {label for (label,) in self._db.execute("SELECT label FROM device WHERE key != ?", (device.id,))}
        number, label = 1, device.name
        while label in taken:
            number += 1
            label = f"{device.name} ({number})"
        return label

    def add(self, device: int, measurement: Measurement) -> Stored | None:
        """Keep a measurement; None if the device had sent it before, which changes nothing."""
        rest = measurement.model_dump_json(exclude={"samples_ms"})
        samples = array("d", measurement.samples_ms).tobytes()
        with self._writing():
            added = self._db.execute(
                "INSERT INTO measurement SELECT id, ?, ?, ?, ?, ?, ?, ?, description FROM device WHERE id = ? "
                "ON CONFLICT DO NOTHING",
                (measurement.id, measurement.model, measurement.backend, measurement.threads, _now(), rest, samples,
                 device),
            )  # fmt: skip
            if added.rowcount != 1:
                return None
            return self._read("m.rowid = ?", (added.lastrowid,))[0]

    def measurements(self, models: tuple[str, ...]) -> list[Stored]:
        """Everything that is known of these models, oldest first."""
        marks = ", ".join("?" * len(models))
        with self._lock:
            return self._read(f"m.model IN ({marks})", models)

    def _read(self, condition: str, values: tuple[Any, ...]) -> list[Stored]:
        rows = self._db.execute(
            "SELECT d.id, d.label, m.device_then, m.received, m.result, m.samples_ms FROM measurement m "
            f"JOIN device d ON d.id = m.device WHERE {condition} ORDER BY m.rowid",
            values,
        ).fetchall()
        return [_stored(*row) for row in rows]


def _stored(device: int, label: str, description: str, received: str, result: str, samples: bytes) -> Stored:
    values: dict[str, Any] = parse_json(result) | {"samples_ms": list(array("d", samples))}
    return Stored(
        device=device,
        label=label,
        description=DeviceDescription.model_validate_json(description),
        received=received,
        measurement=Measurement.model_validate(values),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
