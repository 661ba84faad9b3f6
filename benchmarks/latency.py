"""Are MACs or parameters a proxy of latency? Time variants of all families side by side, and rank them both ways.

    python benchmarks/latency.py                                             # half an hour of a busy core
    python benchmarks/latency.py --runtimes torch --rounds 5 --models vit_tiny_patch16 edgevit_xxs mobilevit_xs

Writes docs/results/latency.json, .md and .svg (--name for others), and from the first the table that the package
carries. One image at the variant's own size, one thread, random weights, which change no time. Candidates take turns in
shuffled rounds; processor time is compared, which other programs stretch less than wall time.
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
from vitrail.core.types import Preprocessing
from vitrail.export import export_model
from vitrail.models import FAMILIES, create_model
from vitrail.models.complexity import count_variant
from vitrail.models.measured_times import MEASURED
from vitrail.runtimes import find_runtime

mpl.use("agg")
mpl.rcParams["svg.hashsalt"] = "vitrail"  # the same picture from the same figures

RESULTS = Path(__file__).parents[1] / "docs" / "results"
MODELS = (
    *("vit_tiny_patch16", "vit_small_patch32", "vit_small_patch16", "vit_base_patch16", "revit_tiny", "revit_small"),
    *("edgevit_xxs", "edgevit_xs", "edgevit_s", "reswin_t", "remvit_t", "vitae_t", "vitae_6m", "vitae_b", "vitaev2_s"),
    *("maxvit_tiny", "mobilevit_xxs", "mobilevit_xs", "mobilevit_s", "exmobilevit_576"),
    *("poolformer_s12", "poolformer_s24", "poolformer_s36"),
)


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
        if format := find_runtime(runtime).format:
            run = Run(folder / name)
            source = run.exported(format)
            if not source.exists():
                print(f"exporting {name} to {format}", flush=True)
                export_model(
                    model,
                    source,
                    format=format,
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
    by_runtime = {
        n: [row for row in rows if row["runtime"] == n] for n in dict.fromkeys(row["runtime"] for row in rows)
    }
    span = max(_column(rows, "macs")) / min(_column(rows, "macs"))
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    made = (
        f"(`{results['command']}` on {results['machine']}, {results['date']};",
        f"at least {min(_column(rows, 'num_runs'))} timed runs of each, in shuffled rounds,",
        f"{sum(_column(rows, 'contended'))} of {len(rows)} disturbed by others;",
        f"last column: {next(iter(by_runtime))}; {versions}.)",
    )
    lines = [
        "# Do FLOPs predict latency?",
        "",
        "How well do parameters and multiply-accumulates (MACs) say which of two models is faster? One image, one",
        "thread, float32, every variant at its own image size; median processor time of a run in milliseconds.",
        "",
        f"![Processor time over MACs, one point a variant]({name}.svg)",
        "",
        *_proxies(by_runtime),
        "",
        f"Over the whole range, a factor of {span:.0f}, MACs order most pairs rightly. But one chooses between",
        "neighbours, and there they say much less. The worst pairs, in which the model with fewer MACs takes longer:",
        "",
        *(_worst(mine, runtime) for runtime, mine in by_runtime.items()),
        "",
        *_between_runtimes(by_runtime),
        "",
        *_times(by_runtime),
        "",
        *made,
    ]
    return "\n".join(lines) + "\n"


TABLE_RUNTIME = "onnxruntime"
"""Runtime whose times the package carries."""

NEIGHBOURS = 1.5
"""Models whose MACs differ by less than this factor are those that one chooses between."""

CLEARLY = 1.05
"""Times that differ by less than this factor may be equal: what is left of the noise in so few runs."""

Rows = list[dict[str, Any]]
Pairs = list[tuple[dict[str, Any], dict[str, Any]]]


def _column(rows: Rows, key: str) -> list[float]:
    return [row[key] for row in rows]


def pairs_of(rows: Rows) -> tuple[Pairs, Pairs]:
    """All pairs of models, the one with fewer MACs first; and those of neighbours."""
    pairs = list(itertools.combinations(sorted(rows, key=lambda row: row["macs"]), 2))
    return pairs, [(fewer, more) for fewer, more in pairs if more["macs"] < NEIGHBOURS * fewer["macs"]]


def misjudged(pairs: Pairs, by: float = 1.0) -> Pairs:
    """Those in which the model with fewer MACs is the slower one, by more than a factor."""
    return [(fewer, more) for fewer, more in pairs if fewer["cpu_ms"] > by * more["cpu_ms"]]


def _proxies(by_runtime: dict[str, Rows]) -> list[str]:
    """What MACs and parameters say of the time in every runtime, as a table."""
    lines = ["| | " + " | ".join(by_runtime) + " |", "|---|" + "---|" * len(by_runtime)]
    told: dict[str, list[str]] = {
        "rank correlation (Spearman) of MACs with time": [],
        "of parameters with time": [],
        "10^9 MACs take (ms)": [],
        "pairs that MACs misjudge: the one with fewer is slower": [],
        f"the same of neighbours, whose MACs differ by less than a factor of {NEIGHBOURS}": [],
        f"the same, slower by more than {CLEARLY - 1:.0%}": [],
    }
    for mine in by_runtime.values():
        per_mac = [row["cpu_ms"] / row["macs"] * 1e9 for row in mine]
        every, near = pairs_of(mine)
        values = (
            f"{spearman(_column(mine, 'macs'), _column(mine, 'cpu_ms')):.2f}",
            f"{spearman(_column(mine, 'params'), _column(mine, 'cpu_ms')):.2f}",
            f"{min(per_mac):.0f} to {max(per_mac):.0f}",
            f"{len(misjudged(every))} of {len(every)}",
            f"{len(misjudged(near))} of {len(near)}",
            f"{len(misjudged(near, CLEARLY))} of {len(near)}",
        )
        for title, value in zip(told, values, strict=True):
            told[title].append(value)
    return lines + [f"| {title} | " + " | ".join(values) + " |" for title, values in told.items()]


def _worst(rows: Rows, runtime: str) -> str:
    wrong = misjudged(pairs_of(rows)[0])
    if not wrong:
        return f"- {runtime}: none"
    fewer, more = max(wrong, key=lambda pair: pair[0]["cpu_ms"] / pair[1]["cpu_ms"])
    return (
        f"- {runtime}: `{fewer['model']}` ({fewer['macs'] / 1e9:.2f} x 10^9 MACs) takes {fewer['cpu_ms']:.1f} ms, "
        f"`{more['model']}` ({more['macs'] / 1e9:.2f} x 10^9) {more['cpu_ms']:.1f} ms"
    )


def _between_runtimes(by_runtime: dict[str, Rows]) -> list[str]:
    """Whether what is faster in one runtime is faster in another: correlation, and neighbours that change places."""
    if len(by_runtime) < 2:
        return ["One runtime was measured; whether another orders the models alike is not known."]
    lines = [
        "Does a measurement in one runtime do for another?",
        "",
        f"| Runtimes | rank correlation | neighbours that change places (by over {CLEARLY - 1:.0%} in both) | times |",
        "|---|---|---|---|",
    ]
    for first, second in itertools.combinations(by_runtime, 2):
        theirs = {row["model"]: row["cpu_ms"] for row in by_runtime[second]}
        mine = [row for row in by_runtime[first] if row["model"] in theirs]
        mine_of = {row["model"]: row["cpu_ms"] for row in mine}
        near = pairs_of(mine)[1]
        changed = [(a, b) for a, b in near if _faster(a, b, mine_of) * _faster(a, b, theirs) < 0]
        ratios = [row["cpu_ms"] / theirs[row["model"]] for row in mine]
        correlation = spearman(_column(mine, "cpu_ms"), [theirs[row["model"]] for row in mine])
        lines.append(
            f"| {first}, {second} | {correlation:.2f} | {len(changed)} of {len(near)} | "
            f"the first takes {min(ratios):.1f} to {max(ratios):.1f} times as long |"
        )
    return lines


def _faster(a: dict[str, Any], b: dict[str, Any], times: dict[str, float]) -> int:
    """1 if a is clearly faster, -1 if b is, 0 if neither."""
    first, second = times[a["model"]], times[b["model"]]
    return (second > CLEARLY * first) - (first > CLEARLY * second)


def _times(by_runtime: dict[str, Rows]) -> list[str]:
    """Every variant with its counts and its time in every runtime."""
    header = ["Variant", "MACs (10^9)", "Parameters (10^6)", *by_runtime, "ms per 10^9 MACs"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    times = {(row["model"], n): row["cpu_ms"] for n, mine in by_runtime.items() for row in mine}
    for row in sorted(next(iter(by_runtime.values())), key=lambda row: row["macs"]):
        shown = [f"{times[row['model'], n]:.1f}" if (row["model"], n) in times else "-" for n in by_runtime]
        per_mac = row["cpu_ms"] / row["macs"] * 1e9
        counts = (f"{row['macs'] / 1e9:.2f}", f"{row['params'] / 1e6:.1f}")
        lines.append(f"| `{row['model']}` | " + " | ".join([*counts, *shown, f"{per_mac:.0f}"]) + " |")
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
    if name == "latency":
        write_json(MEASURED, times_table(results))


def times_table(results: dict[str, Any]) -> dict[str, Any]:
    """The table of the package from the results that this script writes."""
    rows = [row for row in results["rows"] if row["runtime"] == TABLE_RUNTIME and not row["failure"]]
    version = results["versions"][TABLE_RUNTIME]
    return {
        "place": f"{results['machine']}, ONNX Runtime {version}, {results['date']}",
        "times": {
            row["model"]: {"image_size": row["image_size"], "ms": round(row["cpu_ms"], 1)}
            for row in sorted(rows, key=lambda row: row["model"])
        },
    }


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
