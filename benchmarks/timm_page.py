"""The page docs/results/timm.md from the rows of benchmarks/timm_models.py."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from vitrail.runtimes.alike import INTEGER_TOLERANCE

Row = dict[str, Any]

HEAD = """# What networks of timm can do here

Each row is one network of [timm](../timm.md), the smallest of its kind, with **random weights**. It says whether the
parts of the network pass the functions that the verbs call; it says nothing of accuracy.

<!-- test: not run (a minute for each network) -->
```sh
python benchmarks/timm_models.py
```

"""

LEGEND = """
- **image**: side of the smallest of some square images that the network takes.
- **levels**: strides of the maps that detection, segmentation and pose get. A network with one stride (*plain*) gets
  the others from it, as ViTDet does.
- **loss**: cross-entropy of 4 photographs before and after 2 steps of AdamW, from timm's initial weights.
- **joined**: convolutions and linear layers in training, and in the files, where branches and norms are joined before.
- **float**: largest difference of the file's outputs from PyTorch's, over the largest output: the ONNX file in ONNX
  Runtime and in OpenVINO, and OpenVINO's own file. Above 1e-4 no file is written.
- **int8**: how far the 8-bit file's logits are from the float model's: root mean square of the difference, over the
  standard deviation of the float logits between images. A file that answers the same to every image has 1. Method
  `min_max`, 8 photographs, on which it is measured too. With random weights the logits of two classes are often nearly
  equal, so that the share of equal first classes says little; it is in the JSON alone. A star: the runtime and the
  simulation in PyTorch are further apart than 0.1 of the largest logit, where `vitrail export` refuses the file.
- **compiles**: `torch.compile` takes it as one graph, with the same outputs; empty where it was not tried.
"""

COLUMNS = (
    *("network", "timm's file", "image", "parameters", "levels", "loss", "joined", "float: ONNX Runtime", "OpenVINO"),
    *("OpenVINO's file", "int8: ONNX Runtime", "OpenVINO", "compiles"),
)
STAGES = ("size", "levels", "train", "export", "int8", "compile")
"""Entries of a row that hold what was found, or the reason why not."""


def timm_version() -> str:
    return version("timm")


def page(rows: list[Row]) -> str:
    """The page as Markdown."""
    ordered = sorted(rows, key=lambda row: (row["module"], row["architecture"]))
    notes: list[str] = []
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
        *(_line(row, notes) for row in ordered),
    ]
    numbered = [f"{number}. {note}" for number, note in enumerate(notes, start=1)]
    reasons = ["", "What is not possible, in the words that a user gets:", "", *numbered] if notes else []
    return HEAD + summary(rows) + "\n" + "\n".join(lines) + "\n" + LEGEND + "\n".join(reasons) + "\n\n" + _made(rows)


def summary(rows: list[Row]) -> str:
    """How many networks do what."""
    told = [f"{len(rows)} networks of {len({row['module'] for row in rows})} of timm's files"]
    for key, words in (
        ("train", "train"),
        ("levels", "give levels to dense tasks"),
        ("export", "export to ONNX and OpenVINO"),
        ("int8", "quantise to 8 bits"),
        ("compile", "compile"),
    ):
        tried = [row[key] for row in rows if key in row]
        if tried:
            of = f" of {len(tried)}" if len(tried) != len(rows) else ""
            told.append(f"{sum(not _failed(one) for one in tried)}{of} {words}")
    return "; ".join(told) + ".\n"


def told(row: Row) -> str:
    """One line for the terminal."""
    return "; ".join(f"{key} {_failed(row[key]) or 'ok'}" for key in STAGES if key in row)


def _failed(result: Row) -> str:
    return str(result.get("fault") or result.get("reason") or "")


def _line(row: Row, notes: list[str]) -> str:
    size, levels, train, export, int8, compiled = (row.get(key, {}) for key in STAGES)

    def no(reason: str) -> str:
        if reason not in notes:
            notes.append(reason)
        return f"no ({notes.index(reason) + 1})"

    def figure(result: Row, key: str, form: str) -> str:
        if reason := _failed(result):
            return no(reason)
        value = result.get(key, "")
        return no(value) if isinstance(value, str) and value else format(value, form) if value != "" else ""

    joined = f"{export['layers']} -> {export['layers_in_file']}" if "layers" in export else ""
    strides = ", ".join(map(str, levels.get("strides", ()))) + (" (plain)" if levels.get("plain") else "")
    cells = [
        f"`{row['architecture']}`",
        row["module"],
        str(size["side"]) if "side" in size else no(_failed(size)),
        f"{size['parameters'] / 1e6:.1f} M" if "parameters" in size else "",
        no(_failed(levels)) if _failed(levels) else strides,
        no(_failed(train)) if _failed(train) else f"{train['first']:.2f} -> {train['last']:.2f}" if train else "",
        joined if export.get("layers") != export.get("layers_in_file") else "",
        *(figure(export, key, ".0e") for key in ("onnx in onnxruntime", "onnx in openvino", "openvino in openvino")),
        *(figure(int8, key, ".3f") + _star(int8, key) for key in ("onnxruntime", "openvino")),
        no(_failed(compiled)) if _failed(compiled) else "yes" if compiled else "",
    ]
    return "| " + " | ".join(cells) + " |"


def _star(int8: Row, runtime: str) -> str:
    apart = int8.get(f"{runtime} from simulation")
    return "*" if isinstance(apart, float) and apart > INTEGER_TOLERANCE else ""


def _made(rows: list[Row]) -> str:
    """Machine, versions, days; that of the last row stands for all, since one machine makes the page."""
    last = max(rows, key=lambda row: row["date"])
    versions = ", ".join(f"{name} {last['versions'][name]}" for name in last["versions"])
    dates = sorted({row["date"] for row in rows})
    days = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    return f"Made on {last['machine']}, one thread, {days}: {versions}.\n"
