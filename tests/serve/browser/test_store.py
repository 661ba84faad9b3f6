from __future__ import annotations

import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vitrail.core.errors import BenchError
from vitrail.serve.browser.messages import DeviceDescription, Measurement
from vitrail.serve.browser.store import Store

MODEL = "c" * 16


def describe(number: int = 1, **values) -> DeviceDescription:
    return DeviceDescription(
        **{
            "id": f"{number:032x}", "name": f"Phone {number}", "browser": "", "platform": "", "gpu": "", "cores": 1,
            "memory_gb": 0, "secure_context": True, "cross_origin_isolated": True, "simd": True, "webgpu": False,
            "clock_ms": 0.1,
        } | values
    )  # fmt: skip


def measured(number: int, **values) -> Measurement:
    fields = {"model": MODEL, "backend": "wasm", "threads": 1, "samples_ms": [1.25, 2.5], "load_ms": 3.0}
    return Measurement(**({"id": f"{number:032x}", "max_relative_error": 0.0} | fields | values))


def test_what_was_stored_is_there_after_a_crash(tmp_path):
    path = tmp_path / "new" / "devices.sqlite"
    store = Store(path)
    row, _ = store.add_device(describe())
    sent = [measured(1), measured(2, failure="out of memory", samples_ms=[])]
    for one in sent:
        assert store.add(row, one).measurement == one
    again = Store(path)  # the first one was never closed, as after kill -9
    assert [one.measurement for one in again.measurements((MODEL,))] == sent
    assert again.add(row, sent[0]) is None
    assert again.measurements(("d" * 16,)) == []
    again.close()
    store.close()


def test_readers_do_not_wait_for_writers(tmp_path):
    store = Store(tmp_path / "devices.sqlite")
    reader = sqlite3.connect(store.path, timeout=0)
    assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with store._writing():
        assert reader.execute("SELECT count(*) FROM measurement").fetchone() == (0,)
    reader.close()
    store.close()


def test_many_devices_at_once(tmp_path):
    store = Store(tmp_path / "devices.sqlite")

    def work(number):
        row, _ = store.add_device(describe(number))
        return sum(store.add(row, measured(post)) is not None for post in (1, 2, 3, 1, 2, 3))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(16))) == [3] * 16
    assert len(store.measurements((MODEL,))) == 48
    store.close()


def test_a_device_that_comes_back_keeps_its_row_and_old_results_keep_their_circumstances(tmp_path):
    store = Store(tmp_path / "devices.sqlite")
    row, _ = store.add_device(describe(secure_context=False))
    store.add(row, measured(1))
    assert store.add_device(describe(name="Mine"))[0] == row
    store.add(row, measured(2))
    first, second = store.measurements((MODEL,))
    assert (first.label, second.label) == ("Mine", "Mine")
    assert (first.description.secure_context, second.description.secure_context) == (False, True)
    store.close()


def test_a_measurement_of_an_unknown_device_is_not_kept(tmp_path):
    store = Store(tmp_path / "devices.sqlite")
    assert store.add(7, measured(1)) is None
    assert store.measurements((MODEL,)) == []
    store.close()


def foreign(path):
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE recipes (name TEXT)")
    db.commit()
    db.close()


def of_a_later_version(path):
    store = Store(path)
    store._db.execute("PRAGMA user_version = 99")
    store.close()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_text("no database at all, but long enough to look at " * 50), "not a database"),
        (foreign, "another program"),
        (of_a_later_version, "version 99"),
        (lambda path: path.mkdir(), "Is a directory"),
    ],
)
def test_a_file_of_something_else_is_left_alone(tmp_path, spoil, reason):
    path = tmp_path / "devices.sqlite"
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(BenchError, match=f"{reason}.*--database"):
        Store(path)
    assert before is None or path.read_bytes() == before


def test_two_services_that_begin_at_once_share_the_file(tmp_path, monkeypatch):
    path, connect, looks, others = tmp_path / "devices.sqlite", sqlite3.connect, [], []

    class Interrupted(sqlite3.Connection):
        """Between its first two looks at the file, another service prepares it, if it can."""

        def execute(self, *words):
            if words[0].startswith(("SELECT count", "PRAGMA application_id")):
                looks.append(words[0])
                if len(looks) == 2:
                    others.append(threading.Thread(target=lambda: Store(path).close()))
                    others[0].start()
                    others[0].join(0.2)
            return super().execute(*words)

    factories = iter([Interrupted])
    monkeypatch.setattr(
        sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=next(factories, sqlite3.Connection))
    )
    store = Store(path)
    others[0].join(20)
    row, _ = store.add_device(describe())
    assert store.add(row, measured(1)) is not None
    store.close()


def test_a_pipe_is_no_database(tmp_path):
    os.mkfifo(tmp_path / "devices.sqlite")
    with pytest.raises(BenchError, match="named pipe"):
        Store(tmp_path / "devices.sqlite")
