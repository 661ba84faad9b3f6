from __future__ import annotations

import io
import itertools

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitrail.figures.quantization import bit_width_figure, budget_figure, quantization_figures
from vitrail.quantization.diagnostics import Diagnostics
from vitrail.quantization.mixed_precision.budget import AllocationTrace, Budget, Choice
from vitrail.quantization.mixed_precision.exact import allocate_exactly
from vitrail.quantization.mixed_precision.greedy import allocate_greedily

WIDTHS = (3, 4, 6, 8)


def choices(count: int) -> list[Choice]:
    return [
        Choice(
            name=f"stages.{i // 8}.blocks.{i}.mlp.fc1:{'weight' if i % 2 else 'input'}",
            count=1000 * (1 + i % 7),
            is_weight=i % 2 == 1,
            bit_widths=WIDTHS,
            loss=tuple((1 + i % 5) * 4.0**-width for width in WIDTHS),
        )
        for i in range(count)
    ]


def svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue().decode()


def lines(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    return {str(line.get_label()): list(zip(*line.get_data(), strict=True)) for line in axes.get_lines()}


def trace(tensors: list[Choice], budget: Budget) -> AllocationTrace:
    return AllocationTrace(choices=tuple(tensors), budget=budget, allocation=allocate_greedily(tensors, budget))


@pytest.mark.parametrize("budget", [Budget(average_bits=5), Budget(max_size_bytes=30_000, fixed_size_bytes=99)])
def test_loss_over_budget_shows_greedy_exact_and_one_width(budget: Budget) -> None:
    tensors = choices(10)
    spent = trace(tensors, budget)
    figure = budget_figure(spent)
    drawn = lines(figure.axes[0])
    assert list(drawn) == ["greedy", "exact", "one width", "taken"]
    for (x, greedy), (_, exact) in zip(drawn["greedy"], drawn["exact"], strict=True):
        assert greedy >= exact * (1 - 1e-9)
        kind = next(name for name in ("average_bits", "max_size_bytes") if getattr(budget, name))
        same = Budget(**{kind: x}, fixed_size_bytes=budget.fixed_size_bytes)
        assert exact == pytest.approx(allocate_exactly(tensors, same).predicted_loss)
    assert len(drawn["one width"]) == len(WIDTHS)
    (place,) = drawn["taken"]
    assert place[0] <= (budget.average_bits or budget.max_size_bytes or 0) * (1 + 1e-12)
    assert place[1] == spent.allocation.predicted_loss
    assert "</svg>" in svg(figure)


def test_the_figures_of_diagnostics() -> None:
    decibels = {"blocks.0.fc:input": 40.0, "blocks.0:softmax": 20.0, ":query#2": 80.0, ":input": 30.0}
    figures = quantization_figures(Diagnostics(decibels=decibels))
    assert list(figures) == ["quantization_noise"]
    axes = figures["quantization_noise"].axes[0]
    assert [bar.get_width() for bar in axes.patches] == list(decibels.values())
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["blocks.0.fc", "blocks.0 (attention)", " (attention)", "model"]
    spent = trace(choices(6), Budget(average_bits=5))
    figures = quantization_figures(Diagnostics(decibels=decibels, allocation=spent))
    assert list(figures) == ["quantization_noise", "quantization_budget", "bit_widths"]


def test_bars_show_every_tensor_of_a_large_model_without_overlap() -> None:
    tensors = choices(160)
    allocation = allocate_greedily(tensors, Budget(average_bits=5))
    figure = bit_width_figure(tensors, allocation)
    figure.draw_without_rendering()
    for axes, weights in zip(figure.axes, (True, False), strict=True):
        some = [choice for choice in tensors if choice.is_weight == weights]
        assert [bar.get_width() for bar in axes.patches] == [allocation.bit_widths[choice.name] for choice in some]
        labels = axes.get_yticklabels()
        assert [label.get_text() for label in labels] == [choice.name for choice in some]
        boxes = [label.get_window_extent() for label in labels]
        assert all(above.y0 >= below.y1 - 1 for above, below in itertools.pairwise(boxes))
        assert all(box.x0 >= 0 for box in boxes)


def test_a_model_of_weights_alone_has_one_panel_and_names_are_no_formulas() -> None:
    tensor = Choice(name="a$b$:weight", count=5, is_weight=True, bit_widths=(4, 8), loss=(1, 0))
    figure = bit_width_figure([tensor], allocate_greedily([tensor], Budget(average_bits=4)))
    assert len(figure.axes) == 1
    assert r"a\$b\$:weight" in [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert svg(figure)
