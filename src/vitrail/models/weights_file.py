"""Weights files of all kinds as nested names and tensors, read without running any code in them.

Whatever is in a file, the answer is its contents or one :class:`~vitrail.core.errors.CheckpointError`.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from safetensors.torch import load_file
from torch import Tensor

from vitrail.core.errors import CheckpointError
from vitrail.core.faults import find_fault
from vitrail.core.files import check_regular, open_regular

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")

LARGEST_RATIO, SMALL_BYTES = 8, 2**28
"""A file may unpack to this many times its size, and any file to this many bytes: more is a bomb, not weights."""

MOST_TENSORS = 20_000
"""More than any model has, with its optimiser."""

_SCALAR = np.float64(0).__reduce__()[0]
_SAFE: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *dict.fromkeys(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
    *((_SCALAR, f"{package}.multiarray.scalar") for package in ("numpy.core", "numpy._core")),
]
"""What trainers (timm's among them) keep beside the weights, and what is data: options, and NumPy's single numbers."""

_REFUSED = re.compile(r"GLOBAL ([\w.]+)")


def read_contents(path: Path) -> Any:
    """The contents of a weights file (.safetensors, .pth, .pt, .bin, .ckpt, .tar, .npz): mostly nested dictionaries.

    Raises:
        CheckpointError: missing, damaged, of another kind, larger than it can be, or in need of unpickling code.
    """
    _need_file(path)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return read_safetensors(path, "download or save it again")
    if suffix in TORCH_SUFFIXES:
        return _read_torch(path)
    if suffix == ".npz":
        return _read_npz(path)
    known = ", ".join((".safetensors", ".npz", *TORCH_SUFFIXES))
    raise CheckpointError(f"{path}: unknown kind of weights file '{path.suffix}'; known: {known}")


def read_safetensors(path: Path, remedy: str) -> dict[str, Tensor]:
    """Name -> tensor of a safetensors file.

    Args:
        path: the file.
        remedy: how error messages end.

    Raises:
        CheckpointError: missing, damaged, or two tensors have one name.
    """
    _need_file(path)
    try:
        state = load_file(path)  # which has checked the length of the header
        with open_regular(path) as file:
            header = file.read(int.from_bytes(file.read(8), "little"))
        names: list[str] = [name for name, _ in json.loads(header, object_pairs_hook=list)]
    except Exception as error:  # the library and its parser raise many kinds
        if find_fault(error) is not None:  # the file is not to blame
            raise
        raise _damaged(path, error, remedy) from error
    if len(names) > len(set(names)):
        twice = next(name for name in names if names.count(name) > 1)
        raise CheckpointError(f"{path} holds '{twice}' twice; {remedy}")
    return state


def _read_torch(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            _check_archive(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_SAFE):
            warnings.simplefilter("ignore")  # on old formats; whatever fails is an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        found = _REFUSED.search(str(error))
        raise CheckpointError(
            f"{path} {f'holds a {found[1]}' if found else 'is damaged or holds more than tensors'}, and Vitrail runs "
            "no code from weights files; load it where it was made and save its state dict alone: "
            'safetensors.torch.save_file(model.state_dict(), "model.safetensors")'
        ) from error
    except Exception as error:  # PyTorch raises many kinds for files that are no checkpoints
        if find_fault(error) is not None:
            raise
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path} is a TorchScript program, and Vitrail runs no code from weights files; save its state dict: "
                'torch.save(torch.jit.load(path).state_dict(), "model.pth")'
            ) from error
        raise _damaged(path, error, "download or save it again") from error


def _read_npz(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    name = ""
    try:
        _check_archive(path)
        with open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
            names = [name for name in arrays.files if name.startswith("opt/target/")] or arrays.files
            for name in names:
                state[name.replace("/", ".")] = torch.from_numpy(arrays[name])
    except CheckpointError:
        raise
    except Exception as error:  # NumPy raises many kinds; TypeError is an array of something else than numbers
        if find_fault(error) is not None:
            raise
        raise _damaged(path, error, "download or save it again", name and f" ('{name}')") from error
    return state


def _damaged(path: Path, error: Exception, remedy: str, where: str = "") -> CheckpointError:
    reason = (str(error).strip() or f"it ends too early ({type(error).__name__})").splitlines()[0][:300]
    return CheckpointError(f"{path} is damaged{where}: {reason}; {remedy}")


def _need_file(path: Path) -> None:
    if not path.exists():
        raise CheckpointError(f"weights file {path} does not exist; give the path of a weights file or of a run folder")
    try:
        check_regular(path)
    except OSError as error:
        raise CheckpointError(f"weights file {path} cannot be read: {error.strerror}") from error


def _check_archive(path: Path) -> None:
    """Refuse an archive that unpacks to much, or has an array whose head declares more than follows."""
    with zipfile.ZipFile(path) as archive:
        check_size(path, sum(entry.file_size for entry in archive.infolist()))
        for entry in archive.infolist() if path.suffix.lower() == ".npz" else ():
            declared = _declared_bytes(archive, entry.filename)
            if declared > entry.file_size:
                raise CheckpointError(
                    f"{path} is damaged: '{entry.filename}' declares {declared} bytes and has {entry.file_size}; "
                    "download or save it again"
                )


def _declared_bytes(archive: zipfile.ZipFile, name: str) -> int:
    """Size of an array by its head; 0 where that is none, which reading it tells."""
    try:
        with archive.open(name) as member:
            version = read_magic(member)
            shape, _, dtype = (read_array_header_1_0 if version == (1, 0) else read_array_header_2_0)(member)
    except Exception:  # noqa: BLE001 (NumPy raises many kinds)
        return 0
    return prod(shape) * dtype.itemsize


def check_size(path: Path, num_bytes: int) -> None:
    """Refuse contents that are much larger than their file.

    Args:
        path: the file.
        num_bytes: size of what it unpacks to.

    Raises:
        CheckpointError: it is a bomb.
    """
    size = path.stat().st_size
    if num_bytes > max(SMALL_BYTES, LARGEST_RATIO * size):
        raise CheckpointError(
            f"{path} has {size} bytes and unpacks to {num_bytes}, which no weights do; save them uncompressed"
        )


def check_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse tensors that hold no plain numbers in memory, and too many of them.

    Raises:
        CheckpointError: the first sparse, quantised, complex or empty-handed (meta) tensor, or too many numbers.
    """
    if len(state) > MOST_TENSORS:
        raise CheckpointError(
            f"{path} has {len(state)} tensors, more than any model; save the model's state dict alone"
        )
    for name, tensor in state.items():
        kinds = {
            "quantised": tensor.is_quantized,
            "nested": tensor.is_nested,
            "sparse": tensor.layout != torch.strided,
            "without values (on the meta device)": tensor.is_meta,
            "complex": tensor.is_complex(),
        }
        if kind := next((kind for kind, found in kinds.items() if found), None):
            raise CheckpointError(f"{path}: tensor '{name}' is {kind}; save it as ordinary dense numbers")
    check_size(path, sum(tensor.numel() * tensor.element_size() for tensor in state.values()))
