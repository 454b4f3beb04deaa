"""The course of a StABlE training: the curves that tell whether it works, for TensorBoard and as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mdsim.reporting.figures import AFTER_COLOR, BEFORE_COLOR, DPI, LOG_SCALE_FROM_RATIO, save_figure

#: Curves by chart. Charts without data are left out of the figure.
CHARTS = {
    "fraction of replicas unstable": ("explore/fraction_unstable", "learn/fraction_unstable"),
    "mean stable time (ps)": ("explore/mean_stable_time_ps",),
    "loss of energies and forces": ("learn/energies_forces_loss",),
    "loss of observables": ("learn/observables_loss",),
}
EXPLORE, LEARN, CYCLE = "explore/fraction_unstable", "learn/fraction_unstable", "cycle"
LEARN_SHADE = "#E8EEF4"

Series = tuple[np.ndarray, np.ndarray]


def phases_figure(path: Path, scalars: Mapping[str, Series]) -> None:
    """The charts of a training over its epochs. Epochs of learning are shaded, and lines mark the ends of cycles.

    Args:
        path: path of the PNG.
        scalars: by name, epochs and values.

    Raises:
        ValueError: no chart has data.
    """
    charts = {title: found for title, names in CHARTS.items() if (found := [n for n in names if n in scalars])}
    if not charts:
        raise ValueError(f"there are no scalars of a StABlE training among {sorted(scalars)}")
    figure = Figure(figsize=(6.4, 1.45 * len(charts) + 0.7), dpi=DPI, layout="constrained")
    panels = figure.subplots(len(charts), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, names) in zip(panels, charts.items(), strict=True):
        _shade(axes, scalars)
        for name in names:
            color = AFTER_COLOR if name.startswith("learn/") else BEFORE_COLOR
            axes.plot(*_with_gaps(*scalars[name]), color=color, linewidth=1, marker="o", markersize=2.5)
        values = np.concatenate([scalars[name][1] for name in names])
        positive = np.isfinite(values).all() and values.min() > 0
        if positive and values.max() > LOG_SCALE_FROM_RATIO * values.min():
            axes.set_yscale("log")
        axes.set_title(title, fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].xaxis.set_major_locator(MaxNLocator(10, integer=True))
    panels[-1].set_xlabel(
        "epoch; shaded: learning (blue), white: exploring (vermilion); lines: ends of cycles", fontsize=9
    )
    save_figure(figure, path)


def _shade(axes: Axes, scalars: Mapping[str, Series]) -> None:
    for epoch in scalars[LEARN][0] if LEARN in scalars else ():
        axes.axvspan(epoch - 0.5, epoch + 0.5, color=LEARN_SHADE, linewidth=0)
    if CYCLE in scalars:
        epochs, cycles = scalars[CYCLE]
        for epoch in epochs[1:][np.diff(cycles) > 0]:
            axes.axvline(epoch - 0.5, color="#999999", linewidth=0.8)


def _with_gaps(epochs: np.ndarray, values: np.ndarray) -> Series:
    """A series that is interrupted where epochs of the other phase lie between."""
    after = np.flatnonzero(np.diff(epochs) > 1) + 1
    return np.insert(epochs.astype(float), after, np.nan), np.insert(values.astype(float), after, np.nan)
