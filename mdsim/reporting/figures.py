"""Figures of a run as PNG files, drawn without pyplot, global state or a display."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mdsim.typing import Float

# Okabe & Ito, Color Universal Design (2008): distinguishable with all common forms of color blindness
REFERENCE_COLOR = "#000000"
BEFORE_COLOR = "#D55E00"  # vermilion
AFTER_COLOR = "#0072B2"  # blue
OTHER_COLORS = ("#009E73", "#E69F00", "#CC79A7", "#56B4E9")
FLOOR_COLOR = "#999999"
LOG_SCALE_FROM_RATIO = 100.0  # positive series that span more are drawn on a logarithmic axis
ROUND_STEPS = [1, 2, 2.5, 5, 10]  # between ticks, times a power of ten
DPI = 150


def survival_figure(
    path: Path,
    curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    within_support: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] | None = None,
    title: str = "",
) -> None:
    """Fraction of stable replicas over time, as step curves with confidence bands.

    The fraction of replicas within the support of the reference is dashed, in the same color and without a band.

    Args:
        path: path of the PNG.
        curves: by label, times in ps, survival probability, and the bounds of its 95 % interval. Labels that start with
            "before" or "after" have the same color in all figures.
        within_support: the same for the time within the support, by the labels of ``curves``, where it is known.
        title: above the figure.
    """
    figure, axes = _single_panel()
    for label, color in _colors(curves).items():
        times_ps, survival, low, high = curves[label]
        axes.fill_between(times_ps, low, high, step="post", color=color, alpha=0.2, linewidth=0)
        axes.step(times_ps, survival, where="post", color=color, label=label)
        if within_support and label in within_support:
            times_ps, fraction, *_ = within_support[label]
            axes.step(times_ps, fraction, where="post", color=color, linestyle=(0, (4, 2)))
    axes.set(xlabel="time (ps)", ylabel="fraction of replicas stable", ylim=(0, 1.04))
    axes.set_title(title, fontsize=9)
    axes.set_xlim(0, max(times_ps[-1] for times_ps, *_ in curves.values()))
    # below the panel, because curves and bands may fill any corner
    dashed = "dashed: within the support of the reference; " if within_support else ""
    figure.legend(frameon=False, title=f"{dashed}shaded: 95 % interval", loc="outside lower center", ncols=2)
    save_figure(figure, path)


def breaks_figure(path: Path, breaks: Mapping[str, Mapping[str, Sequence[float]]], end_ps: float) -> None:
    """When replicas broke, by reason: a row for each reason and label, a mark for each replica, and their number.

    Args:
        path: path of the PNG.
        breaks: by label, times in ps by reason.
        end_ps: end of the axis.
    """
    colors = _colors(breaks)
    marks = [(reason, label, times) for label, found in breaks.items() for reason, times in sorted(found.items())]
    figure = Figure(figsize=(5.2, 0.32 * len(marks) + 1.1), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for row, (_, label, times) in enumerate(marks):
        axes.plot(times, [row] * len(times), "|", color=colors[label], markersize=12, markeredgewidth=1.6)
        axes.text(1.01, row, str(len(times)), transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    _declutter(axes)
    several = len(breaks) > 1
    names = [f"{reason}\n{label}" if several else reason for reason, label, _ in marks]
    axes.set_yticks(range(len(marks)), names, fontsize=8)
    axes.set(xlabel="time of the break (ps)", xlim=(0, end_ps), ylim=(len(marks) - 0.5, -0.5))
    save_figure(figure, path)


def observable_figure(
    path: Path,
    x: Float[np.ndarray, "bin"],
    reference: Float[np.ndarray, "bin"],
    curves: Mapping[str, tuple[Float[np.ndarray, "bin"], Float[np.ndarray, "bin"]]],
    xlabel: str,
    ylabel: str,
    title: str = "",
) -> None:
    """An observable (RDF, ADF, VACF, ...) against its reference, with the residuals below.

    Args:
        path: path of the PNG.
        x: bin centers or lag times.
        reference: the observable of the reference ensemble.
        curves: by label, mean over the replicas and its standard error.
        xlabel: with unit.
        ylabel: with unit.
        title: above the figure.
    """
    figure = Figure(figsize=(5.2, 4.4), dpi=DPI, layout="constrained")
    axes, residual = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    axes.plot(x, reference, color=REFERENCE_COLOR, linewidth=2.2, label="reference")
    residual.axhline(0, color=REFERENCE_COLOR, linewidth=1)
    for label, color in _colors(curves).items():
        mean, standard_error = curves[label]
        for panel, center in ((axes, mean), (residual, mean - reference)):
            low, high = center - 2 * standard_error, center + 2 * standard_error
            panel.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
            panel.plot(x, center, color=color, linewidth=1.3, label=label)
    axes.set(ylabel=ylabel, title=title)
    axes.legend(frameon=False, title="shaded: ± 2 standard errors", alignment="left")
    residual.set(xlabel=xlabel, ylabel="residual", xlim=(x[0], x[-1]))
    for panel in (axes, residual):
        _declutter(panel)
    figure.align_ylabels()
    save_figure(figure, path)


@dataclass(frozen=True)
class Panel:
    """A function with its reference, in a figure of several.

    Attributes:
        x: bin centers.
        reference: the function of the reference ensemble.
        curves: by label, center, lower and upper bound.
        floor: the lowest or highest value that can be resolved, drawn as a line.
    """

    x: Float[np.ndarray, "bin"]
    reference: Float[np.ndarray, "bin"]
    curves: Mapping[str, tuple[Float[np.ndarray, "bin"], Float[np.ndarray, "bin"], Float[np.ndarray, "bin"]]]
    floor: float | None = None


def panels_figure(
    path: Path,
    panels: Mapping[str, Panel],
    xlabel: str,
    ylabel: str,
    floor_label: str = "",
    ticks: Sequence[float] | None = None,
    share_y: bool = True,
    columns: int = 3,
) -> None:
    """Functions of one kind with their references: a panel each, with a common horizontal axis.

    Args:
        path: path of the PNG.
        panels: by title.
        xlabel: with unit.
        ylabel: with unit.
        floor_label: meaning of the floors.
        ticks: on the horizontal axis. None: chosen automatically.
        share_y: give all panels the same vertical axis.
        columns: panels per row, at most.
    """
    columns = min(columns, math.ceil(math.sqrt(len(panels))))
    rows = -(-len(panels) // columns)
    size = (max(5.2, 2.6 * columns + 0.4), 2.0 * rows + 1.1)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    grid = list(figure.subplots(rows, columns, sharex=True, sharey=share_y, squeeze=False).flat)
    for axes, (title, panel) in zip(grid, panels.items(), strict=False):
        _draw_panel(axes, panel, floor_label)
        axes.set_title(title, fontsize=9, loc="left")
        if ticks is not None:
            axes.set_xticks(ticks)
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes in grid[max(0, len(panels) - columns) : len(panels)]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel(xlabel, fontsize=10)
    figure.supylabel(ylabel, fontsize=10)
    lines = {str(line.get_label()): line for axes in figure.axes for line in axes.lines}
    title = "shaded: ± 2 standard errors"
    figure.legend(lines.values(), lines, frameon=False, fontsize=9, title=title, loc="outside upper center", ncols=2)
    save_figure(figure, path)


def _draw_panel(axes: Axes, panel: Panel, floor_label: str) -> None:
    axes.plot(panel.x, panel.reference, color=REFERENCE_COLOR, linewidth=2.0, label="reference")
    for label, color in _colors(panel.curves).items():
        center, low, high = panel.curves[label]
        axes.fill_between(panel.x, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(panel.x, center, color=color, linewidth=1.2, label=label)
    if panel.floor is not None:
        axes.axhline(panel.floor, color=FLOOR_COLOR, linewidth=1, linestyle=":", label=floor_label)
    axes.tick_params(labelsize=8)
    axes.set_xlim(panel.x[0], panel.x[-1])
    _declutter(axes)


def training_figure(
    path: Path, series: Mapping[str, tuple[np.ndarray, np.ndarray]], xlabel: str = "step", columns: int = 3
) -> None:
    """A grid of small panels, one per scalar that a run recorded.

    Args:
        path: path of the PNG.
        series: by name (including the unit), steps and values. Non-finite values leave gaps.
        xlabel: label of the steps.
        columns: panels per row.
    """
    columns = min(columns, len(series))
    rows = -(-len(series) // columns)
    figure = Figure(figsize=(2.9 * columns, 2.1 * rows + 0.3), dpi=DPI, layout="constrained")
    for position, (name, (steps, values)) in enumerate(series.items(), start=1):
        axes = figure.add_subplot(rows, columns, position)
        _series(axes, steps, values, AFTER_COLOR)
        axes.set_title(name, fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        _scale(axes, [values])
        _declutter(axes)
    figure.supxlabel(xlabel, fontsize=9)
    save_figure(figure, path)


def loss_figure(
    path: Path, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], ylabel: str, xlabel: str = "epoch"
) -> None:
    """Losses or errors over training in one panel, such as those of training and validation data.

    Args:
        path: path of the PNG.
        curves: by label, epochs (or steps) and values.
        ylabel: with unit.
        xlabel: label of the epochs or steps.
    """
    figure, axes = _single_panel()
    for label, color in _colors(curves).items():
        _series(axes, *curves[label], color, label)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    _scale(axes, [values for _, values in curves.values()])
    axes.legend(frameon=False)
    save_figure(figure, path)


def _single_panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 3.6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    _declutter(axes)
    return figure, axes


def _declutter(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))
        axes.ticklabel_format(axis="y", style="plain", useOffset=False)  # no "+1.7e4" above the axis
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND_STEPS))


def _series(axes: Axes, steps: np.ndarray, values: np.ndarray, color: str, label: str | None = None) -> None:
    marker = "o" if len(steps) < 20 else None  # mark the points if they are few
    axes.plot(steps, values, color=color, linewidth=1.3, marker=marker, markersize=3, label=label)
    if not np.isfinite(values).any():
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center", va="center", fontsize=8)


def _scale(axes: Axes, series: list[np.ndarray]) -> None:
    values = np.concatenate([np.asarray(one, dtype=float).ravel() for one in series])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > LOG_SCALE_FROM_RATIO * values.min():
        axes.set_yscale("log")


def _colors(labels: Iterable[str]) -> dict[str, str]:
    """Colors of labels: fixed for "before" and "after", in turn for others."""
    roles = {"before": BEFORE_COLOR, "after": AFTER_COLOR, "reference": REFERENCE_COLOR}
    chosen: dict[str, str] = {}
    others = 0
    for label in labels:
        role = next((color for name, color in roles.items() if label.lower().startswith(name)), None)
        chosen[label] = role or OTHER_COLORS[others % len(OTHER_COLORS)]
        others += role is None
    return chosen


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure as PNG under a temporary name that is then renamed. Its folder is created if absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    figure.savefig(temporary, format="png", dpi=DPI)
    temporary.replace(path)
