"""What is compared: a small typed file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from vitrail.core.errors import ConfigError
from vitrail.training import TrainConfig, typed

OF_CELLS = ("model", "model_fields", "seed")
"""What a cell and its seed say, so that the common recipe cannot."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model of the comparison.

    Attributes:
        name: what it is called in tables.
        model: a name that ``vitrail models`` lists.
        fields: fields of the family's configuration that shall differ from the variant's.
        grid: field -> values; a cell with a grid stands for one cell a combination.
    """

    name: str
    model: str
    fields: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The name as one of a folder."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def expand(self) -> list[Cell]:
        """One cell for every combination of the grid, itself without one."""
        cells = []
        for values in product(*self.grid.values()):
            chosen = dict(zip(self.grid, values, strict=True))
            words = ", ".join(f"{name}={value}" for name, value in chosen.items())
            name = f"{self.name}, {words}" if words else self.name
            cells.append(replace(self, name=name, fields=self.fields | chosen, grid={}))
        return cells


@dataclass(frozen=True, kw_only=True)
class ComparePlan:
    """A comparison.

    Attributes:
        question: what is to be found out, in a sentence.
        cells: the models.
        baseline: name of the cell that the others are compared with; the first by default.
        seeds: every cell is trained once with each.
        training: the recipe, as ``vitrail train --config`` takes it, without model and seed.
        runtimes: in which latency is measured; what is not PyTorch needs an export first.
        threads: of the measurement.
        energy: meter of the measurement, as ``vitrail bench --energy`` takes it; none by default.
        collapse: also measure how alike the tokens of the last level are (mean cosine similarity).
        robustness: also measure accuracy and consistency under shifts.
    """

    question: str = ""
    cells: tuple[Cell, ...]
    baseline: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    training: dict[str, Any] = field(default_factory=dict)
    runtimes: tuple[str, ...] = ("torch",)
    threads: int = 1
    energy: str = ""
    collapse: bool = False
    robustness: bool = False

    def __post_init__(self) -> None:
        names = [cell.name for cell in self.cells]
        if len(names) < 2:
            raise ConfigError(f"cells has {len(names)} entries; a comparison needs at least 2")
        folders = [cell.folder for cell in self.cells]
        if twice := sorted({name for name in names if folders.count(Cell(name=name, model="").folder) > 1}):
            raise ConfigError(f"cells {', '.join(twice)} have the same name; give each one of its own")
        if "" in folders:
            raise ConfigError("a cell's name has no letter or digit; give it one")
        if self.baseline and self.baseline not in names:
            raise ConfigError(f"baseline '{self.baseline}' is no cell; there are {', '.join(names)}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds={list(self.seeds)} are not different numbers from 0; [0, 1, 2] is usual")
        if self.threads < 1:
            raise ConfigError(f"threads={self.threads} is below 1; 1 is usual")
        if taken := sorted(self.training.keys() & set(OF_CELLS)):
            raise ConfigError(f"training has {', '.join(taken)}; that belongs to cells and seeds")

    @property
    def reference(self) -> Cell:
        """The baseline's cell."""
        return next((cell for cell in self.cells if cell.name == self.baseline), self.cells[0])

    def config(self, cell: Cell, seed: int) -> TrainConfig:
        """How one run is trained.

        Raises:
            ConfigError: an unknown field, or a value that is not allowed.
        """
        own = {"model": cell.model, "model_fields": cell.fields, "seed": seed}
        return TrainConfig.from_dict(self.training | own)


def read_plan(file: str | Path) -> ComparePlan:
    """A comparison from a YAML file; every model and recipe in it is checked.

    Raises:
        ConfigError: unreadable, an unknown key, or a value that is not allowed.
    """
    try:
        values = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read comparison {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"comparison {file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or not isinstance(values.get("cells"), list):
        raise ConfigError(f"comparison {file} has no list 'cells'; see examples/compare")
    cells = [expanded for cell in values["cells"] for expanded in typed(Cell, cell).expand()]
    plan = typed(ComparePlan, values | {"cells": tuple(cells)})
    for cell in plan.cells:
        plan.config(cell, plan.seeds[0])
    return plan
