"""Are MACs or parameters a proxy of latency? Time variants of all families side by side, and rank them both ways.

    python benchmarks/latency.py                                             # about 10 minutes of a quiet core
    python benchmarks/latency.py --runtimes torch --rounds 5 --models vit_tiny_patch16 edgevit_xxs mobilevit_xs

Writes docs/results/latency.json, .md and .svg (--name for others). One image at the variant's own size, one thread,
random weights, which change no time. Candidates take turns in shuffled rounds; processor time is compared, which other
programs stretch less than wall time.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

from vitrail.bench import BenchConfig, BenchResult, Candidate, bench, environment
from vitrail.core.files import atomic_path, read_json, write_json, write_text
from vitrail.core.run import Run
from vitrail.core.types import Preprocessing
from vitrail.export import FORMATS
from vitrail.models import FAMILIES, create_model
from vitrail.models.complexity import count_variant

mpl.use("agg")
mpl.rcParams["svg.hashsalt"] = "vitrail"  # the same picture from the same figures

RESULTS = Path(__file__).parents[1] / "docs" / "results"
MODELS = (
    *("vit_tiny_patch16", "vit_small_patch32", "vit_small_patch16", "vit_base_patch16", "revit_tiny", "revit_small"),
    *("edgevit_xxs", "edgevit_xs", "edgevit_s", "reswin_t", "remvit_t", "vitae_t", "vitae_6m", "vitae_b", "vitaev2_s"),
    *("maxvit_tiny", "mobilevit_xxs", "mobilevit_xs", "mobilevit_s", "exmobilevit_576"),
    *("poolformer_s12", "poolformer_s24", "poolformer_s36"),
)
FORMAT_OF = {"onnxruntime": "onnx", "openvino": "onnx", "executorch": "executorch", "litert": "litert"}


def spearman(first: list[float], second: list[float]) -> float:
    """Correlation of ranks; equal values share the mean of their ranks."""
    ranks = [[_rank(value, values) for value in values] for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def _rank(value: float, values: list[float]) -> float:
    below, equal = sum(other < value for other in values), values.count(value)
    return below + (equal + 1) / 2


def candidates(name: str, runtimes: list[str], folder: Path) -> list[Candidate]:
    """A variant in every runtime, exported where the runtime wants a file."""
    model = create_model(name, num_classes=1000).eval()
    size = model.config.image_size
    shape = (3, *size)
    found = []
    for runtime in runtimes:
        source: Any = model
        if runtime in FORMAT_OF:
            run = Run(folder / name)
            source = run.exported(FORMAT_OF[runtime])
            if not source.exists():
                print(f"exporting {name} to {FORMAT_OF[runtime]}", flush=True)
                FORMATS[FORMAT_OF[runtime]].exporter()(
                    model,
                    source,
                    preprocessing=Preprocessing(image_size=size),
                    classes=[str(index) for index in range(1000)],
                    images=torch.randn(2, *shape),
                )
        file = source if isinstance(source, Path) else None
        found.append(Candidate(runtime=runtime, variant="float", source=source, file=file, run=name, image_shape=shape))
    return found


def rows_of(results: list[BenchResult], named: list[Candidate]) -> list[dict[str, Any]]:
    """What is kept of every candidate."""
    family = {variant: family.name for family in FAMILIES.values() for variant in family.variants}
    rows = []
    for result, candidate in zip(results, named, strict=True):
        counts = count_variant(candidate.run)
        rows.append(
            {
                "model": candidate.run,
                "family": family[candidate.run],
                "runtime": candidate.runtime,
                "macs": counts.macs,
                "params": counts.params,
                "image_size": list(result.image_size),
                "cpu_ms": result.cpu_ms_median,
                "latency_ms": result.latency_ms_median,
                "contended": result.contended,
                "num_runs": result.num_runs,
                "failure": result.failure,
            }
        )
    return rows


def page(results: dict[str, Any], name: str) -> str:
    """The page beside the picture ``name``.svg."""
    rows = [row for row in results["rows"] if not row["failure"]]
    runtimes = list(dict.fromkeys(row["runtime"] for row in rows))
    lines = [
        "# Do FLOPs predict latency?",
        "",
        "How well do parameters and multiply-accumulates (MACs) say which of two models is faster? One image, one",
        "thread, float32, every variant at its own image size; median processor time of a run in milliseconds.",
        "",
        f"![Processor time over MACs, one point a variant]({name}.svg)",
        "",
        "| Rank correlation (Spearman) | " + " | ".join(runtimes) + " |",
        "|---|" + "---|" * len(runtimes),
    ]
    for title, key in (("MACs with time", "macs"), ("parameters with time", "params")):
        values = [
            spearman([r[key] for r in rows if r["runtime"] == n], [r["cpu_ms"] for r in rows if r["runtime"] == n])
            for n in runtimes
        ]
        lines.append(f"| {title} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    lines += [
        "",
        *(line for runtime in runtimes for line in [*_misjudged(rows, runtime), ""]),
        "| Variant | MACs (10^9) | Parameters (10^6) | ",
    ]
    lines[-1] += " | ".join(runtimes) + " | ms per 10^9 MACs |"
    lines.append("|---|---|---|" + "---|" * (len(runtimes) + 1))
    times = {(row["model"], row["runtime"]): row["cpu_ms"] for row in rows}
    for row in sorted((r for r in rows if r["runtime"] == runtimes[0]), key=lambda r: r["macs"]):
        shown = [f"{times[row['model'], n]:.1f}" if (row["model"], n) in times else "-" for n in runtimes]
        per_mac = row["cpu_ms"] / row["macs"] * 1e9
        lines.append(
            f"| `{row['model']}` | {row['macs'] / 1e9:.2f} | {row['params'] / 1e6:.1f} | "
            + " | ".join(shown)
            + f" | {per_mac:.0f} |"
        )
    disturbed = sum(row["contended"] for row in rows)
    runs = sorted({row["num_runs"] for row in rows})
    lines += [
        "",
        f"(`{results['command']}` on {results['machine']}, {results['date']}; at least {runs[0]} timed runs",
        f"of each, in shuffled rounds, {disturbed} of {len(rows)} disturbed by others; last column: {runtimes[0]}; "
        + ", ".join(f"{name} {version}" for name, version in results["versions"].items())
        + ".)",
    ]
    return "\n".join(lines) + "\n"


NEIGHBOURS = 1.5
"""Models whose MACs differ by less than this factor are those that one chooses between."""


def _misjudged(rows: list[dict[str, Any]], runtime: str) -> list[str]:
    """Pairs in which the model with fewer MACs is the slower one: of all, and of neighbours; the worst of them."""
    mine = sorted((row for row in rows if row["runtime"] == runtime), key=lambda row: row["macs"])
    pairs = list(itertools.combinations(mine, 2))
    near = [(fewer, more) for fewer, more in pairs if more["macs"] < NEIGHBOURS * fewer["macs"]]
    wrong = [[(a, b) for a, b in group if a["cpu_ms"] > b["cpu_ms"]] for group in (pairs, near)]
    per_mac = sorted(row["cpu_ms"] / row["macs"] * 1e9 for row in mine)
    low, high = f"{per_mac[0]:.0f}", f"{per_mac[-1]:.0f}"
    lines = [
        f"In {runtime}, 10^9 MACs take from {low} to {high} ms. Over the whole range MACs order most pairs rightly and",
        f"misjudge {len(wrong[0])} of {len(pairs)}. But one chooses between neighbours: of {len(near)} pairs whose",
        f"MACs differ by less than a factor of {NEIGHBOURS}, the one with fewer is the slower one in {len(wrong[1])}.",
    ]
    if wrong[0]:
        fewer, more = max(wrong[0], key=lambda pair: pair[0]["cpu_ms"] / pair[1]["cpu_ms"])
        lines.append(
            f"The worst: `{fewer['model']}` ({fewer['macs'] / 1e9:.2f} x 10^9 MACs) takes {fewer['cpu_ms']:.1f} ms, "
            f"`{more['model']}` ({more['macs'] / 1e9:.2f} x 10^9) {more['cpu_ms']:.1f} ms."
        )
    return lines


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Time over MACs, logarithmic, one panel a runtime, one colour a family."""
    from matplotlib import pyplot as plt

    runtimes = list(dict.fromkeys(row["runtime"] for row in rows))
    families = list(dict.fromkeys(row["family"] for row in rows))
    figure, axes = plt.subplots(1, len(runtimes), figsize=(1 + 4.2 * len(runtimes), 4.2), sharey=True, squeeze=False)
    for axis, runtime in zip(axes[0], runtimes, strict=True):
        for index, family in enumerate(families):
            mine = [row for row in rows if (row["family"], row["runtime"]) == (family, runtime)]
            colour = mpl.colormaps["tab20"](index)
            axis.scatter([r["macs"] / 1e9 for r in mine], [r["cpu_ms"] for r in mine], color=colour, label=family)
        axis.set(xscale="log", yscale="log", title=runtime, xlabel="MACs (10^9)")
        axis.grid(visible=True, which="both", alpha=0.2)
    axes[0][0].set_ylabel("processor time of an image (ms)")
    axes[0][-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    with atomic_path(path) as file:
        figure.savefig(file, format="svg", metadata={"Date": None})


def write_pages(name: str) -> None:
    """Page and picture of what was measured."""
    results = read_json(RESULTS / f"{name}.json")
    draw([row for row in results["rows"] if not row["failure"]], RESULTS / f"{name}.svg")
    write_text(RESULTS / f"{name}.md", page(results, name))


def _asked(options: argparse.Namespace) -> list[str]:
    """The options that decide what is measured, as they would be typed."""
    models = [] if tuple(options.models) == MODELS else ["--models", *options.models]
    return [*models, "--runtimes", *options.runtimes, "--rounds", str(options.rounds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    place = environment()
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--runtimes", nargs="+", default=["torch", "onnxruntime", "openvino"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--name", default="latency", help="of the files in docs/results")
    parser.add_argument("--machine", default=f"{place['cpu']}, {place['cores']} cores", help="its name on the page")
    options = parser.parse_args()
    config = BenchConfig(
        min_runs=options.rounds,
        min_seconds=0,
        budget_seconds=600,
        warmup_runs=2,
        memory=False,
        runtimes=tuple(options.runtimes),
        baseline=f"{options.models[0]}/{options.runtimes[0]} float",
    )
    with tempfile.TemporaryDirectory() as folder:
        named = [c for name in options.models for c in candidates(name, options.runtimes, Path(folder))]
        results = bench(named, config)
    rows = rows_of(results, named)
    found = {
        "command": " ".join(["python benchmarks/latency.py", *_asked(options)]),
        "machine": options.machine,
        "date": str(datetime.now(UTC).date()),
        "versions": {result.runtime: result.runtime_version for result in results if not result.failure},
        "rows": rows,
    }
    write_json(RESULTS / f"{options.name}.json", found)
    write_pages(options.name)


if __name__ == "__main__":
    main()
