"""The public names of the package, read from its source, and the griffe extension that links to them.

Docstrings are written with Sphinx's roles (``:class:`vitrail.TrainConfig```); the site has Markdown.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import griffe

SOURCE = Path(__file__).parents[2] / "src"
ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([\w.]+)`")


def listed(module: Path) -> list[str]:
    """The names in the ``__all__`` of a file, those with underscores apart; [] without one."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return sorted(name for name in ast.literal_eval(node.value) if not name.startswith("_"))
    return []


@cache
def face() -> list[str]:
    """What ``import vitrail`` offers."""
    return listed(SOURCE / "vitrail/__init__.py")


@cache
def packages() -> dict[str, list[str]]:
    """Package -> its public names that the face does not have."""
    found = {path.parent.name: listed(path) for path in sorted(SOURCE.glob("vitrail/*/__init__.py"))}
    names = {package: [name for name in names if name not in face()] for package, names in found.items()}
    return {f"vitrail.{package}": names[package] for package in names if names[package]}


@cache
def documented() -> frozenset[str]:
    """Every name that has a heading in the reference."""
    inner = (f"{package}.{name}" for package, names in packages().items() for name in names)
    return frozenset([*(f"vitrail.{name}" for name in face()), *inner])


def as_markdown(text: str) -> str:
    """A docstring with links in place of roles, and without the double colons of reStructuredText."""

    def link(found: re.Match[str]) -> str:
        name = found[1]
        return f"[`{name}`][{name}]" if name in documented() else f"`{name}`"

    return re.sub(r"::$", ":", ROLE.sub(link, text), flags=re.MULTILINE).replace("``", "`")


class Roles(griffe.Extension):
    """Turns the roles in docstrings into Markdown."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for every object that it reads."""
        if obj.docstring is not None and not obj.is_alias:
            obj.docstring.value = as_markdown(obj.docstring.value)
