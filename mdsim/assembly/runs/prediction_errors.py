"""Errors of predictions against the labels of frames: per frame, and for all frames of a file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mdsim.datasets.sources.labels import where_present
from mdsim.datasets.sources.raw import ENERGY_UNITS_EV, FORCE_UNITS_EV_PER_A, Units
from mdsim.datasets.sources.stress_labels import stresses_of
from mdsim.errors import DatasetError
from mdsim.reporting.console import format_table
from mdsim.typing import Float

log = logging.getLogger("mdsim")

ENERGY_ERROR, FORCE_MAE, FORCE_RMSE = "energy_error_eV", "forces_mae_eV_per_A", "forces_rmse_eV_per_A"
STRESS_MAE, STRESS_RMSE = "stress_mae_eV_per_A3", "stress_rmse_eV_per_A3"
STRESS = "stress"  # of periodic frames, on request
ERROR_COLUMNS = (ENERGY_ERROR, FORCE_MAE, FORCE_RMSE, STRESS_MAE, STRESS_RMSE)


@dataclass(frozen=True)
class Labels:
    """Labels of every frame in eV, eV/Å and eV/Å³, None where it has none, and their names in the file."""

    names: tuple[str, ...]
    energies: list[float | None]
    forces: list[Float[np.ndarray, "_ 3"] | None]
    stresses: list[Float[np.ndarray, "3 3"] | None]


@dataclass(frozen=True)
class FrameErrors:
    """Prediction minus label of one frame: eV, eV/Å and eV/Å³. None without a label that can be compared."""

    energy: float | None
    forces: Float[np.ndarray, "atom 3"] | None
    stress: Float[np.ndarray, "3 3"] | None
    n_atoms: int

    def columns(self) -> dict[str, float]:
        """What the file says about them."""
        columns = {} if self.energy is None else {ENERGY_ERROR: self.energy}
        if self.forces is not None:
            columns |= {FORCE_MAE: _mae(self.forces), FORCE_RMSE: _rmse(self.forces)}
        if self.stress is not None:
            columns |= {STRESS_MAE: _mae(self.stress), STRESS_RMSE: _rmse(self.stress)}
        return columns


def labels_of(path: Path, images: list[Atoms], units: Units, asked: Mapping[str, str | None]) -> Labels:
    """The labels of the frames. Ambiguous ones are not used, unless the user has named one."""
    scales = {
        "energy": ENERGY_UNITS_EV[units.energy or "eV"],
        "forces": FORCE_UNITS_EV_PER_A[units.forces or "eV/angstrom"],
    }
    names, values = [], {}
    for what, scale in scales.items():
        try:
            name, found = where_present(path, images, what, f"--{what}-key", asked[what])
        except DatasetError as error:
            if asked[what] is not None:
                raise
            log.warning("errors of %s are not reported: %s", what, error)
            name, found = None, [None] * len(images)
        values[what] = [None if value is None else scale * value for value in found]
        names += [name] if name is not None else []
    energies = [None if value is None else float(value[0]) for value in values["energy"]]
    return Labels(tuple(names), energies, values["forces"], [None] * len(images))


def with_stresses(labels: Labels, path: Path, images: list[Atoms], units: Units, asked: str | None) -> Labels:
    """The labels with those of stresses. Ambiguous ones are not used, unless the user has named one."""
    scale = ENERGY_UNITS_EV[units.energy or "eV"]
    try:
        name, found, _ = stresses_of(path, images, asked)
    except DatasetError as error:
        if asked is not None:
            raise
        log.warning("errors of %s are not reported: %s", STRESS, error)
        return labels
    if name is None:
        return labels
    values = [None if value is None else scale * value for value in found]
    return replace(labels, names=(*labels.names, name), stresses=values)


def errors_of(results: Mapping[str, Any], labels: Labels, number: int, determined: bool, n_atoms: int) -> FrameErrors:
    energy, forces, stress = labels.energies[number], labels.forces[number], labels.stresses[number]
    return FrameErrors(
        None if energy is None or not determined else results["energy"] - energy,
        None if forces is None else results["forces"] - forces,
        None if stress is None or STRESS not in results else results[STRESS] - stress,
        n_atoms,
    )


def report_errors(labels: Labels, errors: Sequence[FrameErrors]) -> None:
    """Log the errors of all labeled frames, and name the frames whose energies cannot be compared."""
    if not labels.names:
        return
    compared = [error for error in errors if error.energy is not None]
    energy = np.array([error.energy for error in compared], dtype=float)
    sizes = np.array([error.n_atoms for error in compared], dtype=float)
    forces = [error.forces.ravel() for error in errors if error.forces is not None]
    rows = [
        _row("energy, eV", energy, len(energy)),
        _row("energy, meV/atom", 1000 * energy / sizes, len(energy)),
        _row("forces, eV/Å", np.concatenate([*forces, np.empty(0)]), len(forces)),
    ]
    if stresses := [error.stress.ravel() for error in errors if error.stress is not None]:
        rows.append(_row("stress, eV/Å³", np.concatenate(stresses), len(stresses)))
    log.info(
        "errors against the labels %s\n%s",
        *(_listed(labels.names), format_table(["error of", "frames", "MAE", "RMSE"], rows)),
    )
    if left_out := sum(value is not None for value in labels.energies) - len(compared):
        log.warning("the energies of %d labeled frames are not compared: their zero is not determined", left_out)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _row(name: str, errors: Float[np.ndarray, "value"], n_frames: int) -> list[str]:
    shown: list[Callable[[np.ndarray], float]] = [_mae, _rmse]
    return [name, str(n_frames), *(f"{measure(errors):.4g}" if n_frames else "-" for measure in shown)]


def _mae(errors: np.ndarray) -> float:
    return float(np.abs(errors).mean())


def _rmse(errors: np.ndarray) -> float:
    return float(np.sqrt(np.square(errors).mean()))
