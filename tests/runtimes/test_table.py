"""One table of formats and runtimes, which every other part reads."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from vitrail.core.errors import UnknownNameError
from vitrail.runtimes import (
    FORMATS,
    MEASURED,
    RUNTIMES,
    USUAL_RUNTIMES,
    FormatName,
    check_formats,
    find_runtime,
    runtime_title,
)

EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_every_format_has_a_file_name_and_a_runtime_that_checks_it() -> None:
    assert list(FORMATS) == [*get_args(FormatName)]
    assert len({known.suffix for known in FORMATS.values()}) == len(FORMATS)
    for name, known in FORMATS.items():
        assert name in RUNTIMES[known.runtime].formats


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_runtime_has_a_module_or_is_a_browsers(name: str) -> None:
    known = RUNTIMES[name]
    assert (known.device == "browser") == (not known.module) == bool(known.backend) == (not known.package)
    if known.module:
        assert importlib.util.find_spec(f"vitrail.runtimes.{known.module}") is not None
    assert known.extra in ("", *EXTRAS)
    assert set(known.formats) <= {*FORMATS}


def test_what_is_measured_unasked_needs_no_extra() -> None:
    assert USUAL_RUNTIMES == ("torch", "torch-compile", "onnxruntime", "openvino")
    assert all(RUNTIMES[name].module for name in MEASURED)
    assert not [name for name in USUAL_RUNTIMES if RUNTIMES[name].extra]
    assert [name for name in MEASURED if RUNTIMES[name].executes_integers] == ["onnxruntime", "openvino"]
    assert [name for name in MEASURED if RUNTIMES[name].batch_size == 1] == ["executorch", "litert"]


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown format 'onxx'; did you mean onnx"):
        check_formats(["openvino", "onxx"])
    with pytest.raises(UnknownNameError, match="unknown runtime 'zzz'; there are torch, torch-compile, onnxruntime"):
        find_runtime("zzz")
    with pytest.raises(UnknownNameError, match="unknown runtime 'onnxruntime-web'"):
        find_runtime("onnxruntime-web")  # it does not run here
    assert (runtime_title("litert"), runtime_title("of-tomorrow")) == ("LiteRT", "of-tomorrow")


def test_the_table_is_read_without_any_library() -> None:
    code = "import sys, vitrail.runtimes; print([m for m in sys.argv[1].split() if m in sys.modules])"
    command = [sys.executable, "-c", code, "torch onnxruntime openvino"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"
