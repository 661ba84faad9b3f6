"""Import of users' own code: a Python file, or a module by its name.

Own code registers families, token mixers, tasks and heads (:func:`vitrail.register`). It is imported because its user
named it: on the command line, in a configuration, in Python, or as the entry point of an installed package. What a run
folder says of code never imports anything.

A file is imported under its stem, and its folder is added at the end of ``sys.path``. So processes that load images or
train beside this one can unpickle what it defines, and it can import files beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import linecache
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from vitrail.core.errors import CodeError
from vitrail.core.files import file_hash, read_bytes
from vitrail.core.parse import parse_json
from vitrail.core.paths import typed_path, user_path

GROUP = "vitrail"
"""Group of the entry points of installed packages; each names a module that registers something when imported."""

VARIABLE = "VITRAIL_IMPORTED"
"""Environment variable with the own code of this process, as a JSON list, for processes that it starts."""

MAX_BYTES = 4 * 2**20
"""Size of the largest file that is imported."""

SHOWN = 200
"""Characters of another library's message that are shown."""

LOGGER = logging.getLogger("vitrail")

_IMPORTED: dict[str, str] = {}
"""Own module -> hash of the contents that were run; "" for a module without a file."""

_INSTALLED: set[str] = set()
"""Entry points that were imported, or failed."""


def import_code(what: str | os.PathLike[str], *, base: Path | None = None) -> ModuleType:
    """Import own code, so that what it registers can be used.

    A second import of an unchanged file does nothing; a changed file is run again, and what it registers replaces
    what it registered before. What it prints goes to standard error.

    Args:
        what: path of a ``.py`` file or of a package's folder; or the name of a module.
        base: folder that a relative path starts from. Default: the current one.

    Raises:
        CodeError: there is no such file or module, its name is taken, or it fails; the message has file and line.
    """
    if not isinstance(what, str | os.PathLike) or not os.fspath(what):
        raise CodeError(f"import={what!r} is no path of a .py file and no name of a module")
    text = os.fspath(what)
    path = (base or Path()) / user_path(text)
    is_module = path.is_dir() and os.sep not in text and not (path / "__init__.py").exists()
    if text.endswith(".py") or os.sep in text or "/" in text or (path.exists() and not is_module):
        module = _import_file(path)
        _announce(str(module.__file__))
    else:
        module = _import_module(text)
        _announce(text)
    return module


def import_listed(listed: Any, file: Path) -> None:
    """Import the own code that a configuration file names under ``import``, relative to the file's folder.

    Raises:
        CodeError: it is no path and no list of paths, or cannot be imported.
    """
    names = [listed] if isinstance(listed, str) else listed
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CodeError(f"import={listed!r} in {file} is no path and no list of paths; write import: [my_models.py]")
    for name in names:
        import_code(name, base=file.parent)


def note_module(name: str) -> None:
    """Count a module as own code that its user imported; processes that this one starts import it too."""
    module = sys.modules.get(name)
    if name in _IMPORTED or module is None:
        return
    file = str(getattr(module, "__file__", None) or "")
    readable = file.endswith(".py") and Path(file).is_file()
    _IMPORTED[name] = file_hash(file) if readable else ""
    if name != "__main__" and readable:
        _announce(file)


def is_own(name: str) -> bool:
    """Whether a module is own code of this process."""
    return name in _IMPORTED


def imported_hash(name: str) -> str:
    """Hash of the contents of a module when it was imported; "" if it has no file."""
    return _IMPORTED.get(name, "")


def imported_code() -> list[str]:
    """Paths and names of the own code that was imported, without that of entry points."""
    try:
        listed = parse_json(os.environ.get(VARIABLE, "[]"))
    except ValueError:
        return []
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def load_installed() -> None:
    """Import what the process that started this one had imported, and the entry points of installed packages.

    Each is imported once. It is called where a name is unknown, and before names are listed; so nothing else pays for
    it. An entry point that fails is told in one line, and what it registers is missing.

    Raises:
        CodeError: a file of the process that started this one cannot be imported.
    """
    known = [str(getattr(sys.modules.get(name), "__file__", name)) for name in _IMPORTED]
    for what in imported_code():
        if what not in known and what not in _IMPORTED:
            import_code(what)
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.value not in _INSTALLED:
            _INSTALLED.add(entry.value)
            named = imported_code()
            try:
                _import_module(entry.module)
            except CodeError as error:
                package = entry.dist.name if entry.dist is not None else "a package"
                LOGGER.warning(
                    "what %s registers is missing: its entry point '%s' fails: %s", package, entry.name, error.complaint
                )
            finally:
                os.environ[VARIABLE] = json.dumps(named)  # other processes find entry points by themselves


def _announce(what: str) -> None:
    os.environ[VARIABLE] = json.dumps(list(dict.fromkeys([*imported_code(), what])))


def _import_module(name: str) -> ModuleType:
    if not all(name.split(".")):
        raise CodeError(f"import='{name}' is no name of a module; write my_package.my_models, or ./my_models.py")
    try:
        with _failures_told(name, None):
            module = importlib.import_module(name)
    except CodeError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name and f"{name}.".startswith(f"{cause.name}."):
            raise CodeError(f"there is no module '{name}'; for a file write its path: --import {name}.py") from cause
        raise
    note_module(name)
    return module


def _import_file(path: Path) -> ModuleType:
    path = _python_file(path)
    try:
        contents = read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise CodeError(f"cannot import {path}: {error.strerror or error}; give a .py file") from error
    name, root = _module_name(path)
    found = hashlib.sha256(contents).hexdigest()[:16]
    before = sys.modules.get(name)
    if before is not None and _same(getattr(before, "__file__", None), path):
        note_module(name)
        if _IMPORTED[name] == found:
            return before
    else:
        _check_free(name, path, root)
    if str(root) not in sys.path:
        sys.path.append(str(root))
    return _execute(name, path, contents, found)


def _execute(name: str, path: Path, contents: bytes, found: str) -> ModuleType:
    """Run exactly the contents that were hashed; a cached form of Python's could be older."""
    inner = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=inner)
    assert spec is not None
    module, before, noted = importlib.util.module_from_spec(spec), sys.modules.get(name), _IMPORTED.get(name)
    parent, _, last = name.rpartition(".")
    try:
        with _failures_told(str(path), path):
            if parent:
                importlib.import_module(parent)
            sys.modules[name] = module
            _IMPORTED[name] = found
            linecache.checkcache(str(path))
            exec(compile(contents, str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        sys.modules.pop(name, None)
        _IMPORTED.pop(name, None)
        if before is not None:
            sys.modules[name] = before
        if noted is not None:
            _IMPORTED[name] = noted
        raise
    if parent:
        setattr(sys.modules[parent], last, module)
    return module


def _python_file(path: Path) -> Path:
    """The absolute path of a file that may be imported; of a package's folder, its ``__init__.py``."""
    path = Path(os.path.abspath(path))
    if path.is_dir():
        if not (path / "__init__.py").exists():
            raise CodeError(f"cannot import {path}: it is a folder and no package (no __init__.py); give a .py file")
        path /= "__init__.py"
    if path.exists() and path.suffix != ".py":
        notebook = "; save the notebook as a script first" if path.suffix == ".ipynb" else "; rename it"
        raise CodeError(f"cannot import {path}: its name does not end in .py{notebook}")
    return path


def _module_name(path: Path) -> tuple[str, Path]:
    """The name of a file's module, and the folder that this name starts from: that above its packages."""
    parts = [] if path.name == "__init__.py" else [path.stem]
    folder = path.parent
    while folder.name and (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    if wrong := next((part for part in parts if "." in part or not part), None):
        raise CodeError(f"cannot import {path}: '{wrong}' has a dot, which modules cannot have; rename it")
    return ".".join(parts), folder


def _check_free(name: str, path: Path, root: Path) -> None:
    """Refuse a name that another module has: each of the two would be taken for the other."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("__main__", "vitrail"):
        raise CodeError(f"cannot import {path}: '{top}' is the name of a module of Python or Vitrail; rename it")
    ours = (root / f"{top}.py", root / top / "__init__.py")
    found = getattr(sys.modules.get(top), "__file__", None)
    if found is None:
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            spec = None
        found = spec.origin if spec is not None else None
    if found is not None and not any(_same(found, one) for one in ours):
        raise CodeError(f"cannot import {path}: another module is called '{top}' ({found}); rename one of them")


def _same(file: str | None, path: Path) -> bool:
    try:
        return file is not None and os.path.samefile(file, path)
    except OSError:
        return False


@contextlib.contextmanager
def _failures_told(what: str, path: Path | None) -> Iterator[None]:
    """Whatever own code raises while it is imported becomes one line; what it prints goes to standard error."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        place = _place_of(error, path)
        raise CodeError(f"cannot import {what}: {place}{_reason_of(error)}") from error


def _reason_of(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "it ends the program (SystemExit); put what a script does under if __name__ == '__main__':"
    if isinstance(error, CodeError):
        return str(error)
    text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    told = f"{type(error).__name__}: {text[:SHOWN]}" if text else type(error).__name__
    if "attempted relative import with no known parent" in text:
        return f"{told}; relative imports need a package: put an __init__.py beside the file, or import by name"
    return f"{told}; mend it, or leave it away"


def _place_of(error: BaseException, path: Path | None) -> str:
    """Where in the user's files an import failed, e.g. "line 7: "; "" where none of their lines was reached."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno))
    ours = os.path.dirname(__file__)
    shown = [(file, line) for file, line in frames if file.endswith(".py") and os.path.dirname(file) != ours and line]
    if path is not None:
        own = [line for file, line in shown if file == str(path)]
        beside = [(file, line) for file, line in shown if file != str(path) and Path(file).is_relative_to(path.parent)]
        where = [f"line {own[-1]}: "] if own else []
        return "".join([*where, *(f"{typed_path(file)}, line {line}: " for file, line in beside[-1:])])
    return "".join(f"{file}, line {line}: " for file, line in shown[-1:])
