"""What own code registered: under which name, from which file, and how a configuration refers to it.

A registered object is referred to by its name; any other class or function of own code as ``module:Name``. Both are
plain text, which a run keeps and another process finds again once the code is imported there.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from vitrail.core.errors import CodeError, ConfigError
from vitrail.core.import_code import imported_hash, is_own, load_installed, note_module

LIBRARIES = ("torch", "torchvision", "vitrail")
"""Packages whose modules (``nn.Module``) may be named without an import: to build one does nothing else."""


@dataclass(frozen=True, kw_only=True)
class Registration:
    """One registered object.

    Attributes:
        kind: what it is: "family", "token mixer", "task", or "head of segmentation".
        name: its name.
        value: the object, for a family its backbone, for a task its class.
        answers_to: names by which a run refers to it: of a family those of its variants.
        module: module that registered it.
        home: that module itself, as it was imported.
    """

    kind: str
    name: str
    value: Any
    answers_to: tuple[str, ...]
    module: str
    home: ModuleType | None

    @property
    def file(self) -> str:
        """Path of the file that registered it; "" for a notebook."""
        return str(getattr(sys.modules.get(self.module), "__file__", None) or "")

    @property
    def hash(self) -> str:
        """Hash of the file when it was imported; "" for a notebook."""
        return imported_hash(self.module)


_REGISTERED: dict[tuple[str, str], Registration] = {}


def claim(kind: str, name: str, value: Any, module: str, taken: Container[str], answers_to: Sequence[str]) -> bool:
    """Note that own code registers an object.

    Args:
        kind: see :class:`Registration`.
        name: its name.
        value: the object.
        module: module that registers it.
        taken: all names of this kind.
        answers_to: names by which runs refer to it.

    Returns:
        whether it replaces what the same module registered before under this name, as a notebook's cell does that is
        run again.

    Raises:
        CodeError: the name is no name, or belongs to Vitrail or to another module.
    """
    if not isinstance(name, str) or not name or ":" in name or name != name.strip() or not name.isprintable():
        raise CodeError(f"{kind} {name!r} has no usable name; give it one of letters, digits and underscores")
    known = _REGISTERED.get((kind, name))
    if known is None and name in taken:
        raise CodeError(f"{kind} '{name}' is one of Vitrail's own; register yours under another name")
    if known is not None and known.module != module and not _is_same_script(known, module):
        raise CodeError(
            f"{kind} '{name}' is registered by {known.file or known.module} already; "
            "register this one under another name, or import one of the two"
        )
    home = sys.modules.get(module)
    if known is not None and known.home is home and module != "__main__" and _path_of(known.value) != _path_of(value):
        raise CodeError(f"{kind} '{name}' is registered twice in {known.file or module}; give one another name")
    note_module(module)
    _REGISTERED[kind, name] = Registration(
        kind=kind, name=name, value=value, answers_to=tuple(answers_to), module=module, home=home
    )
    return known is not None


def _path_of(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"


def _is_same_script(known: Registration, module: str) -> bool:
    """Whether a script registers again what it registered as the program, or as a module."""
    file = str(getattr(sys.modules.get(module), "__file__", None) or "")
    return bool(file and known.file) and Path(file).resolve() == Path(known.file).resolve()


def find_registration(kind: str, name: str) -> Registration | None:
    """What own code registered under a name; None where it did not."""
    return _REGISTERED.get((kind, name))


def registrations() -> list[Registration]:
    """Everything that own code registered, in its order."""
    return list(_REGISTERED.values())


def portable(value: Any, name: str) -> Any:
    """A value of a configuration in a form that a file can keep: classes and functions become text.

    Args:
        value: plain value, or a class or a function of own code; or a list or table of such.
        name: name of the field in messages.

    Raises:
        ConfigError: another process could not find the value again.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        inner = [portable(one, name) for one in value]
        return tuple(inner) if isinstance(value, tuple) else inner
    if isinstance(value, Mapping):
        return {str(key): portable(inner, f"{name}.{key}") for key, inner in value.items()}
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # a number of NumPy or PyTorch
        return value.item()
    if inspect.isclass(value) or inspect.isroutine(value):
        return _reference(value, name)
    shown = type(value).__name__
    if callable(value):
        raise ConfigError(
            f"{name} is an object ({shown}) that a run cannot keep; give a class or a function of a file instead"
        )
    raise ConfigError(f"{name} is a {shown}, which a run cannot keep; give numbers, texts, lists or tables")


def _reference(value: Any, name: str) -> str:
    registered = next((one for one in _REGISTERED.values() if one.value is value), None)
    if registered is not None:
        return registered.name
    module, qualified = getattr(value, "__module__", None) or "", getattr(value, "__qualname__", "")
    subject = f"{name} is {getattr(value, '__name__', value)}"
    if not qualified.isidentifier():
        kind = "a lambda" if "<lambda>" in qualified else "defined inside something else"
        raise ConfigError(
            f"{subject}, {kind}, which no other process can find again; define it at the top level of a file, or "
            "register it: vitrail.register(..., name='NAME')"
        )
    if module in ("__main__", "__mp_main__"):
        raise ConfigError(
            f"{subject} of a notebook or a script, which no other process can find again; "
            "put @vitrail.register above it, or move it into a file and import that"
        )
    if getattr(sys.modules.get(module), qualified, None) is not value:
        raise ConfigError(f"{subject}, which is not what '{module}' calls so; define it at the top level of a file")
    if not _of_library(module, value):
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or not getattr(sys.modules[module], "__file__", None):
            raise ConfigError(f"{subject} of {module}, which makes no part of a model; define a function in a file")
        note_module(module)
    return f"{module}:{qualified}"


def _of_library(module: str, value: Any) -> bool:
    from torch import nn

    return module.partition(".")[0] in LIBRARIES and inspect.isclass(value) and issubclass(value, nn.Module)


def resolved(value: Any, name: str) -> Any:
    """The inverse of :func:`portable` for texts such as ``my_models:MyMixer``; other values stay as they are.

    A registered object becomes its name, so that it is one thing in whichever way it was given. Nothing is imported
    for it: a run or a configuration that somebody else wrote may name any module.

    Raises:
        ConfigError: the module is not imported, or has no such class or function of its own.
    """
    if isinstance(value, list | tuple):
        inner = [resolved(one, name) for one in value]
        return tuple(inner) if isinstance(value, tuple) else inner
    if not is_reference(value):
        return next((one.name for one in _REGISTERED.values() if one.value is value), value)
    module, _, attribute = value.partition(":")
    if not is_own(module):
        load_installed()
    found = getattr(sys.modules.get(module), attribute, None)
    if _of_library(module, found):
        return found
    if not is_own(module):
        raise ConfigError(f"{name}='{value}' is in a module that is not imported; pass its file: --import FILE")
    if not (inspect.isclass(found) or inspect.isroutine(found)) or found.__module__ != module:
        raise ConfigError(f"{name}='{value}': {module} has no class or function '{attribute}' of its own")
    return found


def is_reference(value: Any) -> bool:
    """Whether a value is a text such as ``my_models:MyMixer``."""
    if not isinstance(value, str):
        return False
    module, colon, attribute = value.partition(":")
    return bool(colon and module and attribute.isidentifier())
