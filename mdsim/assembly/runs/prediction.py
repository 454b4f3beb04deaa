"""Predictions for the frames of a file, and their errors where the frames have labels.

The predictions are `energy`, `forces`, `atomic_energies` and `energy_zero`, and on request `stress`. Everything else in
a frame keeps its name: constraints, tags, momenta, custom columns. What a frame has under a name of a prediction, or as
the result of another calculator, is called `REF_energy`, `REF_forces`, `REF_stress`, and so on. Predictions of an
earlier call are replaced.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian
from ase.io.extxyz import write_extxyz
from ase.stress import voigt_6_to_full_3x3_stress

from mdsim import assembly
from mdsim.assembly.run_folder import check_output_file
from mdsim.assembly.runs.prediction_errors import (
    ERROR_COLUMNS,
    STRESS,
    errors_of,
    labels_of,
    report_errors,
    with_stresses,
)
from mdsim.calculator import ForceFieldCalculator
from mdsim.datasets.sources.ase_files import read_images_in_A
from mdsim.errors import ConfigError, one_line
from mdsim.models import load_force_field
from mdsim.reporting.console import finished
from mdsim.reporting.live import COMPILES, Bar, waiting

log = logging.getLogger("mdsim")

PREDICTED = ("energy", "forces", "atomic_energies", "energy_zero")
PER_ATOM = ("forces", "stresses", "charges", "magmoms", "energies")  # results of ASE calculators
WRITTEN_CONSTRAINTS = (FixAtoms, FixCartesian)  # as the column move_mask


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
    stress: bool = False,
    stress_key: str | None = None,
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
        stress: also write the stress (eV/Å³) of every periodic frame.
        stress_key: name of the stress or virial in the file, as in the conversion of data.

    Raises:
        ConfigError: a frame cannot be predicted, its prediction is not finite, or two of its columns need one name.
        DatasetError: the frames cannot be read, or have no labels of the names given.
    """
    check_output_file(output)
    device = assembly.device("cpu" if cpu else None)
    force_field = load_force_field(checkpoint, allow_factory, model, model_options, allow_unpickling)
    calculator = ForceFieldCalculator(force_field, device, energy_zero=energy_zero)
    with waiting(f"reading {frames}"):
        images, units = read_images_in_A(frames, format)
    for atoms in images:
        _remove_earlier_prediction(atoms)
    labels = labels_of(frames, images, units, {"energy": energy_key, "forces": forces_key})
    if stress:
        labels = with_stresses(labels, frames, images, units, stress_key)
    _name_constraints_left_out(images)
    predicted, errors = [], []
    for number, atoms in enumerate(Bar(images, desc="predict", unit="frames", note=COMPILES)):
        where = f"{frames}, frame {number}"
        results = _results(calculator, atoms, where, stress and bool(atoms.pbc.all()))
        found = errors_of(results, labels, number, _energy_is_determined(calculator), len(atoms))
        predicted.append(_with_prediction(_renamed(atoms, where, results), results, energy_zero, found.columns()))
        errors.append(found)
    _write(output, predicted)
    report_errors(labels, errors)
    count = f"{len(predicted)} frame{'' if len(predicted) == 1 else 's'}"
    finished(f"predicted {count}", {output: "energies, forces, atomic energies"})


def _results(calculator: ForceFieldCalculator, atoms: Atoms, where: str, with_stress: bool) -> dict[str, Any]:
    """The finite results of the force field for one frame."""
    wanted = ["energy", "forces", "energies", *([STRESS] if with_stress else [])]
    try:
        calculator.calculate(atoms, wanted)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    results = calculator.results
    if not all(np.isfinite(results[key]).all() for key in wanted):
        raise ConfigError(f"{where}: energies or forces are NaN or infinite: check the positions and the cell")
    if with_stress:
        return results | {STRESS: voigt_6_to_full_3x3_stress(results[STRESS])}
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
        for name in (*PREDICTED, STRESS, *ERROR_COLUMNS):
            place.pop(name, None)


def _renamed(atoms: Atoms, where: str, predicted: Mapping[str, Any]) -> Atoms:
    """A copy in which results of calculators, and columns with names of predictions, begin with `REF_`."""
    copy = atoms.copy()
    copy.info = {name: _on_one_line(value) for name, value in copy.info.items()}
    results = {} if atoms.calc is None else {k: v for k, v in atoms.calc.results.items() if v is not None}
    if "stress" in results and np.shape(results["stress"]) == (6,):
        results["stress"] = voigt_6_to_full_3x3_stress(results["stress"])  # as extended xyz has it
    names = [*PREDICTED, *([STRESS] if STRESS in predicted else [])]
    taken = [(name, place.pop(name)) for place in (copy.info, copy.arrays) for name in names if name in place]
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
    if STRESS in results:
        atoms.info[STRESS] = results[STRESS]
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
