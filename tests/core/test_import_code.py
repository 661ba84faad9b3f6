"""Own code is imported by file or by name; whatever is wrong with it is one line with the place."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vitrail.core import import_code as importing
from vitrail.core.errors import CodeError
from vitrail.core.import_code import VARIABLE, import_code, import_listed, imported_code, load_installed


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_imported_once_and_again_when_it_has_changed(own_code: Path) -> None:
    path = write(own_code, "mine.py", "from __future__ import annotations\nclass A: pass\nVALUE = 1\n")
    module = import_code(path)
    assert import_code(path) is module is sys.modules["mine"]
    assert imported_code() == json.loads(os.environ[VARIABLE]) == [str(path)]
    assert pickle.loads(pickle.dumps(module.A)) is module.A
    size, times = path.stat().st_size, path.stat()
    path.write_text(path.read_text().replace("1", "2"))
    os.utime(path, (times.st_atime, times.st_mtime))  # Python's own cache would take it for the old one
    assert path.stat().st_size == size
    again = import_code(path)
    assert (again.VALUE, again is module) == (2, False)


@pytest.mark.parametrize("name", ["with space.py", "größe.py", "kebab-case.py", "1st.py"])
def test_odd_names_are_names(own_code: Path, name: str) -> None:
    assert import_code(write(own_code, name, "VALUE = 3\n")).VALUE == 3


def test_packages_files_beside_and_module_names(own_code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(own_code, "pack/__init__.py", "")
    write(own_code, "pack/parts.py", "VALUE = 1\n")
    file = write(own_code, "pack/models.py", "from .parts import VALUE\n")
    assert import_code(file).__name__ == "pack.models"
    assert import_code(own_code / "pack").__name__ == "pack"
    write(own_code, "beside.py", "VALUE = 4\n")
    assert import_code(write(own_code, "uses.py", "from beside import VALUE\n")).VALUE == 4
    assert import_code("beside").VALUE == 4
    monkeypatch.chdir(own_code)
    assert import_code("uses.py") is sys.modules["uses"]
    configuration = write(own_code, "there/plan.yaml", "")
    write(own_code, "there/local.py", "")
    import_listed(["local.py"], configuration)
    import_listed("../beside.py", configuration)
    assert "local" in sys.modules


def test_what_it_prints_is_no_output(own_code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_code(write(own_code, "loud.py", "print('hello')\n"))
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "hello\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\ny = 1 / 0\n", r"line 2: ZeroDivisionError: division by zero"),
        ("def f(:\n", r"line 1: SyntaxError: "),
        ("x = 'a\0b'\n", r"SyntaxError: .*null bytes"),
        ("import sys\nsys.exit(3)\n", r"line 2: it ends the program \(SystemExit\)"),
        ("import nowhere_at_all\n", r"line 1: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("from .parts import x\n", r"relative imports need a package: put an __init__.py"),
        ("raise KeyError\n", r"line 1: KeyError; mend it"),
        ("def f():\n  f()\nf()\n", r"line 2: RecursionError"),
        ("from wrong_beside import x\n", r"line 1: .*wrong_beside.py, line 2: ZeroDivisionError"),
        ("raise ValueError('a\\nb' * 500)\n", r"^.{0,400}$"),
    ],
)
def test_what_fails_is_one_line_with_its_place(own_code: Path, text: str, told: str) -> None:
    write(own_code, "wrong_beside.py", "\n1 / 0\n")
    path = write(own_code, "wrong.py", text)
    with pytest.raises(CodeError, match=told) as caught:
        import_code(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert "wrong" not in sys.modules
    assert imported_code() == []
    write(own_code, "wrong.py", "VALUE = 1\n")
    assert import_code(path).VALUE == 1


def test_only_python_files_of_free_names_are_imported(own_code: Path) -> None:
    first, second = write(own_code, "a/mine.py", ""), write(own_code, "b/mine.py", "")
    import_code(first)
    os.mkfifo(own_code / "pipe.py")
    (own_code / "folder").mkdir()
    write(own_code, "lonely/here.py", "")
    write(own_code, "big.py", "#" * (importing.MAX_BYTES + 1))
    for what, told in {
        second: "another module is called 'mine'",
        own_code / "pipe.py": "named pipe",
        own_code / "folder": "no package",
        own_code / "none.py": "No such file",
        own_code / "big.py": "more than",
        write(own_code, "random.py", ""): "'random' is the name of a module of Python",
        write(own_code, "vitrail.py", ""): "'vitrail' is the name of a module",
        write(own_code, "yaml.py", ""): "another module is called 'yaml'",
        write(own_code, "my.models.py", ""): "'my.models' has a dot",
        write(own_code, "notes.txt", ""): "does not end in .py; rename it",
        write(own_code, "book.ipynb", ""): "save the notebook as a script first",
        "nowhere_at_all": "--import nowhere_at_all.py",
        "..x": "no name of a module",
        "": "no path",
        "a\0b.py": "null byte",
    }.items():
        with pytest.raises(CodeError, match=told):
            import_code(what)
    with pytest.raises(CodeError, match="no list of paths"):
        import_listed({"a": 1}, own_code / "x.yaml")
    with pytest.raises(CodeError, match="no path"):
        import_code(3)  # type: ignore[arg-type]


def test_processes_that_it_starts_find_it(own_code: Path) -> None:
    """DataLoader workers and processes of a training unpickle by the name; sys.path is handed to them."""
    path = write(own_code, "with space.py", "class A:\n    value = 5\n")
    data = pickle.dumps(import_code(path).A())
    code = f"import pickle, sys; sys.path = {sys.path!r}; sys.exit(pickle.loads({data!r}).value)"
    assert subprocess.run([sys.executable, "-I", "-c", code], check=False).returncode == 5
    sys.modules.pop("with space")
    importing._IMPORTED.clear()
    load_installed()  # as a process does that inherits the environment
    assert sys.modules["with space"].A.value == 5


def test_a_broken_entry_point_is_one_line(
    own_code: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(own_code, "good_package.py", "VALUE = 1\n")
    write(own_code, "bad_package.py", "import sys\nsys.exit(1)\n")
    monkeypatch.syspath_prepend(str(own_code))
    entries = [
        SimpleNamespace(name=name, module=name, value=name, dist=SimpleNamespace(name=f"the-{name}"))
        for name in ("bad_package", "not_there", "good_package")
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries if group == "vitrail" else [])
    with caplog.at_level(logging.WARNING, "vitrail"):
        load_installed()
        load_installed()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "the-bad_package registers is missing" in told[0]
    assert "bad_package.py, line 2: it ends the program" in told[0]
    assert "there is no module 'not_there'" in told[1]
    assert "good_package" in sys.modules
    assert imported_code() == []
