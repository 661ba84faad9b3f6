"""What each kind of network in timm can do here: trains, has levels, exports, keeps its answers in 8 bits, compiles.

    python benchmarks/timm_models.py                       # all of them, a minute each
    python benchmarks/timm_models.py repvit_m0_9 levit_128s
    python benchmarks/timm_models.py --compile             # torch.compile too, for the rows that lack it
    python benchmarks/timm_models.py --table               # write docs/results/timm.md from the rows again

Rows are kept in docs/results/timm.json, and those that are there are not made again (``--again`` makes them). Each
network is tried in a process of its own, so that one that crashes or hangs is a row too. Weights are random: what is
tried is whether the parts of the network pass, by the functions that the verbs call, and how far the files are from
PyTorch. The page is written after every row.
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import timm_page
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail.bench import environment
from vitrail.contract.computing import compiles_without_graph_breaks
from vitrail.core.errors import VitrailError
from vitrail.core.files import read_json, write_json, write_text
from vitrail.core.types import Preprocessing
from vitrail.data import DataConfig, calibration_images, load_data
from vitrail.export import export_source
from vitrail.export.model_outputs import model_outputs
from vitrail.export.onnx_file import onnx_bytes
from vitrail.export.source import Source, about
from vitrail.models import create_model
from vitrail.models.timm_model import PREFIX, TimmModel
from vitrail.quantization import QuantizationConfig, quantize
from vitrail.quantization.graph.capture import joined
from vitrail.runtimes import import_runtime, open_session
from vitrail.runtimes.alike import compare
from vitrail.tasks import Task, TaskSpec, create_task
from vitrail.tasks.heads.pyramid import Pyramid

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "docs" / "results" / "timm.json"
PAGE = ROOT / "docs" / "results" / "timm.md"

ARCHITECTURES = (
    *("mobilenetv4_conv_small_050", "repvit_m0_9", "fastvit_t8", "efficientvit_b0", "efficientvit_m0", "shvit_s1"),
    *("starnet_s050", "convnext_atto", "convnextv2_atto", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"),
    *("vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3", "eva02_tiny_patch14_224"),
    *("deit_tiny_distilled_patch16_224", "deit3_small_patch16_224", "cait_xxs24_224", "xcit_nano_12_p16_224"),
    *("levit_128s", "efficientformer_l1", "efficientformerv2_s0", "edgenext_xx_small", "coatnet_nano_rw_224"),
    *("maxvit_rmlp_pico_rw_256", "mvitv2_tiny", "pvt_v2_b0", "nest_tiny", "twins_svt_small", "tiny_vit_5m_224"),
    *("hiera_tiny_224", "hgnetv2_b0", "resnet10t", "regnetx_002", "rexnet_100", "mobileone_s0", "ghostnetv2_100"),
    *("inception_next_atto", "focalnet_tiny_srf", "davit_tiny", "gcvit_xxtiny", "poolformerv2_s12", "caformer_s18"),
    *("mambaout_femto", "swiftformer_xs", "vitamin_small_224", "nextvit_small", "mobilevit_xxs", "mobilevitv2_050"),
    *("mobilenetv3_small_050", "efficientnet_lite0", "repvgg_a0", "mixer_s32_224", "pit_ti_224", "convit_tiny"),
    *("crossvit_tiny_240", "coat_lite_tiny", "volo_d1_224", "tnt_s_patch16_224", "visformer_tiny", "densenet121"),
    *("beit_base_patch16_224", "swinv2_cr_tiny_224", "vit_relpos_small_patch16_224", "samvit_base_patch16_224"),
    *("fasternet_t0", "iformer_t", "efficientvim_m1", "lowformer_b0", "cpubone_nano", "repghostnet_050", "lcnet_035"),
    *("hrnet_w18_small", "resnetv2_18", "nf_regnet_b0", "dla46_c", "sequencer2d_s", "naflexvit_base_patch16_gap"),
    *("halonet26t", "lambda_resnet26t", "botnet26t_256", "sam2_hiera_tiny", "vgg11_bn", "legacy_seresnet18"),
)
"""The smallest network of as many of timm's files as there are, those that people ask for first."""

SIZES = (64, 96, 112, 128, 160, 192, 224, 240, 256, 384)
"""Sides of the images that are tried; the first one that a network takes is used."""

CLASSES = tuple(f"class {index}" for index in range(10))
CALIBRATION, TRAINING = 8, 4
STEPS = 2
METHOD: Literal["min_max"] = "min_max"
"""The cheapest preset; what is asked is whether the operations pass."""

MEASURED = 10.0
"""Tolerance of the integer file's difference from its simulation: it is measured where the verb would refuse, too."""

LIMIT_S = 1800
Row = dict[str, Any]


def make_task(name: str, side: int) -> Task:
    """A classifier, as `vitrail train` makes it."""
    return create_task(
        "classification", name, {"image_size": (side, side), "num_classes": len(CLASSES)}, TaskSpec(classes=CLASSES)
    )


def preprocessing_of(task: Task) -> Preprocessing:
    return Preprocessing(image_size=task.backbone.config.image_size, crop_fraction=1.0)


def photographs(task: Task, count: int) -> Tensor:
    """Photographs of the sample as the network gets them."""
    return calibration_images(load_data(DataConfig()).train, preprocessing_of(task), count, 0)


def make_lively(task: Task) -> Task:
    """Weights in which every part of the network matters: initial ones switch off some branches, and are as good as
    zero behind some scales. Statistics of BatchNorm are those of photographs."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in task.named_parameters():
        if parameter.squeeze().ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5, generator=generator)
        elif not name.endswith("bias"):
            nn.init.uniform_(parameter, 0.5, 1.0, generator=generator)
    for module in task.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.reset_running_stats()
            module.momentum = None
    images = photographs(task, CALIBRATION)
    with torch.no_grad():
        task.train()(images)
    return task.eval()


def found_size(name: str) -> Row:
    """The smallest image that the network takes, and what it says of a smaller one."""
    refused, faults = "", []
    for side in SIZES:
        try:
            task = make_task(name, side).eval()
            with torch.no_grad():
                task(torch.zeros(2, 3, side, side))
        except VitrailError as error:
            refused = refused or f"{side} pixels: {error}"
        except Exception as error:  # noqa: BLE001 (a network may raise anything)
            faults.append(f"{side} pixels: {told_fault(error)}")
        else:
            weights = sum(parameter.numel() for parameter in task.parameters())
            return {"side": side, "refused": refused, "faults": faults, "parameters": weights}
    raise VitrailError(f"no size up to {SIZES[-1]} pixels is taken: {[refused, *faults]}")


def has_levels(name: str, side: int) -> Row:
    """The maps of dense tasks, and their channels and strides as announced."""
    backbone = create_model(name, image_size=side, num_classes=len(CLASSES)).eval()
    pyramid = Pyramid(backbone).eval()
    with torch.no_grad():
        maps = pyramid(backbone, torch.randn(2, 3, side, side))
    for level, channels, stride in zip(maps, pyramid.channels, pyramid.strides, strict=True):
        wanted = (2, channels, -(-side // stride), -(-side // stride))
        if level.shape != wanted:
            raise VitrailError(f"the level of stride {stride} is {tuple(level.shape)}, not {wanted}")
    return {"strides": list(pyramid.strides), "plain": pyramid.resize is not None}


def trains(name: str, side: int) -> Row:
    """The loss of eight images before and after some steps, from timm's own initial weights."""
    torch.manual_seed(0)
    task = make_task(name, side).train()
    images, labels = photographs(task, TRAINING), torch.arange(TRAINING) % len(CLASSES)
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
    losses = []
    for _ in range(STEPS + 1):
        loss = task.loss(task(images), labels)
        optimizer.zero_grad()
        loss.backward()
        without = [key for key, one in task.named_parameters() if one.requires_grad and one.grad is None]
        optimizer.step()
        losses.append(loss.item())
    if not all(map(torch.isfinite, torch.tensor(losses))) or losses[-1] == losses[0]:
        raise VitrailError(f"the loss went from {losses[0]:.3g} to {losses[-1]:.3g}")
    return {"first": losses[0], "last": losses[-1], "without_gradient": without[:3]}


@cache
def lively_source(name: str, side: int) -> Source:
    """What is exported, and its images."""
    task = make_lively(make_task(name, side))
    facts = about(preprocessing_of(task), CLASSES, task)
    return Source(model=task, images=photographs(task, CALIBRATION), facts=facts)


def exports(name: str, side: int) -> Row:
    """The largest difference of the float files, of the largest output."""
    source = lively_source(name, side)
    found: Row = {"layers": _layers(source.model), "layers_in_file": _layers(joined(source.model))}
    with TemporaryDirectory() as folder:
        for format, file in (("onnx", "model.onnx"), ("openvino", "model.xml")):
            record = export_source(source, Path(folder) / file, format=format)
            for check in record.checks:
                found[f"{format} in {check.name}"] = check.failure or check.max_relative_error
    return found


def quantizes(name: str, side: int) -> Row:
    """How far the 8-bit file is from the float model in each runtime, and from its simulation."""
    source = lively_source(name, side)
    quantized = quantize(source.model, source.images, config=QuantizationConfig(preset=METHOD))
    expected = model_outputs(source.model, source.images)
    found: Row = {"simulated": _distance(model_outputs(quantized, source.images), expected)}
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        whole = replace(source, quantized=quantized)
        record = export_source(whole, file, format="onnx", variant="int8", tolerance=MEASURED)
        for check in record.checks:
            found[f"{check.name} from simulation"] = check.failure or check.max_relative_error
            if check.failure:
                found[check.name] = check.failure
                continue
            outputs = open_session(file, check.name)(source.images.numpy())
            found[check.name] = _distance(outputs, expected)
            found[f"{check.name} same class"] = compare(outputs, expected).top1_agreement
    return found


def compiles(name: str, side: int) -> Row:
    """``torch.compile`` as one graph, with the same outputs."""
    compiles_without_graph_breaks(partial(create_model, name, image_size=side))
    return {}


def _distance(outputs: NDArray[Any], expected: NDArray[Any]) -> float:
    """Root mean square of the difference, over how much the images' logits vary: a constant answer has 1."""
    spread = float((expected - expected.mean(0)).std()) or 1.0
    return float(((outputs - expected) ** 2).mean() ** 0.5) / spread


def _layers(task: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d | nn.Linear) for module in task.modules())


STAGES: dict[str, Callable[[str, int], Row]] = {
    "levels": has_levels,
    "train": trains,
    "export": exports,
    "int8": quantizes,
    "compile": compiles,
}
"""Name of an entry of a row -> what makes it."""


def work(connection: Connection, architecture: str, stages: list[str], side: int) -> None:
    """Run stages in a process of its own, and send each result as it comes."""
    name = PREFIX + architecture
    connection.send(("size", {}))
    size = {"side": side} if side else _outcome(partial(found_size, name))
    connection.send(("size", size))
    for stage in stages if "side" in size else []:
        connection.send((stage, {}))
        connection.send((stage, _outcome(partial(STAGES[stage], name, size["side"]))))


def _outcome(run: Callable[[], Row]) -> Row:
    """What a stage found; ``reason`` is the line that a user gets, and ``fault`` what would be a traceback."""
    begin = time.process_time()
    try:
        found = run()
    except VitrailError as error:
        found = {"reason": str(error)}
    except Exception as error:  # noqa: BLE001 (a network may raise anything)
        found = {"fault": told_fault(error)}
    return found | {"seconds": round(time.process_time() - begin, 1)}


def told_fault(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def watched(architecture: str, stages: list[str], limit_s: float, side: int = 0) -> Row:
    """The results of the stages; that in which the process ended, or stayed too long, says so."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, architecture, stages, side))
    process.start()
    theirs.close()
    found: Row = dict(_received(ours, time.monotonic() + limit_s))
    late = process.is_alive() and next((stage for stage, result in found.items() if not result), None)
    if late:
        process.kill()
    process.join()
    for stage, result in found.items():
        if not result:
            code = process.exitcode or 0
            ended = signal.Signals(-code).name if code < 0 else f"status {code}"
            found[stage] = {"fault": f"no end in {limit_s:.0f} s" if late else f"the process ended with {ended}"}
    return found


def _received(connection: Connection, deadline: float) -> Iterator[tuple[str, Row]]:
    try:
        while connection.poll(max(deadline - time.monotonic(), 0)):
            yield connection.recv()
    except EOFError:
        return


def make_row(architecture: str, limit_s: float) -> Row:
    """A new row."""
    with torch.device("meta"):
        model = create_model(PREFIX + architecture)
    assert isinstance(model, TimmModel)
    place = environment()
    found = watched(architecture, [stage for stage in STAGES if stage != "compile"], limit_s)
    return {
        "architecture": architecture,
        "module": type(model.network).__module__.removeprefix("timm.models."),
        "machine": f"{place['cpu']}, {place['cores']} cores",
        "date": place["date"][:10],
        "versions": place["versions"] | {"timm": timm_page.timm_version()},
        **found,
    }


def warm() -> None:
    """What the first export of a process imports, once for all: every network is tried in a copy of this process."""
    for runtime in ("onnxruntime", "openvino"):
        import_runtime(runtime)
    onnx_bytes(Source(model=nn.Conv2d(3, 2, 1), images=torch.zeros(2, 3, 8, 8)))


def kept_rows() -> list[Row]:
    """The rows that are there; another process may be adding others."""
    rows: list[Row] = read_json(ROWS) if ROWS.exists() else []
    return rows


def missing(row: Row | None, options: argparse.Namespace) -> bool:
    """Whether a row is to be made, or lacks what was asked for."""
    return row is None or options.again or (options.compile and "compile" not in row and "side" in row["size"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architectures", nargs="*", default=ARCHITECTURES, help="timm's names; default: all")
    parser.add_argument("--compile", action="store_true", help="try torch.compile too, a minute each")
    parser.add_argument("--again", action="store_true", help="make rows that are there again")
    parser.add_argument("--table", action="store_true", help="write the page alone")
    parser.add_argument("--limit", type=float, default=LIMIT_S, metavar="SECONDS", help="time of one network")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.table:
        warm()
    for architecture in () if options.table else options.architectures:
        row = {row["architecture"]: row for row in kept_rows()}.get(architecture)
        if not missing(row, options):
            continue
        if row is None or options.again:
            row = make_row(architecture, options.limit)
        if options.compile and "side" in row["size"]:
            row |= {"compile": watched(architecture, ["compile"], options.limit, row["size"]["side"])["compile"]}
        write_json(ROWS, [*(one for one in kept_rows() if one["architecture"] != architecture), row])
        write_text(PAGE, timm_page.page(kept_rows()))
        print(f"{architecture}: {timm_page.told(row)}", flush=True)
    write_text(PAGE, timm_page.page(kept_rows()))


if __name__ == "__main__":
    main()
