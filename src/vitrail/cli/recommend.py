"""``vitrail recommend``: which file to ship. Which model to start from, ``vitrail models --recommend`` says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from vitrail.cli.display import Output, OutputOptions, display
from vitrail.report.recommendation import Limits, recommend as choose
from vitrail.runs.file_results import FileResult, read_file_results
from vitrail.runs.run import Run

LimitOptions = Annotated[Limits, Parameter(name="*", group=Group("Limits", sort_key=10))]


def recommend(
    run: Path,
    /,
    *more: Path,
    limits: LimitOptions = Limits(),
    device: str | None = None,
    output: OutputOptions = Output(),
) -> None:
    """Name the most accurate file that keeps to every limit, and say why.

    Considered is everything that was measured of the runs with one image a run, on all devices or one of them, with the
    accuracy of that very file. Where nothing fits, the limit that excludes everything is named. Before anything is
    trained, `vitrail models --recommend --data FOLDER` names models to start from.

    **Examples**

    ```sh
    vitrail recommend runs/small runs/large --max-latency-ms 10
    vitrail recommend runs/photos --max-latency-ms 30 --max-size-mb 5 --device pixel
    vitrail recommend runs/photos --max-energy-mj 100 --min-accuracy 0.9 --json
    ```

    Args:
        run: Run folder.
        more: More run folders.
        limits: Limits of the file.
        device: Part of the names of the devices to consider; "this machine" is the machine of `vitrail bench`. Default:
            all devices.
    """
    with display(output) as shown:
        runs = [Run.open(folder, needs=("description", "bench_rows")) for folder in (run, *more)]
        found = choose(read_file_results(runs, device=device), limits)
        shown.say(f"{found.best.name} ({found.best.result.file}), on {found.best.device}")
        for reason in found.reasons:
            shown.say(f"- {reason}")
        shown.result(
            {
                "best": _facts(found.best),
                "next_best": _facts(found.next_best) if found.next_best else None,
                "reasons": list(found.reasons),
                "num_considered": found.num_considered,
                "num_fitting": found.num_fitting,
            }
        )


def _facts(entry: FileResult) -> dict[str, object]:
    energy = entry.result.energy
    return {
        "run": entry.run,
        "file": entry.result.file,
        "runtime": entry.result.runtime,
        "variant": entry.result.variant,
        "threads": entry.result.threads,
        "device": entry.device,
        "score": entry.score.name,
        "accuracy": entry.accuracy,
        "latency_ms": entry.latency_ms,
        "size_mb": entry.size_mb,
        "energy_mj": entry.energy_mj,
        "energy_source": energy.source if energy else None,
    }
