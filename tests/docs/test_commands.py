"""Every command that a message, a page, a docstring or a report can print is one that the command line takes."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import CycloptsError
from docs.blocks import ROOT

from vitrail.cli.main import VERBS, build_app
from vitrail.cli.signatures import option_names, signatures, stand_in
from vitrail.runs.run import MAKERS

SOURCE = ROOT / "src" / "vitrail"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
TEMPLATES = [path for suffix in ("j2", "js", "html") for path in sorted(SOURCE.rglob(f"*.{suffix}"))]

COMMAND = re.compile(r"(?<![\w./'-])vitrail +(?P<verb>[a-z]+(?:-[a-z]+)*)\b(?P<words>[^\n`<]*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9]*(?:[-_.][a-z0-9]+)*")

FILLED = {"verb": "evaluate", "format": "onnx", "known.format": "onnx", "MAKERS[need]": "|".join(MAKERS.values())}
"""Expression in a message -> what may stand there; words are separated by |. Everything else is a name, ``x``."""

PROSE = re.compile(r"[a-z]{2,}[,;]?$")
"""Where a command is part of a sentence, an ordinary word after it belongs to the sentence."""

OTHERS = {
    *(
        "--upgrade",
        "--quiet",
        "--no-deps",
        "--no-cache-dir",
        "--pre",
    ),
    *(
        "--nproc-per-node",
        "--nnodes",
        "--device",
        "--standalone",
        "--shm-size",
        "--version",
        "--help",
        "--install-completion",
    ),
}
"""Options of pip, torchrun and Docker on our pages, and those of the whole application."""


def texts_of(path: Path) -> Iterator[str]:
    """Every string of a source file; what an f-string holds is filled in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield from filled([_part(value) for value in node.values])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value


def _part(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    assert isinstance(node, ast.FormattedValue)
    return FILLED.get(ast.unparse(node.value), "x").split("|")


def filled(parts: list[list[str]]) -> list[str]:
    texts = [""]
    for choices in parts:
        texts = [text + choice for text in texts for choice in choices]
    return texts


def template_texts(path: Path) -> Iterator[str]:
    """The text of a template; what it fills in is a name, and what a macro is called with stands in its place."""
    text = path.read_text(encoding="utf-8")
    for verb in {"evaluate", *re.findall(r'missing\([^)]*, "([^"]+)"\)', text)}:
        yield re.sub(r"\{\{.*?\}\}", "x", re.sub(r"\{\{ *verb *\}\}", verb, text))


def words_of(found: re.Match[str], *, prose: bool) -> list[str]:
    """The words of a command; in a sentence it ends before the first word that is no argument."""
    text = re.split(r" *(?:&&|\|\||[|>;]|,(?= )|\)(?= |$)|\. |\.$|: | \()", found["words"] + " ", maxsplit=1)[0]
    text = text.replace("\\", "").rstrip("'")
    words = shlex.split(text, comments=True) if text.count("'") % 2 == text.count('"') % 2 == 0 else text.split()
    if prose:
        end = next((i for i, word in enumerate(words) if PROSE.match(word) and not _is_value(words, i)), len(words))
        words = words[:end]
    return [found["verb"], *words]


def _is_value(words: list[str], index: int) -> bool:
    return index > 0 and words[index - 1].startswith("--") and words[index - 1] in WITH_VALUES


WITH_VALUES = {
    name
    for entry in signatures().values()
    for one in entry["parameters"]
    for name in one["names"]
    if one["type"] != "bool"
} | {"--option.head", "--option.target"}


def complaint(words: list[str], *, alone: bool) -> str | None:
    """What the command line says to a command; a verb alone is a mention, unless it is to be typed."""
    verb = words[0]
    if verb not in VERBS or (len(words) == 1 and not alone):
        return None if verb in VERBS else "no such verb"
    words = [word if word not in ("...", "VERB") else "x" for word in words]
    try:
        build_app(verb, stand_in(verb))(words, print_error=False, exit_on_error=False)
    except (CycloptsError, ValueError) as error:
        return str(error)
    return None


def complaints(text: str, *, prose: bool) -> list[str]:
    found = []
    for match in COMMAND.finditer(text):
        before = text[: match.start()]
        if match["verb"] not in VERBS and (prose or before[-1:] not in ("`", "\n", "")):
            continue  # "vitrail has", "vitrail itself"
        words = words_of(match, prose=prose)
        told = complaint(words, alone=before.endswith((": ", "with: ")) and prose)
        if told:
            found.append(f"vitrail {shlex.join(words)}: {told}")
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_commands_of_messages_and_docstrings_are_taken(path: Path) -> None:
    assert not [told for text in texts_of(path) for told in complaints(text, prose=True)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_pages_are_taken(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh|text|)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(
        r"(?<!`)`(vitrail [^`]+)`(?!`)", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    )
    commands = [block.replace("\\\n", " ") for block in blocks] + [" ".join(span.split()) for span in spans]
    assert not [told for command in commands for told in complaints(command, prose=False)]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_commands_of_templates_are_taken(path: Path) -> None:
    assert not [told for text in template_texts(path) for told in complaints(text, prose=True)]


def test_options_that_messages_name_exist() -> None:
    known = {name for verb in VERBS for name in option_names(verb)} | OTHERS
    named = {
        f"{path.relative_to(SOURCE)}: {name}"
        for path in sorted(SOURCE.rglob("*.py"))
        if "ultralytics" not in path.parts  # it has a command of its own
        for text in texts_of(path)
        for name in ([] if OPTION.fullmatch(text) else OPTION.findall(text))
        if name.replace("_", "-") not in known and not name.startswith(("--option.", "--bench-")) and name != "--x"
    }
    assert not named


def test_what_does_not_exist_is_found() -> None:
    for text in (
        "pass --x; vitrail train --replace-head",
        "make it with: vitrail quantize",
        "make it with: vitrail export x --format x",
        "it comes from `vitrail evaluate --robustnes`",
    ):
        assert complaints(text, prose=True), text
    for text in (
        "start vitrail bench again",
        "as ``vitrail pareto`` writes them",
        "run vitrail there",
        "vitrail models x*",
    ):
        assert not complaints(text, prose=True), text
