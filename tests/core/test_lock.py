from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vitrail.core.errors import LockedError, VitrailError
from vitrail.core.lock import locked

HELD_FOREVER = """
import sys
from pathlib import Path
from vitrail.core.lock import locked
with locked(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_names_its_process_and_ends_with_the_block(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / ".lock"
    with locked(path, "it"), locked(path, "it"):  # the same thread may take it twice
        process, host, *_ = path.read_text().splitlines()
        assert (int(process), host.partition("?")[0]) == (os.getpid(), socket.gethostname())
    assert not list(tmp_path.iterdir())
    assert not caplog.records


def test_another_thread_is_refused(tmp_path: Path) -> None:
    caught: list[str] = []

    def contend() -> None:
        try:
            with locked(tmp_path / ".lock", "run x"):
                pass
        except LockedError as error:
            caught.append(str(error))

    with locked(tmp_path / ".lock", "run x"):
        thread = threading.Thread(target=contend)
        thread.start()
        thread.join()
    assert len(caught) == 1
    assert caught[0].startswith(f"run x is in use by process {os.getpid()} on {socket.gethostname()}; wait ")


def test_a_process_is_waited_for_and_a_killed_one_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HELD_FOREVER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match=rf"by process {holder.pid} on .*delete {path} if"), locked(path, "it"):
            pass
        holder.kill()
        holder.wait()
    with locked(path, "it"):
        assert path.read_text().startswith(f"{os.getpid()}\n")
    assert [record.getMessage().startswith(f"it was in use by process {holder.pid}") for record in caplog.records] == [
        True
    ]
    assert not list(tmp_path.iterdir())


def test_a_process_number_that_another_process_has_now_is_no_owner(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with locked(path, "it"):
        _, host, start = path.read_text().splitlines()
    path.write_text(f"{os.getpid()}\n{host}\n{int(start) - 1}\n")  # an earlier process with our number
    with locked(path, "it"):
        assert path.read_text().splitlines()[2] == start


@pytest.mark.parametrize("contents", [b"123\nelsewhere\n", b"", b"\xff\xfe\n", b"words\n"])
def test_what_cannot_be_known_to_have_ended_holds(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / ".lock"
    path.write_bytes(contents)
    with pytest.raises(LockedError, match=r"delete .* if it has ended already"), locked(path, "it"):
        pass
    assert path.read_bytes() == contents


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(VitrailError, match=f"cannot write {tmp_path / '.lock'}"), locked(tmp_path / ".lock", "it"):
        pass
