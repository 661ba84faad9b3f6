"""``vitrail pareto``: accuracy over latency, energy and size, of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitrail.cli.display import Display, Output, OutputOptions, display, megabytes, number, number_text, percent
from vitrail.report.pareto import best_first, write_pareto
from vitrail.report.references import Reference, read_references
from vitrail.runs.file_results import read_file_results
from vitrail.runs.run import Run


def pareto(
    run: Path,
    /,
    *more: Path,
    out: Path = Path("pareto"),
    device: str | None = None,
    references: Path | None = None,
    output: OutputOptions = Output(),
) -> None:
    """Show accuracy over latency, energy and size, of everything that was measured of several runs.

    Float and quantised files in every runtime and on every device; what another beats is grey. Written are
    `pareto.html`, `pareto.csv`, and each plot as SVG and PNG. Nothing is measured: `vitrail bench` and
    `vitrail evaluate` come first. `vitrail bench RUN --plot FOLDER` does the same at its end.

    **Examples**

    ```sh
    vitrail pareto runs/photos
    vitrail pareto runs/small runs/large --out pareto --device pixel
    vitrail pareto runs/photos --references published.csv
    ```

    Args:
        run: Run folder.
        more: More run folders.
        out: Folder to write to.
        device: Part of the names of the devices to show; "this machine" is the machine of `vitrail bench`. Default:
            all devices.
        references: CSV or YAML of published values to draw too: label, accuracy, latency_ms, energy_mj, size_mb,
            source. Default: none.
    """
    with display(output) as shown:
        published = read_references(references) if references else []
        files = show_pareto(shown, [run, *more], out, device=device, published=published)
        shown.result({"files": [str(path) for path in files]})


def show_pareto(
    shown: Display, folders: Sequence[Path], to: Path, *, device: str | None, published: Sequence[Reference]
) -> list[Path]:
    """Write the fronts of runs to the folder ``to``, and print what they are drawn from; returns the files."""
    runs = [Run.open(folder, needs=("description", "bench_rows")) for folder in folders]
    files = write_pareto(runs, to, device=device, references=published)
    results = read_file_results(runs, device=device)
    shown.table(
        "Most accurate first",
        ("candidate", "device", results[0].score.title, "latency", "energy an image", "size"),
        [
            (
                e.name,
                e.device,
                percent(e.accuracy) if e.score.percent else number(e.accuracy, 4),
                number(e.latency_ms, 2, " ms"),
                number_text(e.result.energy.text()) if e.result.energy else None,
                megabytes(e.result.size_bytes),
            )
            for e in sorted(results, key=best_first)
        ],
    )
    for note in dict.fromkeys(f"{e.name}: {e.note}" for e in results if e.note and not e.result.failure):
        shown.say(note)
    shown.say(f"Written: {files[0]}, its table and {len(files) - 2} pictures")
    return files
