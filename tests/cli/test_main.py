"""The frame around the verbs: help, exit statuses, one line for every error."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cyclopts import App

import vitrail
from vitrail.cli import models
from vitrail.cli.main import VERBS, main
from vitrail.core.errors import ConfigError

Capture = pytest.CaptureFixture[str]


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make ``vitrail models`` raise."""

    def broken(pattern: str) -> list[str]:
        raise error

    monkeypatch.setattr(models, "list_models", broken)


def one_line(capsys: Capture) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == vitrail.__version__


def test_help_lists_every_verb(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    words = capsys.readouterr().out.split()
    assert {*VERBS, "--install-completion"} <= set(words)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_teaches(verb: str, capsys: Capture) -> None:
    assert main([verb, "--help"]) == 0
    page = capsys.readouterr().out
    assert page.count(f"vitrail {verb}") >= 3  # the usage line and two examples
    for option in ("--json", "--quiet", "--debug"):
        assert option in page
    descriptions = [
        line for line in page.splitlines() if line.startswith("│ --") and not line.strip("│ ").endswith("]")
    ]
    bare = [line for line in descriptions if len(line.strip("│ ").split()) < 3 and not line.startswith("│ --no-")]
    assert not bare, "every option has a description"


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["tran"]])
def test_starts_without_pytorch(words: list[str]) -> None:
    code = f"import sys; from vitrail.cli.main import main; main({words!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trai"], "vitrail: error: unknown verb 'trai'; did you mean train or pretrain?\n"),
        (["xyzzy"], f"vitrail: error: unknown verb 'xyzzy'; the verbs are {', '.join(VERBS)}\n"),
        (["models", "edgevit_xxz"], "vitrail: error: unknown model 'edgevit_xxz'; did you mean edgevit_xxs"),
        (["models", "--jsn"], "--json"),
        (["bench"], "RUN"),
        (["bench", "runs/none", "--min-runs", "many"], "--min-runs"),
        (["bench", "runs/none", "--min-runs", "0"], "--min-runs 0 is below 1; give a positive number"),
        (["bench", "runs/none"], "run folder runs/none does not exist; make one with: vitrail train --run runs/none"),
    ],
)
def test_mistakes_get_one_line_and_status_2(words: list[str], message: str, capsys: Capture) -> None:
    assert main(words) == 2
    line = one_line(capsys)
    assert line.startswith("vitrail: error: ")
    assert message in line


@pytest.mark.parametrize(
    "line", ["report ~/x", "predict ~/x a.png", "train --config=~/x", "train --config ~/x", "bench R --references=~/x"]
)
def test_the_home_folder_is_meant_by_every_option(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main([*line.split(), *(["--plot=~/y"] if "bench" in line else [])]) == 2
    assert f"{tmp_path}/x" in one_line(capsys)


def test_traceback_only_with_debug(capsys: Capture) -> None:
    assert main(["models", "nothing_like_it", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_error_of_several_lines_becomes_one(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    fail_with(monkeypatch, ConfigError("first\n  second"))
    assert main(["models"]) == 2
    assert one_line(capsys) == "vitrail: error: first second\n"


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("words", "then"),
    [
        ("evaluate runs/x", "end other programs, or lower --batch-size or --image-size, then repeat the command"),
        ("export runs/x", "end other programs, then repeat the command"),
        ("run --data a", "end other programs, then continue with: vitrail run --data a --resume"),
        ("train --resume", "end other programs, then continue with: vitrail train --resume"),
    ],
)
def test_memory_that_does_not_suffice_gets_one_line_with_options_that_exist(
    words: str, then: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fail(self: App, *_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(App, "__call__", fail)
    assert main(words.split()) == 2
    assert one_line(capsys) == f"vitrail: error: the memory of this machine is too small; {then}\n"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (lambda: chained(RuntimeError("oops"), OSError(errno.ENOSPC, "No space left")), "the disk is full"),
        (lambda: RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/0"), "the disk is full"),
        (lambda: PermissionError(errno.EACCES, "Permission denied", "runs/x"), "runs/x: Permission denied"),
    ],
)
def test_trouble_with_files_gets_one_line(
    make: Callable[[], Exception], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    fail_with(monkeypatch, make())
    assert main(["models"]) == 2
    assert message in one_line(capsys)


def test_a_bug_is_told_apart(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    fail_with(monkeypatch, TypeError("no such thing"))
    assert main(["models"]) == 1
    assert one_line(capsys).startswith("vitrail: bug: TypeError: no such thing")


def test_interruption_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert main(["models"]) == 130
    assert "start it again" in one_line(capsys)


def test_exit_that_a_library_makes_of_an_interruption(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    leaving = SystemExit(1)
    leaving.__context__ = KeyboardInterrupt()
    fail_with(monkeypatch, leaving)
    assert main(["models"]) == 130
    assert "interrupted" in one_line(capsys)


def test_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m vitrail.cli.main --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_package_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "vitrail", "trai"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean train" in done.stderr
