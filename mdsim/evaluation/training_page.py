"""The page about a training: its course, its curves and its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mdsim.evaluation.page import listing, training_picture
from mdsim.reporting.html.page import Page, Section
from mdsim.reporting.phases import CYCLE, EXPLORE

STABLE_TIME = "explore/mean_stable_time_ps"
Series = tuple[np.ndarray, np.ndarray]


def training_page(run_dir: Path, scalars: Mapping[str, Series], figures: Sequence[Path]) -> Page:
    """The report of a StABlE training.

    Args:
        run_dir: its folder.
        scalars: by name, epochs and values.
        figures: of the training.
    """
    configuration = [listing(run_dir / name, run_dir.name) for name in ("config.yml", "inputs.json")]
    sections = [
        Section("Training", [training_picture(path) for path in figures]),
        Section("Configuration and provenance", [each for each in configuration if each is not None]),
    ]
    return Page(f"Training of {run_dir.name}", _verdict(scalars), sections)


def _verdict(scalars: Mapping[str, Series]) -> str:
    epochs, cycles = scalars[CYCLE]
    words = [f"{int(epochs[-1])} epochs, {int(cycles[-1])} cycles of exploring and learning."]
    if EXPLORE in scalars:
        values = scalars[EXPLORE][1]
        words.append(f"In the last epoch of exploring, {100 * values[-1]:.0f} % of the replicas were unstable.")
    if STABLE_TIME in scalars:
        values = scalars[STABLE_TIME][1]
        words.append(f"Their mean stable time was {values[-1]:.3g} ps then, and {np.nanmax(values):.3g} ps at most.")
    words.append("An evaluation from new initial conditions shows whether the training helped.")
    return " ".join(words)
