"""``vitrail compare``: several models under one recipe."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import fmean

from vitrail.cli.display import Output, OutputOptions, display
from vitrail.compare import collect, job_list, read_plan, run_cell, shard_of, timed_plan, write_comparison
from vitrail.compare.tables import columns, rows
from vitrail.core.progress import time_text


def compare(
    file: Path,
    /,
    *,
    out: Path | None = None,
    shard: str = "1/1",
    minutes: float | None = None,
    output: OutputOptions = Output(),
) -> None:
    """Train several models under one recipe, and compare them.

    The file names the models, the recipe and the seeds (see `examples/compare`). Every model is trained once with each
    seed in a run folder of its own; finished ones are not trained again, interrupted ones go on. Then all are compared
    on the same held-out images: mean and deviation, paired tests, parameters, MACs, latency, memory, Pareto fronts;
    as JSON, CSV, LaTeX and a page. With a list `quantization` in the file every trained model is also quantised in each
    of these ways, and each is a row of its own.

    With `--minutes` all trainings have the same time: each its share of the whole, less its tests. Models that are slow
    then take fewer steps.

    On several machines, start the same command on each with its own `--shard`, bring the folders together, and start
    it once without.

    **Examples**

    ```sh
    vitrail compare examples/compare/mixers.yaml
    vitrail compare examples/compare/quantization.yaml
    vitrail compare mine.yaml --out runs/mine --shard 2/3
    vitrail compare mine.yaml --minutes 60
    ```

    Args:
        file: YAML file with the models, the recipe and the seeds.
        out: Folder for the runs and the result. Default: `runs/compare/NAME`.
        shard: Share i/n of the runs to train, without the comparison; 1/1 trains all and compares.
        minutes: Minutes that all trainings with their tests may take, those of the shard where there is one. Default:
            no limit.
    """
    plan = read_plan(file)
    if minutes is not None:
        plan = timed_plan(plan, minutes, shard)
    folder = out or Path("runs/compare") / file.stem
    with display(output) as shown:
        jobs = shard_of(job_list(plan), shard)
        seconds: list[float] = []
        for number, job in enumerate(jobs, 1):
            start = time.perf_counter()
            done = run_cell(plan, folder, job, progress=shown.progress)
            seconds += [time.perf_counter() - start] if done else []
            left = fmean(seconds) * (len(jobs) - number) if seconds else 0.0
            told = f"; left about {time_text(left)} for {len(jobs) - number} more" if left else ""
            shown.say(f"{number}/{len(jobs)} {job[0].name}, seed {job[1]}: {'done' if done else 'was there'}{told}")
        if shard != "1/1":
            shown.result({"folder": str(folder), "jobs": len(jobs)})
            return
        comparison = collect(plan, folder, progress=shown.progress)
        paths = write_comparison(comparison, folder)
        shown.table(plan.question or file.stem, columns(comparison), rows(comparison))
        shown.say(f"Written: {', '.join(map(str, paths))}")
        shown.result(comparison.to_dict())
