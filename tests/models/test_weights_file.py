"""Hostile, damaged and merely unusual weights files: each loads, or is refused in one sentence."""

from __future__ import annotations

import argparse
import io
import os
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vitrail import create_model, load_checkpoint
from vitrail.core.errors import CheckpointError
from vitrail.models import Backbone
from vitrail.models.checkpoint import read_trained, read_weights

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # PyTorch's, on old kinds


def small() -> Backbone:
    return create_model("vit_nano_patch4", num_classes=3, image_size=32, depth=1, embed_dim=16, num_heads=2)


def one_sentence(path: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(small(), path)
    text = str(error.value)
    assert path.name in text
    assert "\n" not in text
    assert ";" in text, "the remedy"
    assert "damaged: /" not in text, "one error inside another"
    for word in words:
        assert word in text


def test_what_timms_trainer_saves_is_loaded(tmp_path: Path) -> None:
    trained, model = small(), small()
    options = argparse.Namespace(lr=1e-3, mean=[0.5, 0.5, 0.5], opt=None, inner=argparse.Namespace(epochs=3))
    numbers = {"metric": np.float64(81.2), "best": np.float32(1), "epoch": np.int64(3), "amp": np.bool_(True)}
    torch.save(
        {"state_dict": trained.state_dict(), "args": options, "arch": "vit"} | numbers, tmp_path / "last.pth.tar"
    )
    load_checkpoint(model, tmp_path / "last.pth.tar")
    assert torch.equal(model.pos_embed.table, trained.pos_embed.table)


@pytest.mark.parametrize(
    "value",
    [Path("a"), np.zeros(2), small, ValueError("x"), Backbone],
    ids=["path", "array", "function", "error", "class"],
)
def test_other_objects_are_refused_by_their_class(tmp_path: Path, value: object) -> None:
    torch.save({"state_dict": small().state_dict(), "extra": value}, tmp_path / "w.pth")
    one_sentence(tmp_path / "w.pth", "runs no code from weights files", "save_file")


def test_a_whole_model_is_named(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "w.pth")
    one_sentence(tmp_path / "w.pth", "holds a vitrail.models.vit.ViT")


def test_a_torchscript_program_is_named(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "w.pt")
    one_sentence(tmp_path / "w.pt", "TorchScript program")


@pytest.mark.parametrize(
    "wrappers",
    [("net",), ("params",), ("teacher",), ("student",), ("module",), ("ema",), ("model_ema",), ("model", "state_dict")],
)
@pytest.mark.parametrize("prefix", ["", "model.", "net.", "backbone.", "encoder.", "module.model.", "my.own."])
def test_wrappers_and_prefixes_of_trainers(tmp_path: Path, wrappers: tuple[str, ...], prefix: str) -> None:
    trained, model = small(), small()
    state: dict[str, Any] = {prefix + name: tensor for name, tensor in trained.state_dict().items()}
    for wrapper in reversed(wrappers):
        state = {wrapper: state, "epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(())}}}}
    torch.save(state, tmp_path / "w.ckpt")
    load_checkpoint(model, tmp_path / "w.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), model.parameters(), strict=True))
    assert model.remarks == ()


@pytest.mark.parametrize("empty", [None, {}, {"step": 3}])
def test_an_empty_average_is_passed_over(tmp_path: Path, empty: object) -> None:
    torch.save({"state_dict_ema": empty, "state_dict": small().state_dict()}, tmp_path / "w.pth")
    load_checkpoint(small(), tmp_path / "w.pth")


@pytest.mark.parametrize(
    "counters", [{"decay": torch.ones(())}, {"decay": torch.ones(()), "num_updates": torch.ones(())}]
)
def test_counters_are_no_model(tmp_path: Path, counters: dict) -> None:
    torch.save({"ema": counters, "model": small().state_dict()}, tmp_path / "w.pth")
    load_checkpoint(small(), tmp_path / "w.pth")


def test_the_teacher_wins_over_the_student(tmp_path: Path) -> None:
    teacher, model = small(), small()
    torch.save({"student": small().state_dict(), "teacher": teacher.state_dict()}, tmp_path / "w.pth")
    load_checkpoint(model, tmp_path / "w.pth")
    assert torch.equal(model.pos_embed.table, teacher.pos_embed.table)


def test_what_lies_outside_of_the_model_is_left_out_and_told(tmp_path: Path) -> None:
    trained, model = small(), small()
    state = {f"net.model.{name}": tensor for name, tensor in trained.state_dict().items()}
    torch.save({"state_dict": state | {"net.loss.weight": torch.ones(3)}}, tmp_path / "w.ckpt")
    load_checkpoint(model, tmp_path / "w.ckpt")
    assert torch.equal(model.pos_embed.table, trained.pos_embed.table)
    assert [remark.endswith("outside of 'model.' are left out: loss.weight") for remark in model.remarks] == [True]


def test_two_models_in_one_file_are_not_resolved_by_chance(tmp_path: Path) -> None:
    copies = {f"{name}.{key}": value for name in ("query", "key") for key, value in small().state_dict().items()}
    torch.save(copies, tmp_path / "w.pth")
    one_sentence(tmp_path / "w.pth", "several models", "'query.", "'key.")


def test_an_unknown_wrapper_is_named(tmp_path: Path) -> None:
    torch.save({"mine": small().state_dict()}, tmp_path / "w.pth")
    one_sentence(tmp_path / "w.pth", "there are tensors under 'mine'")


def test_a_dictionary_in_itself_ends(tmp_path: Path) -> None:
    for tensors in ({}, {"loss.weight": torch.ones(1)}):
        looped: dict[str, Any] = {"epoch": 1} | tensors
        looped["state_dict"] = looped["model"] = looped
        torch.save(looped, tmp_path / "w.pth")
        one_sentence(tmp_path / "w.pth")


def test_a_deep_nest_ends(tmp_path: Path) -> None:
    nested: dict[str, Any] = {"head.weight": torch.ones(1)}
    for _ in range(300):
        nested = {"model": nested}
    torch.save(nested, tmp_path / "w.pth")
    one_sentence(tmp_path / "w.pth", "holds no state dict")


@pytest.mark.parametrize("value", [None, 3, [torch.ones(1)], torch.ones(3), "text", {}, {"epoch": 3}], ids=str)
def test_something_else_than_a_state_dict(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "w.pth")
    one_sentence(tmp_path / "w.pth", "holds no state dict")


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "sparse": lambda t: t.to_sparse(),
    "sparse ": lambda t: t.to_sparse_csr(),
    "meta device": lambda t: t.to("meta"),
    "quantised": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "complex": lambda t: t.to(torch.complex64),
    "torch.int64": lambda t: t.long(),
    "torch.bool": lambda t: t.bool(),
    "torch.float8_e4m3fn": lambda t: t.to(torch.float8_e4m3fn),
    "NaN": lambda t: t.index_fill(0, torch.tensor([1]), float("nan")),
    "infinite": lambda t: t / 0,
    "infinite ": lambda t: torch.full_like(t, 1e300, dtype=torch.float64),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_tensors_that_are_no_weights_are_named(tmp_path: Path, kind: str) -> None:
    model = small()
    before = model.pos_embed.table.clone()
    state = model.state_dict()
    torch.save(state | {"head.weight": CHANGES[kind](state["head.weight"])}, tmp_path / "w.pth")
    one_sentence(tmp_path / "w.pth", "'head.weight'", kind.strip())
    assert torch.equal(before, model.pos_embed.table)


def test_eight_bit_floats_of_safetensors_are_named(tmp_path: Path) -> None:
    state = small().state_dict()
    save_file(state | {"head.weight": state["head.weight"].to(torch.float8_e5m2)}, tmp_path / "w.safetensors")
    one_sentence(tmp_path / "w.safetensors", "'head.weight'", "float8_e5m2")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_loaded(tmp_path: Path, kind: torch.dtype) -> None:
    trained, model = small(), small()
    torch.save({name: tensor.to(kind) for name, tensor in trained.state_dict().items()}, tmp_path / "w.pth")
    load_checkpoint(model, tmp_path / "w.pth")
    torch.testing.assert_close(model.pos_embed.table, trained.pos_embed.table, rtol=1e-2, atol=1e-2)


def test_a_name_that_is_there_twice(tmp_path: Path) -> None:
    entry = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    header = f'{{"a":{entry},"a":{entry}}}'.encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    one_sentence(tmp_path / "w.safetensors", "holds 'a' twice")
    with pytest.raises(CheckpointError, match="holds 'a' twice; train the run again"):
        read_trained(tmp_path / "w.safetensors")


def test_one_tensor_under_two_names(tmp_path: Path) -> None:
    state = small().state_dict()
    torch.save(state | {"cls_token": state["class_token"]}, tmp_path / "w.pth")
    one_sentence(tmp_path / "w.pth", "cls_token")


@pytest.mark.parametrize(
    "array",
    [np.array(["x"]), np.array(["2020-01-01"], "M8[D]"), np.zeros(2, [("x", "f4")]), np.zeros(2, np.longdouble)],
    ids=str,
)
def test_arrays_of_something_else_than_numbers(tmp_path: Path, array: np.ndarray) -> None:
    np.savez(tmp_path / "w.npz", cls=array)
    one_sentence(tmp_path / "w.npz", "'cls'")


@pytest.mark.parametrize(
    "arrays",
    [
        {"cls": np.zeros(()), "head/kernel": np.zeros((2, 2, 2)), "embedding/kernel": np.zeros(3)},
        {
            f"Transformer/encoderblock_0/MultiHeadDotProductAttention_1/{r}/kernel": np.zeros(2)
            for r in ("query", "key")
        },
        {
            f"Transformer/encoderblock_0/MultiHeadDotProductAttention_1/{r}/kernel": np.zeros((2, 2, len(r)))
            for r in ("query", "key", "value")
        },
    ],
    ids=["other dimensions", "too few", "unequal"],
)
def test_arrays_of_other_shapes_than_the_authors(tmp_path: Path, arrays: dict) -> None:
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(CheckpointError, match=r"w\.npz"):
        load_checkpoint(small(), tmp_path / "w.npz")


@pytest.mark.parametrize("content", [b"raw", b"\x93NUMPY\x01\x00\x08\x00((((((((", b"\x93NUMPY\x09\x09"])
def test_members_that_are_no_arrays(tmp_path: Path, content: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("cls.npy" if content[:1] == b"\x93" else "cls", content)
    one_sentence(tmp_path / "w.npz", "'cls'")


@pytest.mark.parametrize("shape", [(3_000_000_000,), (2**40, 2**20)])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_a_head_that_declares_more_than_follows(tmp_path: Path, shape: tuple[int, ...], version: tuple) -> None:
    head = io.BytesIO()
    write = np.lib.format.write_array_header_1_0 if version == (1, 0) else np.lib.format.write_array_header_2_0
    write(head, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("cls.npy", head.getvalue() + bytes(8))
    one_sentence(tmp_path / "w.npz", "cls.npy", "declares")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        ValueError("array is too big"),
    ],
)
def test_more_memory_than_there_is(tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(small().state_dict(), tmp_path / "w.pth")

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", fail)
    one_sentence(tmp_path / "w.pth")


def _zip_bomb(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("cls.npy", "w") as f,
    ):
        for _ in range(300):
            f.write(bytes(2**20))


@pytest.mark.parametrize("suffix", [".npz", ".pth"])
def test_a_small_file_with_much_in_it(tmp_path: Path, suffix: str) -> None:
    _zip_bomb(tmp_path / f"w{suffix}")
    one_sentence(tmp_path / f"w{suffix}", f"unpacks to {300 * 2**20}")


def test_a_small_tensor_spread_over_much(tmp_path: Path) -> None:
    torch.save(small().state_dict() | {"large": torch.ones(1).expand(10**10)}, tmp_path / "w.pth")
    one_sentence(tmp_path / "w.pth", "unpacks to 4000")


def test_more_names_than_any_model_has(tmp_path: Path) -> None:
    one = torch.ones(1)
    torch.save({f"a.{i}": one for i in range(30_000)}, tmp_path / "w.pth")
    one_sentence(tmp_path / "w.pth", "30000 tensors")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.npz"])
def test_something_that_is_no_file(tmp_path: Path, name: str) -> None:
    one_sentence(tmp_path / name, "does not exist")
    os.mkfifo(tmp_path / name)
    for read in (read_weights, read_trained):
        with pytest.raises(CheckpointError, match=rf"{name}.* no regular file") as error:
            read(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", range(40))
def test_mutated_bytes_are_one_error(tmp_path: Path, seed: int) -> None:
    """Whatever PyTorch raises for a damaged pickle is one error of ours."""
    torch.save({"state_dict": {"head.weight": torch.ones(3)}}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    content = bytearray((tmp_path / "w.pth").read_bytes())
    chance = np.random.default_rng(seed)
    for place in chance.integers(0, len(content), 3):
        content[place] = chance.integers(0, 256)
    (tmp_path / "w.pth").write_bytes(content)
    with suppress(CheckpointError):
        read_weights(tmp_path / "w.pth")
