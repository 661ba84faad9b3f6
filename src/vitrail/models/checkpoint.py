"""Weights files: read without running any code in them, rename the authors' keys to ours, load strictly.

A family describes an authors' layout as a table of :class:`Key` rows. Templates hold integers in braces:
``Key("patch_embed{s+1}.norm", "stages.{s}.downsample.norm")`` maps ``patch_embed1.norm.weight`` to
``stages.0.downsample.norm.weight``. A row applies to a whole dotted prefix; the longest fitting one wins.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vitrail.core.errors import CheckpointError
from vitrail.core.paths import typed_path
from vitrail.models.base import Backbone

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
"""Names under which trainers nest weights; averaged weights first, since published results are theirs."""

PREFIXES = ("module.", "_orig_mod.", "backbone.", "opt.target.")
"""Prefixes that DistributedDataParallel, torch.compile, our own tasks and Flax's optimisers add to every name."""

_FIELD = re.compile(r"\{(\w+?)(?:\+(\d+))?\}")


@dataclass(frozen=True)
class Key:
    """One row of a key table.

    Attributes:
        theirs: template of the authors' name or dotted prefix.
        ours: template of our name, or None for a tensor that we compute ourselves and drop.
        part: (index, count) of a tensor that is one of ``count`` equal pieces of ours along dimension 0.
        convert: conversion of the tensor (transpose, reshape, flip).
    """

    theirs: str
    ours: str | None
    part: tuple[int, int] | None = None
    convert: Callable[[Tensor], Tensor] | None = None

    def match(self, name: str) -> str | None:
        """Our name for theirs; "" where the tensor is to be dropped; None where the row does not apply."""
        found = _pattern(self.theirs).match(name)
        if found is None:
            return None
        if self.ours is None:
            return ""
        values = {field: int(found[field]) - int(offset or 0) for field, offset in _FIELD.findall(self.theirs)}
        ours = _FIELD.sub(lambda m: str(values[m[1]] + int(m[2] or 0)), self.ours)
        return ours + name[found.end() :]


KeyTable = Sequence[Key]

_patterns: dict[str, re.Pattern[str]] = {}


def _pattern(template: str) -> re.Pattern[str]:
    if template not in _patterns:
        literals = [re.escape(part) for part in _FIELD.split(template)[::3]]
        fields = [rf"(?P<{name}>\d+)" for name, _ in _FIELD.findall(template)]
        body = "".join(a + b for a, b in zip(literals, [*fields, ""], strict=True))
        _patterns[template] = re.compile(body + r"(?=\.|$)")
    return _patterns[template]


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Name -> tensor from a weights file (.safetensors, .pth, .pt, .bin, .ckpt), nesting and prefixes removed.

    A folder stands for the ``model.safetensors`` in it; where a task was trained, only its backbone is read.

    Raises:
        CheckpointError: missing, unreadable, of another kind, or in need of unpickling code.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise CheckpointError(f"weights file {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            return strip_prefixes(load_file(path))
        if path.suffix in (".pth", ".pt", ".bin", ".ckpt", ".tar"):
            return strip_prefixes(_unwrap(torch.load(path, map_location="cpu", weights_only=True), path))
        if path.suffix == ".npz":
            return strip_prefixes(_read_npz(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged or holds more than tensors, and Vitrail runs no code from weights files; "
            f"save its state dict alone as .safetensors"
        ) from error
    except (SafetensorError, BadZipFile, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error) or "it ends too early").splitlines()[0]
        raise CheckpointError(f"{path} is damaged: {reason}; download or save it again") from error
    known = ".safetensors, .pth, .pt, .bin, .ckpt"
    raise CheckpointError(f"{path}: unknown kind of weights file '{path.suffix}'; known: {known}")


def _read_folder(folder: Path) -> dict[str, Tensor]:
    file = folder / "model.safetensors"
    if not file.is_file():
        raise CheckpointError(
            f"folder {folder} has no {file.name}; give a weights file, or the folder of a trained run "
            f"(an interrupted run has weights after: vitrail train --run {typed_path(folder)} --resume)"
        )
    state = read_weights(file)
    prefix = "backbone."
    return {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)} or state


def read_trained(path: Path) -> dict[str, Tensor]:
    """The weights that a training wrote, under a task's own names.

    Raises:
        CheckpointError: they are damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {str(error).splitlines()[0]}; train the run again") from error


def _read_npz(path: Path) -> dict[str, Tensor]:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        names = [name for name in arrays.files if name.startswith("opt/target/")] or arrays.files
        return {name.replace("/", "."): torch.from_numpy(arrays[name]) for name in names}


def _unwrap(value: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(value, Mapping):
        tensors = {str(name): tensor for name, tensor in value.items() if isinstance(tensor, Tensor)}
        inner = next((value[name] for name in WRAPPERS if isinstance(value.get(name), Mapping)), None)
        if inner is None:
            if not tensors:
                break
            return tensors
        value = inner
    raise CheckpointError(f"{path} holds no state dict (looked for tensors, also under {', '.join(WRAPPERS)})")


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the wrappers' prefixes, as long as every name has the same one."""
    names = list(state)
    while prefix := next((p for p in PREFIXES if names and all(name.startswith(p) for name in names)), None):
        names = [name.removeprefix(prefix) for name in names]
    return dict(zip(names, state.values(), strict=True))


def rename(state: Mapping[str, Tensor], table: KeyTable) -> dict[str, Tensor]:
    """The tensors under our names; names that no row maps are kept as they are."""
    rows = sorted(table, key=lambda row: -len(_FIELD.sub("", row.theirs)))
    renamed: dict[str, Tensor] = {}
    pieces: dict[str, dict[int, Tensor]] = {}
    counts: dict[str, int] = {}
    for name, tensor in state.items():
        row, ours = next(((row, ours) for row in rows if (ours := row.match(name)) is not None), (None, name))
        if row is not None and not ours:
            continue
        if row is not None and row.convert is not None:
            tensor = row.convert(tensor)
        if row is not None and row.part is not None:
            pieces.setdefault(ours, {})[row.part[0]] = tensor
            counts[ours] = row.part[1]
        else:
            renamed[ours] = tensor
    for name, parts in pieces.items():
        if sorted(parts) != list(range(counts[name])):
            raise CheckpointError(f"{name} needs {counts[name]} pieces in the checkpoint; found only {len(parts)}")
        renamed[name] = torch.cat([parts[i] for i in range(counts[name])])
    return renamed


def load_state(
    model: Backbone,
    state: Mapping[str, Tensor],
    layouts: Mapping[str, KeyTable],
    *,
    replace_head: bool = False,
    source: str = "the checkpoint",
) -> str:
    """Load ``state`` strictly, in whichever layout fits best; position tables are resized.

    Args:
        model: receives the weights.
        state: names -> tensors, in our layout or in one of ``layouts``.
        layouts: the family's key tables.
        replace_head: keep the model's own classifier where the checkpoint's has another size or is missing.
        source: how error messages call the checkpoint.

    Returns:
        the name of the layout ("vitrail" for our own).

    Raises:
        CheckpointError: keys or shapes that do not fit, by name.
    """
    target = model.state_dict()
    candidates = {"vitrail": dict(state)} | {name: rename(state, table) for name, table in layouts.items()}
    layout = max(candidates, key=lambda name: len(target.keys() & candidates[name].keys()))
    given = {name: _resized(model, name, tensor, target.get(name)) for name, tensor in candidates[layout].items()}
    misfits = _misfits(model, given)
    heads = {name for name in misfits if name.startswith(model.head_prefixes)}
    if replace_head:
        given = {name: tensor for name, tensor in given.items() if name not in heads}
        given |= {name: tensor for name, tensor in target.items() if name in heads}
    by_head = "vitrail train begins a new classifier by itself, and create_model does with replace_head=True"
    remedy = by_head if heads == misfits.keys() else "is it another model's?"
    load_strictly(model, given, f"{source} (layout '{layout}')", remedy=remedy)
    return layout


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str, *, remedy: str) -> None:
    """Load every tensor of ``state`` into ``module``, which has exactly these names and shapes.

    Args:
        module: receives the weights.
        state: names -> tensors.
        source: how error messages call the weights.
        remedy: how error messages end.

    Raises:
        CheckpointError: names or shapes that do not fit, with the first eight of them.
    """
    if texts := sorted(_misfits(module, state).values()):
        shown = "; ".join(texts[:8]) + (f"; and {len(texts) - 8} more" if len(texts) > 8 else "")
        raise CheckpointError(f"{source} does not fit {type(module).__name__}: {shown}; {remedy}")
    module.load_state_dict(state)


def _resized(model: Backbone, name: str, tensor: Tensor, wanted: Tensor | None) -> Tensor:
    """In the model's shape, where the family knows how."""
    if wanted is None or wanted.shape == tensor.shape:
        return tensor
    resized = model.adapt_tensor(name, tensor, tuple(wanted.shape))
    return tensor if resized is None else resized


def _misfits(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, str]:
    """Name -> what is wrong with it."""
    target = module.state_dict()
    misfits = {name: f"missing {name}" for name in target.keys() - state.keys()}
    misfits |= {name: f"unexpected {name}" for name in state.keys() - target.keys()}
    for name in target.keys() & state.keys():
        theirs, ours = _shape(state[name].shape), _shape(target[name].shape)
        if theirs != ours:
            misfits[name] = f"{name} is {theirs} in the file and {ours} in the model"
    return misfits


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
