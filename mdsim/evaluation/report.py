"""Figures of evaluations, and the comparison of two kinds of evaluation, from the files of their runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mdsim.errors import ConfigError
from mdsim.evaluation.averages import mean_and_error
from mdsim.evaluation.comparison import pooled, rows, warn_of_other_conditions
from mdsim.evaluation.endings import breaks_of
from mdsim.evaluation.metrics import SEED
from mdsim.evaluation.page import BREAKS, SURVIVAL, Drawn, Evaluated, evaluation_page
from mdsim.evaluation.results import SUMMARY, Results, check_comparable, read_results
from mdsim.evaluation.state_points import names_in
from mdsim.evaluation.tables import conditions, legend
from mdsim.evaluation.training_page import training_page
from mdsim.observables.dihedrals import EMPTY, free_energy_eV
from mdsim.reporting.console import format_table
from mdsim.reporting.figures import (
    Panel,
    breaks_figure,
    observable_figure,
    panels_figure,
    survival_figure,
    training_figure,
)
from mdsim.reporting.html.page import write_page
from mdsim.reporting.phases import CYCLE, phases_figure
from mdsim.reporting.scalars import read_scalars
from mdsim.stability.stable_times import survival_with_band
from mdsim.stability.survival import Lifetimes

REPORT, TRAINING, PHASES, SURVIVAL_FIGURE = "report.html", "training.png", "phases.png", "survival.png"
AXES = {
    "rdf": ("r (Å)", "h(r) (1/Å)"),
    "adf": ("angle (deg)", "density (1/deg)"),
    "vacf": ("lag (fs)", "VACF / VACF(0)"),
    "bond_length_distribution": ("bond length (Å)", "density (1/Å)"),
    "structure_factor": ("q (1/Å)", "S(q)"),
    "radius_of_gyration": ("radius of gyration (Å)", "density (1/Å)"),
    "end_to_end": ("end-to-end distance (Å)", "density (1/Å)"),
    "coordination": ("number of neighbors", "probability density"),
    "tetrahedral_order": ("tetrahedral order q", "probability density"),
    "hydrogen_bonds": ("hydrogen bonds of a molecule", "probability"),
    "vibrational_dos": ("wavenumber (1/cm)", "modes per atom (per 1/cm)"),
    "infrared_spectrum": ("wavenumber (1/cm)", "absorption, area 1 (cm)"),
    "potential_energy": ("energy relative to the mean label (eV)", "density (1/eV)"),
}
DIHEDRAL, DISTANCES = "dihedral_", "distances_"  # prefixes of results that share a figure
ELEMENT, FOUR_ATOMS = re.compile(r"[A-Z][a-z]?"), re.compile(r"([A-Z][a-z]?\d+_){3}[A-Z][a-z]?\d+")


@dataclass(frozen=True)
class Report:
    """A report that was written: its file, its verdict, and the files of its figures."""

    path: Path
    verdict: str
    figures: tuple[Path, ...]


def draw_training(run_dir: Path) -> list[Path]:
    """Draw all scalars of a training run in its folder; for a StABlE training, also its course and a report.

    Returns:
        The figures, the most telling one first.
    """
    scalars = read_scalars(run_dir)
    drawn = []
    if CYCLE in scalars:
        drawn.append(run_dir / PHASES)
        phases_figure(drawn[-1], scalars)
    if scalars:
        drawn.append(run_dir / TRAINING)
        training_figure(drawn[-1], scalars, xlabel="step" if "train/loss" in scalars else "epoch")
    if CYCLE in scalars:
        write_page(run_dir / REPORT, training_page(run_dir, scalars, drawn))
    return drawn


def draw(folder: Path, results: Mapping[str, Results]) -> list[Drawn]:
    """Draw survival curves, breaks, and every observable with its reference, as PNG files in ``folder``.

    All dihedrals are in one figure, as free energies, and so are all distances by elements.
    """
    drawn = [Drawn(folder / SURVIVAL_FIGURE, SURVIVAL)]
    survival_figure(
        folder / SURVIVAL_FIGURE,
        {name: _survival(r, r.lifetimes) for name, r in results.items()},
        {name: _survival(r, Lifetimes.together(r.departures)) for name, r in results.items() if r.departures},
        title="\n".join(dict.fromkeys(conditions(summary) for r in results.values() for summary in r.summaries)),
    )
    breaks = {name: _breaks(r) for name, r in results.items()}
    if any(breaks.values()):
        drawn.append(Drawn(folder / "breaks.png", BREAKS))
        breaks_figure(drawn[-1].path, breaks, max(r.horizon_ps for r in results.values()))
    first = next(iter(results.values()))
    temperature_K, periodic = first.summaries[0]["temperature_K"], first.summaries[0].get("periodic", False)
    dihedrals: dict[str, Panel] = {}
    distances: dict[str, Panel] = {}
    for name, (_, axis, reference) in first.observables.items():
        curves = {key: mean for key, r in results.items() if (mean := _mean_and_error(r, name)) is not None}
        if len(axis) < 2 or not curves or not first.measure_of(name).has_reference:
            continue
        if name.startswith(DIHEDRAL):
            dihedrals[_title(name, DIHEDRAL)] = _free_energy_panel(axis, reference, curves, temperature_K)
        elif name.startswith(DISTANCES):
            bounds = {key: (mean, mean - 2 * error, mean + 2 * error) for key, (mean, error) in curves.items()}
            distances[_title(name, DISTANCES)] = Panel(axis, reference, bounds)
        else:
            drawn.append(Drawn(folder / f"{name}.png", name.replace("_", " "), (name,)))
            observable_figure(drawn[-1].path, axis, reference, curves, *axis_labels(name, periodic))
    if dihedrals:
        floor = f"bins with less than {EMPTY:g} of the density of free rotation"
        labels = ("dihedral angle (deg)", "free energy, $-kT$ ln $p$ (meV)", floor)
        drawn.append(Drawn(folder / "dihedrals.png", "dihedrals", _of_kind(first, DIHEDRAL)))
        panels_figure(drawn[-1].path, dihedrals, *labels, ticks=(-180.0, -90.0, 0.0, 90.0, 180.0))
    if distances:
        drawn.append(Drawn(folder / "distances.png", "distances by elements", _of_kind(first, DISTANCES)))
        panels_figure(drawn[-1].path, distances, *AXES["rdf"], share_y=False)
    return drawn


def _of_kind(results: Results, prefix: str) -> tuple[str, ...]:
    return tuple(name for name in results.observables if name.startswith(prefix))


def _breaks(results: Results) -> dict[str, list[float]]:
    """Times of the breaks in ps by reason, where the summaries state them."""
    found: dict[str, list[float]] = {}
    for one in (one for summary in results.summaries for one in breaks_of(summary)):
        found.setdefault(one.reason, []).append(one.stable_time_ps)
    return found


def _title(name: str, kind: str) -> str:
    """Title of a panel: the part of the name after the kind, with C4_N6_C8_C14 as C4-N6-C8-C14 and OH as O-H."""
    own = name.removeprefix(kind)
    if kind == DISTANCES:
        pair, _, among = own.partition("_")
        return " ".join(["-".join(ELEMENT.findall(pair)), among.replace("_", " ")]).strip()
    return own.replace("_", "-" if FOUR_ATOMS.fullmatch(own) else " ")


def _free_energy_panel(
    axis: np.ndarray, reference: np.ndarray, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], temperature_K: float
) -> Panel:
    """Free energies in meV from the lowest one of the reference. Bounds are those of the densities."""
    highest = 1000 * free_energy_eV(torch.zeros(1), temperature_K).item()

    def profile(density: np.ndarray) -> np.ndarray:
        return 1000 * free_energy_eV(torch.from_numpy(density), temperature_K).numpy()

    lowest = profile(reference).min()
    bounds = {
        key: (
            _without_plateaus(profile(mean), highest) - lowest,
            profile(mean + 2 * error) - lowest,
            profile(mean - 2 * error) - lowest,
        )
        for key, (mean, error) in curves.items()
    }
    return Panel(axis, _without_plateaus(profile(reference), highest) - lowest, bounds, highest - lowest)


def _without_plateaus(profile: np.ndarray, highest: float) -> np.ndarray:
    """A periodic profile in which empty bins between empty bins are left out, NaN."""
    empty = profile > highest - 1e-3
    return np.where(empty & np.roll(empty, 1) & np.roll(empty, -1), np.nan, profile)


def axis_labels(name: str, periodic: bool) -> tuple[str, str]:
    """Axis labels of an observable's figure: its kind, and the element pair if it has one."""
    kind = next((known for known in AXES if name.startswith(known)), "")
    xlabel, ylabel = AXES.get(kind, ("", name))
    if kind == "rdf" and periodic:
        ylabel = "g(r)"
    own = name.removeprefix(kind).strip("_").replace("_", " ")
    return xlabel, f"{ylabel}, {own}" if kind and own else ylabel


def _survival(results: Results, lifetimes: Lifetimes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Kaplan-Meier curve from time zero to the end, with 95 % bounds."""
    end_ps = max(summary["horizon_ps"] for summary in results.summaries)
    return survival_with_band(lifetimes, end_ps, rng=np.random.default_rng(SEED))


def _mean_and_error(results: Results, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    values = results.observables[name][0]
    known = np.isfinite(values).all(-1) & (results.weights_of(name) > 0)
    if not known.any():
        return None
    return mean_and_error(values[known], results.weights_of(name)[known])


def place(folder: Path, state_point: str | None) -> Path:
    """The folder of a state point below that of an evaluation or a comparison, which is that of a single one."""
    return folder if state_point is None else folder / state_point


def compare(run_dirs: Sequence[Path], before: str, after: str, state_point: str | None = None) -> str:
    """The table that compares two evaluations, before and after. Figures and report are saved in the first run folder.

    Args:
        run_dirs: run folders, each with both evaluations. Several seeds are averaged.
        before, after: names of the evaluations.
        state_point: the name of one of several state points.
    """
    names = (before, after)
    folders = {name: tuple(place(run / "inference" / name, state_point) for run in run_dirs) for name in names}
    results = {name: read_results(*folders[name]) for name in names}
    check_comparable(results)
    warn_of_other_conditions(results)
    evaluated = [
        Evaluated(f"{role} ({name})", folders[name], results[name])
        for role, name in (("before", before), ("after", after))
    ]
    folder = place(run_dirs[0] / "inference", state_point)
    folder.mkdir(exist_ok=True)
    write(folder / REPORT, evaluated, run_dirs)
    table = format_table(["", before, after, "change"], list(rows(list(results.values())).values()))
    caption = conditions(results[before].summaries[0])
    return f"{caption}\n{table}\n{legend(pooled(results[before]), len(run_dirs))}"


def report(paths: Sequence[Path], output: Path | None = None) -> Report:
    """Draw the report of the evaluations in folders anew: of runs with all their evaluations, or of single evaluations.

    Args:
        paths: folders of runs or of evaluations.
        output: the HTML file. None: ``report.html`` in the folder of a single evaluation, or in ``inference/`` of the
            first run if there are several.

    Raises:
        ConfigError: a folder holds no finished evaluation, or the evaluations cannot be compared.
    """
    folders = list(dict.fromkeys(folder for path in paths for folder in _evaluations_in(path)))
    labels = _labels(folders)
    results = {label: read_results(folder) for label, folder in zip(labels, folders, strict=True)}
    check_comparable(results)
    warn_of_other_conditions(results)
    evaluated = [Evaluated(label, (folder,), results[label]) for label, folder in zip(labels, folders, strict=True)]
    place = folders[0] if len(folders) == 1 else folders[0].parent
    runs = list(dict.fromkeys(folder.parent.parent for folder in folders))
    return write(output or place / REPORT, evaluated, runs)


def write(path: Path, evaluated: Sequence[Evaluated], run_dirs: Sequence[Path] = ()) -> Report:
    """Draw the figures beside ``path``, and write the page to it."""
    drawn = draw(path.parent, {one.label: one.results for one in evaluated})
    page = evaluation_page(evaluated, drawn, _trainings(run_dirs))
    write_page(path, page)
    return Report(path, page.verdict, tuple(one.path for one in drawn))


def _trainings(run_dirs: Sequence[Path]) -> list[Path]:
    """The figures of trainings that there are."""
    return [path for run in run_dirs for name in (PHASES, TRAINING) if (path := run / name).exists()]


def _evaluations_in(path: Path) -> list[Path]:
    """The evaluation in a folder, or those of a run, that of the initial force field first."""
    if names := names_in(path):
        shown = ", ".join(str(path / name) for name in names)
        raise ConfigError(f"{path}: has several state points, with a report each; name one of {shown}")
    if (path / SUMMARY).exists():
        return [path]
    found = sorted(one.parent for one in (path / "inference").glob(f"*/{SUMMARY}"))
    if not found:
        raise ConfigError(
            f"{path}: holds no finished evaluation; name a run folder with inference/*/{SUMMARY}, or one such folder"
        )
    for folder in found:
        if names_in(folder):
            return _evaluations_in(folder)  # an error
    return sorted(found, key=lambda folder: folder.name != "pre")


def _labels(folders: Sequence[Path]) -> list[str]:
    """Names of evaluations: before and after for those of one run, with its folder for those of several."""
    names = [folder.name for folder in folders]
    if len({folder.parent for folder in folders}) == 1:
        if len(names) == 2 and names[0] == "pre" and names[1].startswith("post"):
            return [f"before ({names[0]})", f"after ({names[1]})"]
        return names
    runs = [folder.parent.parent for folder in folders]
    distinct = len({(run.name, name) for run, name in zip(runs, names, strict=True)}) == len(folders)
    return [f"{run.name if distinct else run.as_posix()}/{name}" for run, name in zip(runs, names, strict=True)]
