"""Weights files: read without running any code in them, rename the authors' keys to ours, load strictly.

A family describes an authors' layout as a table of :class:`Key` rows. Templates hold integers in braces:
``Key("patch_embed{s+1}.norm", "stages.{s}.downsample.norm")`` maps ``patch_embed1.norm.weight`` to
``stages.0.downsample.norm.weight``. A row applies to a whole dotted prefix; the longest fitting one wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.core.errors import CheckpointError
from vitrail.core.paths import typed_path
from vitrail.core.types import ImageSize
from vitrail.models.base import Backbone
from vitrail.models.fit_checkpoint import adapt, remedy_of
from vitrail.models.weights_file import check_tensors, read_contents, read_safetensors

WRAPPERS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema", "teacher"),
    *("state_dict", "model_state_dict", "model", "net", "params", "student", "module", "weights"),
)
"""Names under which trainers nest weights; averaged weights first, since published results are theirs."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.", "opt.target.")
"""Prefixes that DistributedDataParallel, torch.compile, Lightning modules, our own tasks and Flax's optimisers add to
every name."""

DEEPEST = 16
"""So many wrappers are looked into, and so many prefixes are taken off."""

NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Kinds of numbers that weights may have in a file."""

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""Kinds of numbers that counters may have in a file."""


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
    """Name -> tensor from a weights file (.safetensors, .pth, .pt, .bin, .ckpt, .npz), nesting and prefixes removed.

    A folder stands for the ``model.safetensors`` in it; where a task was trained, only its backbone is read.

    Raises:
        CheckpointError: missing, unreadable, of another kind, or in need of unpickling code.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    try:
        contents = read_contents(path)
    except CheckpointError:
        raise
    except (MemoryError, RuntimeError, ValueError) as error:  # the file declares more than there is memory
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path} needs more memory than there is ({reason}); end other programs, or download it again"
        ) from error
    state = _find_state(contents, set())
    if state is None:
        raise CheckpointError(f"{path} holds no state dict {_places(contents)}")
    check_tensors(path, state)
    return strip_prefixes(state)


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
    return read_safetensors(path, "train the run again")


def _find_state(value: Any, seen: set[int]) -> dict[str, Tensor] | None:
    """The tensors of the first wrapper, or beside the wrappers; a dictionary may contain itself.

    Entries with less than half as many tensors as another are no model (a few counters, for instance).
    """
    if not isinstance(value, Mapping) or id(value) in seen or len(seen) > DEEPEST:
        return None
    seen.add(id(value))
    found = [_find_state(value.get(name), seen) or {} for name in WRAPPERS]
    found.append({str(name): tensor for name, tensor in value.items() if isinstance(tensor, Tensor)})
    most = max(map(len, found))
    return next(state for state in found if 2 * len(state) >= most) or None


def _places(contents: Any) -> str:
    """Where the tensors of a file may be, for the error that they were not found."""
    if isinstance(contents, Mapping):
        inner = [str(k) for k, v in contents.items() if isinstance(v, Mapping) and _find_state(v, set())]
        if inner:
            return f"under a known name; there are tensors under '{inner[0]}': save that entry alone"
    return f"(looked for tensors, also under {', '.join(WRAPPERS)}); save model.state_dict()"


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the wrappers' prefixes, as long as every name has the same one."""
    names = list(state)
    for _ in range(DEEPEST):
        prefix = next((p for p in PREFIXES if names and all(name.startswith(p) for name in names)), "")
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
            try:
                tensor = row.convert(tensor)
            except (RuntimeError, IndexError) as error:  # another number of dimensions
                raise CheckpointError(f"'{name}' has the shape {_shape(tensor.shape)}, which cannot be it") from error
        if row is not None and row.part is not None:
            pieces.setdefault(ours, {})[row.part[0]] = tensor
            counts[ours] = row.part[1]
        elif ours in renamed:
            raise CheckpointError(f"'{name}' is in the checkpoint twice, under two names; save one of them alone")
        else:
            renamed[ours] = tensor
    for name, parts in pieces.items():
        if sorted(parts) != list(range(counts[name])):
            raise CheckpointError(f"{name} needs {counts[name]} pieces in the checkpoint; found only {len(parts)}")
        shapes = {_shape(part.shape) for part in parts.values()}
        if len(shapes) > 1 or "scalar" in shapes:
            raise CheckpointError(f"the pieces of {name} have the shapes {', '.join(sorted(shapes))}, not one shape")
        renamed[name] = torch.cat([parts[i] for i in range(counts[name])])
    return renamed


def load_state(
    model: Backbone,
    state: Mapping[str, Tensor],
    layouts: Mapping[str, KeyTable],
    *,
    replace_head: bool = False,
    source: str = "the checkpoint",
    image_size: ImageSize | None = None,
) -> str:
    """Load ``state`` strictly, in whichever layout fits best; position tables are resized.

    Weights of three channels are summed or repeated for a model of another number, by timm's rule. What is decided so
    is added to ``model.remarks``.

    Args:
        model: receives the weights.
        state: names -> tensors, in our layout or in one of ``layouts``, perhaps below a prefix.
        layouts: the family's key tables.
        replace_head: keep the model's own classifier where the checkpoint's has another size or is missing.
        source: how error messages call the checkpoint.
        image_size: (height, width) that the weights were made for. Default: square.

    Returns:
        the name of the layout ("vitrail" for our own).

    Raises:
        CheckpointError: keys, shapes or numbers that do not fit, by name.
    """
    found = find_layout(model, state, layouts, source)
    target, heads = model.state_dict(), model.head_prefixes
    given, remarks = dict(found.state), list(found.remarks)
    if all(name.startswith(heads) for name in target.keys() ^ given.keys()):
        given, adapted = adapt(model, given, source, image_size)
        remarks += adapted
    misfits = _misfits(model, given)
    replaced = {name for name in misfits if name.startswith(heads)}
    if replace_head:
        given = {name: tensor for name, tensor in given.items() if name not in replaced}
        given |= {name: tensor for name, tensor in target.items() if name in replaced}
    remedy = remedy_of(model, found.state, only_head=replaced == misfits.keys())
    load_strictly(model, given, f"{source} (layout '{found.layout}')", remedy=remedy)
    model.remarks += tuple(remarks)
    return found.layout


@dataclass(frozen=True)
class FoundLayout:
    """The layout of a checkpoint.

    Attributes:
        layout: its name; "vitrail" is our own.
        state: our names -> tensors.
        remarks: sentence on the tensors that were left out, if any.
    """

    layout: str
    state: Mapping[str, Tensor]
    remarks: tuple[str, ...] = ()


def find_layout(
    model: Backbone, state: Mapping[str, Tensor], layouts: Mapping[str, KeyTable], source: str
) -> FoundLayout:
    """The layout, and where few names fit, the prefix, in which most of the names are the model's.

    Raises:
        CheckpointError: the layout cannot be used, or two copies of the model fit.
    """
    target = model.state_dict().keys()
    try:
        found = _best_layout(target, state, layouts)
        if 2 * _count(target, found) >= len(target):
            return found
        parts = {prefix: below for prefix, below in _prefixed(state).items() if 2 * len(below) >= len(target)}
        inner = {prefix: _best_layout(target, below, layouts) for prefix, below in parts.items()}
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    best = max((_count(target, one) for one in inner.values()), default=0)
    if 2 * best < len(target):
        return found
    prefix, *others = [prefix for prefix, one in inner.items() if _count(target, one) == best]
    if others:
        raise CheckpointError(
            f"{source} holds several models, named '{prefix}...' and '{others[0]}...'; save one of them alone"
        )
    left = [name for name in state if not name.startswith(prefix)]
    more = f" and {len(left) - 3} more" if len(left) > 3 else ""
    remark = f"{source}: tensors outside of '{prefix}' are left out: {', '.join(left[:3])}{more}"
    return replace(inner[prefix], remarks=(remark,) if left else ())


def _count(target: Set[str], found: FoundLayout) -> int:
    return len(target & found.state.keys())


def _best_layout(target: Set[str], state: Mapping[str, Tensor], layouts: Mapping[str, KeyTable]) -> FoundLayout:
    found, failure = [FoundLayout("vitrail", state)], None
    for name, table in layouts.items():
        try:
            found.append(FoundLayout(name, rename(state, table)))
        except CheckpointError as error:
            failure = error
    best = max(found, key=lambda one: _count(target, one))
    if failure is not None and 2 * _count(target, best) < len(target):
        raise failure
    return best


def _prefixed(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Prefix of one to three words -> the tensors below it, under the rest of their names."""
    below: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        for dot in [at for at, sign in enumerate(name) if sign == "."][:3]:
            below.setdefault(name[: dot + 1], {})[name[dot + 1 :]] = tensor
    return below


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
    for name, wanted in module.state_dict().items():
        tensor = state[name]
        known = NUMBERS if wanted.is_floating_point() else INTEGERS
        if tensor.dtype != wanted.dtype and tensor.dtype not in known:
            kind = str(wanted.dtype).removeprefix("torch.")
            raise CheckpointError(f"{source}: '{name}' has numbers of kind {tensor.dtype}; save it as {kind}")
        if torch.isfinite(wanted).all() and not torch.isfinite(tensor.to(wanted.dtype)).all():
            raise CheckpointError(
                f"{source}: '{name}' has values that are NaN or infinite; take weights from before the training failed"
            )
    module.load_state_dict(state)


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
