"""What MkDocs needs to make the site from pages that are written for the repository.

- README, CONTRIBUTING and CHANGELOG become pages; links to examples and scripts lead to pages with their source.
- The reference of commands is made of the help texts, that of Python of the public names.
- Flowcharts become boxes, since the site loads no script that draws them.
- A folder in the navigation (``decisions/*``) stands for the pages in it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from levels import with_levels
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from public_names import face, packages

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ELSEWHERE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
"""Pages outside of docs/ -> their names in the site."""
ORIGIN = {name: ROOT / path for path, name in ELSEWHERE.items()}

FENCE = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)
LIST_IN_PARAGRAPH = re.compile(r"(^(?!\s|[-*|#>]|\d+\. ).+\n)(?=(?:[-*]|\d+\.) )", re.MULTILINE)
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".toml": "toml", "": "text"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Folders in the navigation become the pages in them."""
    config.nav = expanded(config.nav or [])
    return config


def expanded(nav: list[Any]) -> list[Any]:
    """A navigation with the pages of its folders."""
    found: list[Any] = []
    for entry in nav:
        if isinstance(entry, dict):
            found.append({title: expanded(one) if isinstance(one, list) else one for title, one in entry.items()})
        elif entry.endswith("/*"):
            found += sorted(path.relative_to(DOCS).as_posix() for path in DOCS.glob(f"{entry}.md"))
        else:
            found.append(entry)
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are no files in docs/."""
    pages = {name: path.read_text(encoding="utf-8") for name, path in ORIGIN.items()}
    pages |= {"reference/commands.md": commands_page()} | dict(python_pages())
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for name, text in source_pages().items():
        files.append(File.generated(config, name, content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page as the site needs it; what stands in code blocks stays."""
    del config, files
    name = page.file.src_uri
    if name.startswith(("reference/", "source/")):
        return markdown
    origin = ORIGIN.get(name, DOCS / name)
    markdown = with_levels(markdown)

    def change(text: str) -> str:
        return LIST_IN_PARAGRAPH.sub(r"\1\n", with_links(COMMENT.sub("", text), origin))

    return outside_code(markdown, change)


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """A page with a change of everything but its code blocks."""
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])


def with_links(text: str, origin: Path) -> str:
    """Links that lead where the site has their targets.

    Args:
        text: a part of a page.
        origin: the file in the repository that the part is from.
    """
    here = os.path.dirname(site_name(origin))

    def changed(link: re.Match[str]) -> str:
        path, hash_, anchor = link[2].partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return link[0]
        name = site_name((origin.parent / path).resolve())
        return f"{link[1]}{os.path.relpath(name, here or '.')}{hash_}{anchor}{link[3]}"

    return LINK.sub(changed, text)


def site_name(path: Path) -> str:
    """The name in the site of a file of the repository."""
    name = path.relative_to(ROOT).as_posix()
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    return path.relative_to(DOCS).as_posix() if path.is_relative_to(DOCS) else f"source/{name}.md"


def source_pages() -> dict[str, str]:
    """The files and folders outside of docs/ that pages link to, as pages."""
    wanted = {path for page in [*ORIGIN.values(), *DOCS.rglob("*.md")] for path in _sources_of(page)}
    folders = {path for path in wanted if path.is_dir()}
    inside = {path for folder in folders for path in folder.iterdir() if path.suffix in LANGUAGES and path.is_file()}
    pages = {site_name(path): _listing(path) for path in folders}
    return pages | {site_name(path): _source(path) for path in (wanted | inside) - folders}


def _sources_of(page: Path) -> Iterator[Path]:
    for link in LINK.finditer(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path = link[2].partition("#")[0]
        found = (page.parent / path).resolve()
        if path and not re.match(r"[a-z]+:", path) and found.exists() and site_name(found).startswith("source/"):
            yield found


HIDDEN = "---\nsearch:\n  exclude: true\n---\n"


def _listing(folder: Path) -> str:
    names = [path.name for path in sorted(folder.iterdir()) if path.is_file() and path.suffix in LANGUAGES]
    lines = "\n".join(f"- [{name}]({folder.name}/{name}.md)" for name in names)
    return f"{HIDDEN}# {folder.relative_to(ROOT).as_posix()}\n\n{lines}\n"


def _source(path: Path) -> str:
    language = LANGUAGES.get(path.suffix, "text")
    text = path.read_text(encoding="utf-8")
    return f"{HIDDEN}# {path.relative_to(ROOT).as_posix()}\n\n`````{language}\n{text}`````\n"


def commands_page() -> str:
    """Every verb with its help and its options."""
    verbs = json.loads((ROOT / "src/vitrail/cli/signatures.json").read_text(encoding="utf-8"))
    parts = ["# Commands", "Every verb with its options, as `vitrail VERB --help` prints them."]
    for verb, entry in verbs.items():
        parts += [f"## vitrail {verb}", entry["help"]]
        groups: dict[str, list[dict[str, Any]]] = {}
        for one in sorted(entry["parameters"], key=lambda one: one.get("group", ["", 0])[1]):
            groups.setdefault(one.get("group", ["Arguments"])[0], []).append(one)
        for title, options in groups.items():
            rows = "\n".join(f"| {_names(one)} | {_cell(one['help'])} | {_default(one)} |" for one in options)
            parts.append(f"**{title}**\n\n| Name | What it is | Default |\n|---|---|---|\n{rows}")
    return "\n\n".join(parts) + "\n"


def _names(one: dict[str, Any]) -> str:
    return " ".join(f"`{name}`" for name in (*one["names"], *one.get("negatives", ())))


def _default(one: dict[str, Any]) -> str:
    default = one.get("default")
    return "" if default in (None, "", [], {}) else f"`{_cell(json.dumps(default))}`"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def python_pages() -> Iterator[tuple[str, str]]:
    """The pages of the Python reference: what ``import vitrail`` offers, then package by package."""
    intro = "The verbs as functions and methods, and what configures them. All of it is found as `vitrail.NAME`."
    yield (
        "reference/python.md",
        _reference("Python", intro, "vitrail", sorted(face(), key=lambda name: (name[0].isupper(), name))),
    )
    for package, names in packages().items():
        intro = f"Public names of `{package}` that `vitrail` itself does not offer."
        yield f"reference/{package.partition('.')[2]}.md", _reference(package, intro, package, names)


def _reference(title: str, intro: str, package: str, names: list[str]) -> str:
    entries = "\n\n".join(f"::: {package}.{name}" for name in names)
    return f"# {title}\n\n{intro}\n\n{entries}\n"
