"""The output of `mdsim data check` for data sets of several compositions and cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from ase.data import chemical_symbols

from mdsim.datasets.folder import Metadata
from mdsim.datasets.mixed import MixedFrames, is_mixed, read_mixed_frames
from mdsim.datasets.mixed_folder import MixedDataset, opened
from mdsim.geometry import volume
from mdsim.reporting.console import format_table
from mdsim.typing import Float, Tensor

PARTS = ("train", "val", "test")
COMPOSITIONS_SHOWN = 40
FORCE_OUTLIER = 12.0  # times the median size of the forces on one element
ENERGY_OUTLIER = 8.0  # robust standard deviations from the median of a composition
FEWEST_FOR_OUTLIERS = 10
SUSPECTS_SHOWN = 8


@dataclass(frozen=True)
class CheckedMixed:
    """The frames of one mixed set."""

    name: str
    parts: dict[str, MixedFrames]
    metadata: Metadata | None


def open_mixed(path: Path) -> CheckedMixed | None:
    """The mixed set in a folder or a file; None if it is a set of one composition.

    Raises:
        DatasetError: it is damaged.
    """
    if path.is_file():
        return CheckedMixed(path.stem, {path.stem: read_mixed_frames(path)}, None) if is_mixed(path) else None
    dataset = opened(path)
    if not isinstance(dataset, MixedDataset):
        return None
    parts = {part: getattr(dataset, part) for part in PARTS if f"{part}.npz" in dataset.metadata.sha256}
    return CheckedMixed("/".join(path.resolve().parts[-3:]), parts, dataset.metadata)


def report_mixed(checked: CheckedMixed) -> str:
    """All numbers as text, with the warnings at the end."""
    name, parts = checked.name, checked.parts
    together = MixedFrames.cat(list(parts.values()))
    head = f"{name}\n{_what(together)}"
    if checked.metadata is not None:
        head += f"\n{checked.metadata.level_of_theory}; {checked.metadata.source}"
    columns = ["", "frames", "atoms", "periodic", "energy per atom", "min", "max", "force RMS", "max", "stress", "RMS"]
    splits = format_table(columns, [_row(part, frames) for part, frames in parts.items()])
    units = "(eV per atom, eV/Å, eV/Å³; the columns of stress: frames with labels, and their root mean square)"
    return "\n\n".join([head, f"{splits}\n{units}", _compositions(together), _second_look(parts)])


def _what(frames: MixedFrames) -> str:
    elements = ", ".join(chemical_symbols[number] for number in sorted(set(frames.atomic_numbers.tolist())))
    sizes = f"{int(frames.n_atoms.min())} to {int(frames.n_atoms.max())} atoms"
    kinds = f"{len(frames.compositions)} compositions of {elements}; {sizes}"
    if not frames.is_periodic.any():
        return f"{kinds}; open boundaries"
    assert frames.cell is not None
    volumes = volume(frames.cell[frames.is_periodic].double()) / frames.n_atoms[frames.is_periodic]
    cells = len(frames.cell[frames.is_periodic].unique(dim=0))
    return f"{kinds}; {cells} cells of {float(volumes.min()):.3g} to {float(volumes.max()):.3g} Å³ per atom"


def _row(name: str, frames: MixedFrames) -> list[str]:
    per_atom = frames.energy / frames.n_atoms
    numbers = [f"{float(value):.3f}" for value in (per_atom.mean(), per_atom.min(), per_atom.max())]
    periodic = f"{int(frames.is_periodic.sum()):,}"
    forces = ["-", "-"]
    if frames.forces is not None:
        forces = [f"{_rms(frames.forces):.3f}", f"{float(frames.forces.norm(dim=-1).max()):.2f}"]
    stress = ["0", "-"]
    if frames.stress is not None and frames.has_stress.any():
        stress = [f"{int(frames.has_stress.sum()):,}", f"{_rms(frames.stress[frames.has_stress]):.2g}"]
    return [name, f"{len(frames):,}", f"{len(frames.atomic_numbers):,}", periodic, *numbers, *forces, *stress]


def _compositions(frames: MixedFrames) -> str:
    """A line per composition, most frequent first."""
    rows = []
    for formula, members in frames.members().items():
        some = frames[torch.tensor(members)]
        energy = some.energy - some.energy.mean()
        spread = f"{float(energy.std()):.3f}" if len(some) > 1 else "-"
        cells = "-" if some.cell is None or not some.is_periodic.any() else f"{len(some.cell.unique(dim=0))}"
        mean = f"{float(some.energy.mean()) / int(some.n_atoms[0]):.3f}"
        stress = f"{int(some.has_stress.sum())}"
        rows.append([formula, f"{len(some):,}", cells, mean, spread, f"{_rms(some.labels):.3f}", stress])
    left_out = len(rows) - COMPOSITIONS_SHOWN
    columns = ["composition", "frames", "cells", "energy per atom", "std of energy", "force RMS", "stresses"]
    text = format_table(columns, rows[:COMPOSITIONS_SHOWN])
    return text + (f"\n... and {left_out} more compositions" if left_out > 0 else "")


def _second_look(parts: Mapping[str, MixedFrames]) -> str:
    lines = [line for part, frames in parts.items() for line in _suspects(part, frames)]
    known = set(parts["train"].formulas) if "train" in parts else set()
    for part in ("val", "test"):
        if part in parts and (missing := sorted(set(parts[part].formulas) - known)):
            shown = ", ".join(missing[:SUSPECTS_SHOWN])
            lines.append(f"{part}: {len(missing)} compositions have no training frames: {shown}")
    if not lines:
        return "nothing looks broken"
    if left_out := len(lines) - SUSPECTS_SHOWN if len(lines) > SUSPECTS_SHOWN else 0:
        lines = [*lines[:SUSPECTS_SHOWN], f"... and {left_out} more"]
    return "\n".join(["worth a second look:", *(f"  {line}" for line in lines)])


def _suspects(part: str, frames: MixedFrames) -> list[str]:
    """Outliers of energies within a composition, and of forces on an element."""
    return [
        f"{part}, frame {frame}: {reason}" for frame, reason in (*_energy_outliers(frames), *_force_outliers(frames))
    ]


def _energy_outliers(frames: MixedFrames) -> Iterator[tuple[int, str]]:
    for formula, members in frames.members().items():
        if len(members) < FEWEST_FOR_OUTLIERS:
            continue
        centered = frames.energy[members] - frames.energy[members].median()
        spread = 1.4826 * float(centered.abs().median())
        for i in torch.nonzero(centered.abs() > ENERGY_OUTLIER * spread)[:, 0].tolist() if spread > 0 else []:
            yield members[i], f"{formula}, energy {float(centered[i]):+.2f} eV from the median"


def _force_outliers(frames: MixedFrames) -> Iterator[tuple[int, str]]:
    sizes, owners = frames.labels.double().norm(dim=-1), torch.repeat_interleave(frames.n_atoms)
    for number in sorted(set(frames.atomic_numbers.tolist())):
        of_element = torch.nonzero(frames.atomic_numbers == number)[:, 0]
        if len(of_element) < FEWEST_FOR_OUTLIERS:
            continue
        limit = FORCE_OUTLIER * sizes[of_element].median()
        for atom in of_element[sizes[of_element] > limit].tolist():
            yield int(owners[atom]), f"force of {float(sizes[atom]):.1f} eV/Å on {chemical_symbols[number]}"


def _rms(values: Float[Tensor, "*axes"]) -> float:
    return float(values.double().square().mean().sqrt())
