"""What holds for every test: shapes are checked, seeds are set, nothing reaches the network."""

from __future__ import annotations

import gc
import random
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jaxtyping
import pytest

# Before anything imports vitrail: from here on, jaxtyping's shape signatures are checked at every call.
jaxtyping.install_import_hook(["vitrail.layers", "vitrail.models"], "beartype.beartype")

import matplotlib  # noqa: E402 (after the import hook, like everything else)
import numpy as np  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

if TYPE_CHECKING:
    from vitrail.runs.run import Run

matplotlib.use("agg")
settings.register_profile("vitrail", derandomize=True, deadline=None, database=None)
settings.load_profile("vitrail")

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def pytest_configure() -> None:
    torch.set_num_threads(1)  # one core for each of the workers
    gc.set_threshold(100_000, 20, 100)  # graphs of models are many objects; looking through them often takes long


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (third parties draw from the global generator)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections leave this machine only by mistake; Unix sockets and loopback are let through."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in LOOPBACK:
            raise RuntimeError(f"a test tried to reach {address[0]}; tests use no network")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def no_shape_checks() -> Iterator[None]:
    """For tests of torch.compile, which cannot trace the checks (torch.export can)."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for users' own code; what it registers and imports is forgotten afterwards."""
    from vitrail.core import import_code, registered
    from vitrail.layers import TOKEN_MIXERS
    from vitrail.models import FAMILIES
    from vitrail.runs import remembered_code
    from vitrail.tasks import TASKS
    from vitrail.tasks.heads.semantic import HEADS

    monkeypatch.setenv(import_code.VARIABLE, "[]")
    tables: tuple[Any, ...] = (
        *(registered._REGISTERED, import_code._IMPORTED, import_code._INSTALLED, remembered_code._TOLD),
        *(TOKEN_MIXERS, FAMILIES, TASKS, HEADS),
    )
    copies, path, modules = [table.copy() for table in tables], [*sys.path], {*sys.modules}
    folder = tmp_path / "own"
    folder.mkdir()
    yield folder
    for table, copy in zip(tables, copies, strict=True):
        table.clear()
        table.update(copy)
    sys.path[:] = path
    for name in {*sys.modules} - modules:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def old_run(tmp_path: Path) -> Run:
    """A copy of a run that version 0.1.0 trained, quantised, exported, evaluated and measured."""
    from vitrail.runs.run import Run

    return Run(shutil.copytree(Path(__file__).parent / "runs" / "run-0.1.0", tmp_path / "old"))
