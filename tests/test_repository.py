"""Rules about the repository itself: what is tracked, how long it may get, what its metadata must agree on."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import vitrail

ROOT = Path(__file__).parents[1]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40
MAX_BYTES = 2_000_000
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
# Written in pieces, so that this file does not break the rule that it checks.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home/(?!some)\w|Users/\w|root/|work/|mnt/\w|opt/py\w+/)")
REGISTRY_OPTION = re.compile(r"(?:extra-)?index-url|find-links|trusted-host", re.IGNORECASE)


def tracked_files() -> list[Path]:
    try:
        names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in names.split("\0") if name and (path := ROOT / name).is_file()]


def tracked_texts() -> Iterator[tuple[Path, str]]:
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" not in content and path != Path(__file__):
            yield path.relative_to(ROOT), content.decode("utf-8")


def test_tracked_files_are_small() -> None:
    large = [(path.name, size) for path in tracked_files() if (size := path.stat().st_size) > MAX_BYTES]
    assert not large


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    found = [f"{path}: {hit[0]}" for path, text in tracked_texts() if (hit := MACHINE_PATH.search(text))]
    assert not found


def test_no_file_chooses_the_users_package_registry() -> None:
    found = [f"{path}: {hit[0]}" for path, text in tracked_texts() if (hit := REGISTRY_OPTION.search(text))]
    assert not found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_source_is_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "# long:" not in lines[node.lineno - 1]:
            assert _code_lines(node) <= MAX_FUNCTION_LINES, (
                f"{node.name} (line {node.lineno}) is too long; split it, or say why not in a '# long: ...' comment"
            )


def _code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, docstring excepted."""
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        length -= (first.end_lineno or first.lineno) - first.lineno + 1
    return length


@pytest.mark.parametrize("word", ["utils", "util", "common", "helpers", "helper", "misc"])
def test_no_package_is_named_after_nothing(word: str) -> None:
    assert not [path for path in SOURCES if word in path.with_suffix("").parts]


def test_packages_are_packages() -> None:
    folders = {path.parent for path in SOURCES}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def _constraints() -> dict[str, str]:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            pins[canonicalize_name(requirement.name)] = str(requirement.specifier)
    return pins


def test_constraints_pin_everything_exactly() -> None:
    loose = {name: version for name, version in _constraints().items() if not re.fullmatch(r"==[\w.!+]+", version)}
    assert not loose


def test_constraints_fit_every_requirement() -> None:
    pins = _constraints()
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)]:
        requirement = Requirement(text)
        if requirement.name == "vitrail":
            continue
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"constraints.txt does not pin {requirement.name}"
        assert requirement.specifier.contains(pin.removeprefix("==")), f"{pin} does not satisfy {text}"


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_every_import_is_a_declared_dependency() -> None:
    distributions = importlib.metadata.packages_distributions()
    extras = [line for name, lines in PROJECT["optional-dependencies"].items() if name != "dev" for line in lines]
    declared = {canonicalize_name(Requirement(text).name) for text in [*PROJECT["dependencies"], *extras]}
    undeclared = {
        f"{path.name}: {name}"
        for path in SOURCES
        for name in _imports(path) - sys.stdlib_module_names - {"vitrail"}
        if not declared & {canonicalize_name(distribution) for distribution in distributions.get(name, [name])}
    }
    assert not undeclared


def test_version_is_the_same_everywhere() -> None:
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == PROJECT["version"] == vitrail.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]


def test_data_files_are_inside_the_package() -> None:
    assert (ROOT / "src/vitrail/py.typed").exists()
    assert list((ROOT / "src/vitrail/data").rglob("*.npz")), "the embedded sample is missing"


def test_no_contract_ignores_an_import() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert "ignore_imports" not in text
    assert "exhaustive_ignores" not in text


def test_all_families_are_held_independent() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    independent = next(contract["modules"] for contract in contracts if contract["id"] == "families")
    families = {
        path.stem for path in (ROOT / "src/vitrail/models").glob("*.py") if "FAMILY = Family(" in path.read_text()
    }
    assert {name.removeprefix("vitrail.models.") for name in independent} == families


def test_the_runner_and_the_hooks_run_what_make_lint_runs() -> None:
    makefile = (ROOT / "Makefile").read_text()
    lint = makefile.split("\nlint:")[1].split("\n\n")[0]
    tools = set(re.findall(r"\$\(BIN\)/([\w-]+)", lint))
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert tools == {"ruff", "mypy", "lint-imports", "codespell"}
    assert tools <= {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in hooks}
    runner = ROOT / ".ci/run"
    assert "lint test" in runner.read_text()
    assert runner.stat().st_mode & 0o111, ".ci/run is not executable"


WANTED = [
    *("LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "docs/architecture.md"),
    *(".github/ISSUE_TEMPLATE/bug.yml", ".github/ISSUE_TEMPLATE/feature.yml"),
]


@pytest.mark.parametrize("form", ["bug", "feature"])
def test_forms_for_issues_ask_for_something(form: str) -> None:
    found = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{form}.yml").read_text())
    assert {"name", "description", "body"} <= found.keys()
    asked = [part for part in found["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in asked}) == len(asked) > 2
    assert any(part.get("validations", {}).get("required") for part in asked)


@pytest.mark.parametrize("name", WANTED)
def test_what_a_stranger_looks_for_is_there(name: str) -> None:
    assert (ROOT / name).read_text().strip()


def test_decisions_are_short() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "docs/decisions").glob("0*.md")}
    assert lengths
    assert not {name: length for name, length in lengths.items() if length > 30}


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60
