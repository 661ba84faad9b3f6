"""How well do trained models of taste agree with people, and how much of that is colour?

    python benchmarks/aesthetics.py runs/taste-0 runs/taste-1 runs/taste-2 --data ../shared/data/web_aesthetics

For each run, and for two baselines, on the test images: SRCC, PLCC and mean error, with 95 % percentile intervals over
images by bootstrap, and of the difference to the second baseline on the same draws. The first baseline answers the mean
training score to everything; the second is a ridge regression on colours and edges, whose strength is chosen by
cross-validation on the training images. ``--picture FILE`` draws predicted over given scores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data import DataConfig, ScoreSet, eval_loader, load_scores
from vitrail.runs.load import load_task
from vitrail.runs.run import Run
from vitrail.tasks import AestheticsTask
from vitrail.tasks.metrics.correlation import correlations

RESAMPLES = 2000
PENALTIES = (0.1, 1.0, 10.0, 100.0)
FOLDS = 5

Values = NDArray[np.float64]


def main() -> None:
    """Print the table, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = load_scores(DataConfig(path=str(given.data), val_fraction=0.15))
    assert data.test is not None
    known = np.concatenate([scores(data.train), scores(data.val)])
    seen = np.concatenate([colour_features(data.train), colour_features(data.val)])
    truth = scores(data.test)
    answers = {
        "always the mean": np.full(len(truth), known.mean()),
        "colours and edges": ridge(seen, known, colour_features(data.test)),
    }
    answers |= {str(folder): predicted(Run.open(folder), data.test) for folder in given.runs}
    several = np.mean([answers[str(folder)] for folder in given.runs], axis=0)
    answers["mean of the runs' scores"] = several
    print(table(answers, truth))
    if given.picture is not None:
        draw(several, answers["colours and edges"], truth, given.picture)


def scores(samples: ScoreSet) -> Values:
    """People's means."""
    return np.array([record.score for record in samples.records])


def predicted(run: Run, samples: ScoreSet) -> Values:
    """The mean scores that a run gives."""
    task = load_task(run)
    assert isinstance(task, AestheticsTask)
    preprocessing = run.read().preprocessing
    with torch.inference_mode():
        parts = [
            task.mean_scores(task(preprocessing.normalize(batch.images)))
            for batch in eval_loader(samples, preprocessing, batch_size=16)
        ]
    return torch.cat(parts).double().numpy()


def colour_features(samples: ScoreSet) -> Values:
    """Statistics of each image (n, 15): means and deviations of the channels; deviation and extremes of lightness;
    saturation; colourfulness (Hasler and Suesstrunk 2003); strength of edges across and down."""
    return np.stack([_statistics(samples[i][0]) for i in range(len(samples))])


def _statistics(image: Tensor) -> Values:
    red, green, blue = pixels = image.double() / 255
    light = pixels.mean(0)
    across, down = red - green, (red + green) / 2 - blue
    colourfulness = (across.var() + down.var()).sqrt() + 0.3 * (across.mean() ** 2 + down.mean() ** 2).sqrt()
    saturation = pixels.amax(0) - pixels.amin(0)
    found = [*pixels.mean((1, 2)), *pixels.std((1, 2)), light.std(), light.quantile(0.05), light.quantile(0.95)]
    found += [saturation.mean(), saturation.std(), colourfulness, light.diff(dim=0).abs().mean()]
    found += [light.diff(dim=1).abs().mean(), (light > 0.95).double().mean()]
    return torch.stack(found).numpy()


def ridge(seen: Values, known: Values, unseen: Values) -> Values:
    """Answers to ``unseen`` by a linear model with squares of all features."""
    folds = np.arange(len(known)) % FOLDS

    def error(penalty: float) -> float:
        misses = []
        for fold in range(FOLDS):
            out = folds == fold
            misses.append(np.abs(_solve(seen[~out], known[~out], seen[out], penalty) - known[out]))
        return float(np.concatenate(misses).mean())

    return _solve(seen, known, unseen, min(PENALTIES, key=error))


def _solve(seen: Values, known: Values, unseen: Values, penalty: float) -> Values:
    mean, deviation = seen.mean(0), seen.std(0) + 1e-9
    first, second = (
        np.concatenate([part, part**2], 1) for part in ((seen - mean) / deviation, (unseen - mean) / deviation)
    )
    centre = first.mean(0)
    weights = np.linalg.solve(
        (first - centre).T @ (first - centre) + penalty * np.eye(first.shape[1]),
        (first - centre).T @ (known - known.mean()),
    )
    return (second - centre) @ weights + known.mean()


def table(answers: dict[str, Values], truth: Values) -> str:
    """Markdown."""
    lines = ["| | SRCC | PLCC | mean error | SRCC more than colours |", "|---|---|---|---|---|"]
    baseline = answers["colours and edges"]
    for name, given in answers.items():
        cells = [
            interval(lambda chosen, f=figure, g=given: f(g[chosen], truth[chosen]), len(truth))
            for figure in (srcc, plcc, mean_error)
        ]
        more = interval(
            lambda chosen, g=given: srcc(g[chosen], truth[chosen]) - srcc(baseline[chosen], truth[chosen]), len(truth)
        )
        lines.append(f"| {name} | {' | '.join(cells)} | {more} |")
    return "\n".join(lines)


def interval(figure: Callable[[NDArray[np.intp]], float], count: int) -> str:
    """A figure of all images, and its interval when images are drawn with replacement."""
    draw = np.random.default_rng(0)
    values = [figure(draw.integers(0, count, count)) for _ in range(RESAMPLES)]
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{figure(np.arange(count)):.3f} ({low:.3f} to {high:.3f})"


def srcc(given: Values, truth: Values) -> float:
    """Rank correlation; 0 of constants."""
    return float(correlations(torch.from_numpy(given), torch.from_numpy(truth))["srcc"])


def plcc(given: Values, truth: Values) -> float:
    """Pearson's correlation; 0 of constants."""
    return float(correlations(torch.from_numpy(given), torch.from_numpy(truth))["plcc"])


def mean_error(given: Values, truth: Values) -> float:
    """In points of the scale."""
    return float(np.abs(given - truth).mean())


def draw(model: Values, baseline: Values, truth: Values, path: Path) -> None:
    """Predicted over given scores."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    shown = {"colours and edges": baseline, "mean of the runs' scores": model}
    for axes, (title, values) in zip(figure.subplots(1, 2, sharey=True), shown.items(), strict=True):
        axes.scatter(truth, values, s=14, alpha=0.7)
        axes.plot([truth.min(), truth.max()], [truth.min(), truth.max()], color="grey", linewidth=1)
        axes.set(title=f"{title}: SRCC {srcc(values, truth):.2f}", xlabel="people's mean score", ylabel="predicted")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
