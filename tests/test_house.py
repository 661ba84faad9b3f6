"""Rules about the rooms of the house: who may read what, what is reached, what is called how."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from vitrail.cli.main import VERBS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "vitrail"
FILES = sorted(SOURCE.rglob("*.py"))

SAME_KIND = {
    "__init__": "the face of its package",
    "__main__": "the command of its package",
    "base": "what every member of its package promises",
    "config": "the configuration of its package",
    "page": "the HTML page of its package",
    "classification": "one class an image",
    "mobilevit": "MobileViT",
    "places": "places of tokens in the image",
    "robustness": "accuracy under changes of the image",
    "whole_way": "every stage one after the other",
    **dict.fromkeys(VERBS, "the verb"),
}
"""Names that several files may bear, since they mean the same everywhere -> the meaning."""


def test_only_the_run_reads_its_description_by_key() -> None:
    """Whoever else does reads an untyped dictionary."""
    found = [
        f"{path.relative_to(SOURCE)}:{number}"
        for path in FILES
        if path != SOURCE / "runs" / "run.py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(r"\.read\(\)(\[|\.get\()", line)
    ]
    assert not found


OPENERS = {
    "bench": "files of the system, such as /proc and /sys, and what its own processes print",
    "cli/signatures.py": "the table beside it",
    "core/files.py": "the readers themselves",
    "core/parse.py": "the parsers themselves",
    "data/check": "images",
    "data/formats/built_in.py": "the embedded sample",
    "data/pixels": "images",
    "device": "strings in files that it exported; it imports nothing of the others",
    "export": "drafts that it wrote itself",
    "models/weights_file.py": "the heads of weights, whose length is checked",
    "runtimes/processor.py": "what the system says of its processor",
    "serve/browser/assets.py": "files whose hash is known",
}
"""Places that read files without the readers of :mod:`vitrail.core.files` -> what they read."""


def test_files_of_strangers_are_read_by_the_readers_with_limits() -> None:
    direct = re.compile(
        r"\bjson\.loads?\((?!json\.dumps)|yaml\.(safe_)?load\(|\.read_text\(|\.read_bytes\(|\bopen\([^)]*\"r?b?\""
        r"|\.open\((?!\"[wax])[^)]*(encoding|newline)="
    )
    found = [
        f"{name}:{number}"
        for path in FILES
        if not (name := path.relative_to(SOURCE).as_posix()).startswith(tuple(OPENERS))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if direct.search(line)
    ]
    assert not found


def names_in(node: ast.AST) -> Counter[str]:
    """Every name that code mentions: variables, attributes, imported names, and names in strings."""
    found: Counter[str] = Counter()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            found[inner.id] += 1
        elif isinstance(inner, ast.Attribute):
            found[inner.attr] += 1
        elif isinstance(inner, ast.alias):
            found[inner.name.rpartition(".")[2]] += 1
        elif isinstance(inner, ast.Constant) and isinstance(inner.value, str) and len(inner.value) < 200:
            found.update(re.findall(r"\w+", inner.value))
    return found


@pytest.fixture(scope="module")
def mentions() -> Counter[str]:
    """Name -> how often source, examples and pages mention it."""
    found: Counter[str] = Counter()
    for path in [*FILES, *sorted((ROOT / "examples").rglob("*.py"))]:
        if path.name != "__init__.py" or path.parent == SOURCE:  # a package's face reaches nothing by itself
            found.update(names_in(ast.parse(path.read_text(encoding="utf-8"))))
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(SOURCE.rglob("*.j2"))]:
        found.update(re.findall(r"\w+", page.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_public_definition_is_reached(path: Path, mentions: Counter[str]) -> None:
    """From the source, an example or a page: what only tests reach is deleted, or gets an option."""
    unreached = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        commanded = getattr(node, "decorator_list", ()) and path.name == "__main__.py"  # a command registers itself
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not (node.name.startswith("_") or commanded):
            own = names_in(node)[node.name]  # a function that calls itself is not reached by that
            if mentions[node.name] <= own:
                unreached.append(node.name)
    assert not unreached


def test_files_of_one_name_mean_the_same() -> None:
    places = defaultdict(list)
    for path in FILES:
        if path.parent.name != "figures":  # a picture is named after what it shows
            places[path.stem].append(str(path.relative_to(SOURCE)))
    assert not {name: found for name, found in places.items() if len(found) > 1 and name not in SAME_KIND}
