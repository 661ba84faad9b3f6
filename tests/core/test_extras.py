"""What is missing is named: a package, or a module that an installed package needs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vitrail.core.errors import MissingDependencyError
from vitrail.core.extras import import_extra


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution "tiny-runtime" with the module ``tinyruntime``, whose code each test writes."""
    (tmp_path / "tiny_runtime-1.0.dist-info").mkdir()
    (tmp_path / "tiny_runtime-1.0.dist-info" / "METADATA").write_text("Name: tiny-runtime\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tinyruntime", raising=False)
    return tmp_path / "tinyruntime.py"


def message(module: str = "tinyruntime", package: str = "tiny-runtime", then: str = "") -> str:
    with pytest.raises(MissingDependencyError) as caught:
        import_extra(module, package, "tiny", then)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_package_that_is_there(package: Path) -> None:
    package.write_text("ANSWER = 42")
    assert import_extra("tinyruntime", "tiny-runtime", "tiny").ANSWER == 42


def test_a_package_that_is_not_installed() -> None:
    text = message("no_such_module", "no-such-package", then="pip install more")
    wanted = "no-such-package is not installed; install it with: pip install 'vitrail[tiny]' && pip install more"
    assert text == wanted


@pytest.mark.parametrize("code", ["import nowhere.yaml", "from nowhere import yaml", "from nowhere.yaml import load"])
def test_a_module_that_an_installed_package_needs(code: str, package: Path) -> None:
    package.write_text(code)
    assert message().startswith(
        "tiny-runtime needs the module nowhere, which is not installed; install what is missing"
    )


def test_a_part_of_the_package_that_is_missing(package: Path) -> None:
    package.write_text("")
    assert message("tinyruntime.runtime").startswith("tiny-runtime needs the module tinyruntime.runtime, which is not")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("from json import no_such_name", "does not load: cannot import name 'no_such_name' from 'json'"),
        ("raise ImportError('libtiny.so: cannot open shared object file')", "does not load: libtiny.so: cannot open"),
        (
            "raise OSError('libtiny.so: undefined symbol')",
            "installed and does not load: libtiny.so: undefined symbol",
        ),
        ("raise RuntimeError('first line\\nsecond line')", "does not load: first line; install what is missing with"),
        ("raise AttributeError", "does not load: AttributeError"),
    ],
)
def test_a_package_that_does_not_load(code: str, words: str, package: Path) -> None:
    package.write_text(code)
    assert words in message()


def test_a_package_whose_own_module_is_hidden(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package.write_text("")
    monkeypatch.setitem(sys.modules, "tinyruntime", None)
    assert message().startswith("tiny-runtime is not installed")
