"""Predictions for the frames of a file, and their errors where the frames have labels.

The predictions are `energy`, `forces`, `atomic_energies` and `energy_zero`. Everything else in a frame keeps its name:
constraints, tags, momenta, custom columns. What a frame has under a name of a prediction, or as the result of another
calculator, is called `REF_energy`, `REF_forces`, `REF_stress`, and so on. Predictions of an earlier call are replaced.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian
from ase.io.extxyz import write_extxyz
from ase.stress import voigt_6_to_full_3x3_stress

from mdsim import assembly
from mdsim.assembly.run_folder import check_output_file
from mdsim.calculator import ForceFieldCalculator
from mdsim.datasets.sources.ase_files import read_images_in_A
from mdsim.datasets.sources.labels import where_present
from mdsim.datasets.sources.raw import ENERGY_UNITS_EV, FORCE_UNITS_EV_PER_A, Units
from mdsim.errors import ConfigError, DatasetError, one_line
from mdsim.models import load_force_field
from mdsim.reporting.console import format_table
from mdsim.typing import Float

log = logging.getLogger("mdsim")

PREDICTED = ("energy", "forces", "atomic_energies", "energy_zero")
ENERGY_ERROR, FORCE_MAE, FORCE_RMSE = "energy_error_eV", "forces_mae_eV_per_A", "forces_rmse_eV_per_A"
PER_ATOM = ("forces", "stresses", "charges", "magmoms", "energies")  # results of ASE calculators
WRITTEN_CONSTRAINTS = (FixAtoms, FixCartesian)  # as the column move_mask


@dataclass(frozen=True)
class Labels:
    """Labels of every frame in eV and eV/Å, None where it has none, and their names in the file."""

    names: tuple[str, ...]
    energies: list[float | None]
    forces: list[Float[np.ndarray, "_ 3"] | None]


@dataclass(frozen=True)
class FrameErrors:
    """Prediction minus label of one frame: eV, and eV/Å. None without a label that can be compared."""

    energy: float | None
    forces: Float[np.ndarray, "atom 3"] | None
    n_atoms: int

    def columns(self) -> dict[str, float]:
        """What the file says about them."""
        columns = {} if self.energy is None else {ENERGY_ERROR: self.energy}
        if self.forces is not None:
            columns |= {FORCE_MAE: _mae(self.forces), FORCE_RMSE: _rmse(self.forces)}
        return columns


def predict(
    checkpoint: Path,
    frames: Path,
    output: Path,
    cpu: bool = False,
    allow_factory: str | None = None,
    energy_zero: str = "labels",
    energy_key: str | None = None,
    forces_key: str | None = None,
    format: str | None = None,
    model: str | None = None,
    model_options: Mapping[str, str] | None = None,
    allow_unpickling: bool = False,
) -> None:
    """Write energies (eV), forces (eV/Å) and atomic energies (eV) of every frame of a file as extended xyz.

    Errors of labeled frames are written with each frame, and logged for all of them. Energies are compared only where
    the training data determine their zero.

    Args:
        checkpoint: of the force field.
        frames: the file; what its frames have besides their geometry is kept.
        output: the file to write.
        cpu: use no GPU.
        allow_factory: factory that may make a custom model.
        energy_zero: as in `ForceFieldCalculator`; written with every frame.
        energy_key, forces_key: names of the labels in the file; None: recognized as in the conversion of data.
        format: name of the file's format in ASE; None: recognized.
        model, model_options, allow_unpickling: of a checkpoint of another package, see `load_force_field`.

    Raises:
        ConfigError: a frame cannot be predicted, its prediction is not finite, or two of its columns need one name.
        DatasetError: the frames cannot be read, or have no labels of the names given.
    """
    check_output_file(output)
    device = assembly.device(cpu)
    force_field = load_force_field(checkpoint, allow_factory, model, model_options, allow_unpickling)
    calculator = ForceFieldCalculator(force_field, device, energy_zero=energy_zero)
    images, units = read_images_in_A(frames, format)
    for atoms in images:
        _remove_earlier_prediction(atoms)
    labels = _labels(frames, images, units, {"energy": energy_key, "forces": forces_key})
    _name_constraints_left_out(images)
    predicted, errors = [], []
    for number, atoms in enumerate(images):
        where = f"{frames}, frame {number}"
        results = _results(calculator, atoms, where)
        found = _errors(results, labels, number, _energy_is_determined(calculator), len(atoms))
        predicted.append(_with_prediction(_renamed(atoms, where), results, energy_zero, found.columns()))
        errors.append(found)
    _write(output, predicted)
    log.info("%d frame%s -> %s", len(predicted), "" if len(predicted) == 1 else "s", output)
    _report(labels, errors)


def _results(calculator: ForceFieldCalculator, atoms: Atoms, where: str) -> dict[str, Any]:
    """The finite results of the force field for one frame."""
    try:
        calculator.calculate(atoms, ["energy", "forces", "energies"])
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    results = calculator.results
    if not all(np.isfinite(results[key]).all() for key in ("energy", "forces", "energies")):
        raise ConfigError(f"{where}: energies or forces are NaN or infinite: check the positions and the cell")
    return results


def _energy_is_determined(calculator: ForceFieldCalculator) -> bool:
    """Whether the energies of the last frame are on the scale of the labels."""
    return calculator.energy_zero != "relative" and calculator.why_undetermined() is None


# ------------------------------------------------------------------------------------------------ what a frame holds


def _remove_earlier_prediction(atoms: Atoms) -> None:
    """Remove what an earlier prediction wrote, so that its energies are not taken for labels."""
    if "energy_zero" not in atoms.info or "atomic_energies" not in atoms.arrays:
        return
    results = atoms.calc.results if atoms.calc is not None else {}
    for place in (results, atoms.info, atoms.arrays):
        for name in (*PREDICTED, ENERGY_ERROR, FORCE_MAE, FORCE_RMSE):
            place.pop(name, None)


def _renamed(atoms: Atoms, where: str) -> Atoms:
    """A copy in which results of calculators, and columns with names of predictions, begin with `REF_`."""
    copy = atoms.copy()
    copy.info = {name: _on_one_line(value) for name, value in copy.info.items()}
    results = {} if atoms.calc is None else {k: v for k, v in atoms.calc.results.items() if v is not None}
    if "stress" in results and np.shape(results["stress"]) == (6,):
        results["stress"] = voigt_6_to_full_3x3_stress(results["stress"])  # as extended xyz has it
    taken = [(name, place.pop(name)) for place in (copy.info, copy.arrays) for name in PREDICTED if name in place]
    for name, value in (*results.items(), *taken):
        target = f"REF_{name}"
        there = copy.info.get(target, copy.arrays.get(target))
        if there is not None and not np.array_equal(there, value):
            raise ConfigError(
                f"{where}: has both {name} and {target}, and they differ; {name} is kept as {target} beside the"
                " prediction: rename one of them"
            )
        place = copy.arrays if name in PER_ATOM or name == "atomic_energies" else copy.info
        place[target] = np.asarray(value) if place is copy.arrays else value
    return copy


def _on_one_line(value: Any) -> Any:
    """The value; text without line breaks, which would end the line of a frame's properties."""
    return " ".join(value.split()) if isinstance(value, str) and not value.isprintable() else value


def _with_prediction(atoms: Atoms, results: Mapping[str, Any], energy_zero: str, errors: Mapping[str, float]) -> Atoms:
    atoms.info |= {"energy": results["energy"], "energy_zero": energy_zero, **errors}
    atoms.arrays |= {"forces": results["forces"], "atomic_energies": results["energies"]}
    return atoms


def _name_constraints_left_out(images: Iterable[Atoms]) -> None:
    kinds = {type(c).__name__ for atoms in images for c in atoms.constraints if not isinstance(c, WRITTEN_CONSTRAINTS)}
    if kinds:
        log.warning("extended xyz cannot hold constraints of the kind %s: they are left out", ", ".join(sorted(kinds)))


def _write(output: Path, images: Sequence[Atoms]) -> None:
    """Write all frames, and only then take the place of an earlier file."""
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for number, atoms in enumerate(images):
                columns = [name for name in atoms.arrays if name not in ("numbers", "positions")]
                try:
                    write_extxyz(file, atoms, columns=["symbols", "positions", "move_mask", *columns])
                except (KeyError, TypeError, ValueError) as error:
                    raise ConfigError(
                        f"{output}: frame {number} holds something that extended xyz cannot ({one_line(error, 200)}):"
                        " remove it from the frames"
                    ) from error
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------------------ errors


def _labels(path: Path, images: list[Atoms], units: Units, asked: Mapping[str, str | None]) -> Labels:
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
    return Labels(tuple(names), energies, values["forces"])


def _errors(results: Mapping[str, Any], labels: Labels, number: int, determined: bool, n_atoms: int) -> FrameErrors:
    energy, forces = labels.energies[number], labels.forces[number]
    return FrameErrors(
        None if energy is None or not determined else results["energy"] - energy,
        None if forces is None else results["forces"] - forces,
        n_atoms,
    )


def _report(labels: Labels, errors: Sequence[FrameErrors]) -> None:
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
    log.info(
        "errors against the labels %s\n%s",
        *(" and ".join(labels.names), format_table(["error of", "frames", "MAE", "RMSE"], rows)),
    )
    if left_out := sum(value is not None for value in labels.energies) - len(compared):
        log.warning("the energies of %d labeled frames are not compared: their zero is not determined", left_out)


def _row(name: str, errors: Float[np.ndarray, "value"], n_frames: int) -> list[str]:
    shown: list[Callable[[np.ndarray], float]] = [_mae, _rmse]
    return [name, str(n_frames), *(f"{measure(errors):.4g}" if n_frames else "-" for measure in shown)]


def _mae(errors: np.ndarray) -> float:
    return float(np.abs(errors).mean())


def _rmse(errors: np.ndarray) -> float:
    return float(np.sqrt(np.square(errors).mean()))
