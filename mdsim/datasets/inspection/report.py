"""The text output of `mdsim data check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from ase.symbols import Symbols

from mdsim.datasets.inspection.check import (
    Checked,
    Suspect,
    bond_kinds,
    bond_lengths,
    correlation_time,
    element_temperatures_K,
    free_momenta,
    net_force_eV_per_A,
    net_torque_eV,
    shared_frames,
    slowest_distance,
    work_slope,
)
from mdsim.datasets.label_checks import mismatch
from mdsim.datasets.npz import Frames
from mdsim.observables.density import density_g_per_cm3
from mdsim.reporting.console import format_table
from mdsim.state import kinetic_temperature_K
from mdsim.units import FS, GPA

SUSPECTS_SHOWN = 8
TEMPERATURE_OFF = 0.05
MEAN_OFF = 0.3  # in standard deviations
ENOUGH_TO_COMPARE = 50  # frames; if independent, their mean is accurate to 0.14 standard deviations
NET_FORCE_OFF = 0.02  # noise of a component over its root mean square
FRAMES_OF_DISPLACEMENT = 25


def report(checked: Checked, found: Sequence[Suspect]) -> str:
    """All numbers as text, with the warnings at the end."""
    sections = [
        f"{checked.name}\n{_what(checked)}",
        format_table(
            ["", "frames", "energy mean", "std", "min", "max", "force RMS", "max", "net force", "net torque"],
            _parts(checked),
        )
        + "\n(eV, eV/Å; energies relative to the mean of the first line; net force and torque: root mean square)",
        *_stress(checked),
        format_table(["bond", "number", "mean", "std", "min", "max"], _bonds(checked)) + "\n(Å)",
    ]
    if dynamics := _dynamics(checked):
        sections.append(format_table(["time-ordered frames", ""], dynamics))
    sections.append(_second_look(checked, found))
    return "\n\n".join(sections)


def _what(checked: Checked) -> str:
    system, cell = checked.system, checked.first.cell
    molecules = Counter(
        Symbols(system.atomic_numbers[system.molecules == i].numpy()).get_chemical_formula()
        for i in range(system.n_molecules)
    )
    made_of = ", ".join(f"{count} × {formula}" if count > 1 else formula for formula, count in molecules.most_common(6))
    boundaries = "open boundaries"
    if cell is not None:
        density = float(density_g_per_cm3(system, cell.double()))
        sides = " × ".join(f"{float(side):.4g}" for side in cell.norm(dim=-1))
        boundaries = f"periodic, {sides} Å, {density:.3f} g/cm³"
    lines = [f"{system.n_atoms} atoms: {made_of}; {len(system.bonds)} bonds; {boundaries}"]
    if checked.metadata is not None:
        temperature = "" if checked.temperature_K is None else f"; {checked.temperature_K:g} K"
        lines.append(f"{checked.metadata.level_of_theory}{temperature}; {checked.metadata.source}")
    return "\n".join(lines)


def _parts(checked: Checked) -> list[list[str]]:
    zero = float(checked.first.energy.mean())
    rows = []
    for name, frames in checked.parts.items():
        energy = frames.energy.double() - zero
        spread = energy.std() if len(energy) > 1 else torch.tensor(0.0)
        numbers = [f"{float(value):.3f}" for value in (energy.mean(), spread, energy.min(), energy.max())]
        rows.append([name, f"{len(frames):,}", *numbers, *_forces(frames, checked)])
    return rows


def _forces(frames: Frames, checked: Checked) -> list[str]:
    if frames.forces is None:
        return ["-"] * 4
    rms, largest = frames.forces.double().square().mean().sqrt(), frames.forces.norm(dim=-1).max()
    torque = "-" if frames.cell is not None else f"{_rms(net_torque_eV(frames, checked.system)):.2g}"
    return [f"{float(rms):.3f}", f"{float(largest):.2f}", f"{_rms(net_force_eV_per_A(frames)):.2g}", torque]


def _stress(checked: Checked) -> list[str]:
    """A line on the stresses, if any."""
    known = [
        frames.stress[frames.stress.isfinite().all(2).all(1)]
        for frames in checked.parts.values()
        if frames.stress is not None
    ]
    values = torch.cat(known).double() if known else torch.zeros(0, 3, 3)
    if not len(values):
        return []
    pressures = -values.diagonal(dim1=1, dim2=2).mean(1) / GPA
    span = f"{float(pressures.min()):.3g} to {float(pressures.max()):.3g} GPa"
    return [f"stress: {len(values):,} frames, root mean square {_rms(values):.2g} eV/Å³; pressures from {span}"]


def _rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())


def _bonds(checked: Checked) -> list[list[str]]:
    lengths = bond_lengths(checked)
    rows = []
    for kind, bonds in bond_kinds(checked.system).items():
        values = lengths[:, bonds]
        numbers = (values.mean(), values.std(0).mean() if len(values) > 1 else 0.0, values.min(), values.max())
        rows.append([kind, str(len(bonds)), *(f"{float(value):.3f}" for value in numbers)])
    return rows or [["none", "0", "-", "-", "-", "-"]]


def _dynamics(checked: Checked) -> list[list[str]]:
    frames, interval = checked.parts.get("contiguous"), checked.interval_fs
    rows = []
    if frames is not None and interval is not None:
        rows.append(
            ["length", f"{len(frames):,} frames, {interval:g} fs apart: {len(frames) * interval / 1000:.3g} ps"]
        )
        rows.append(["energy", _time_text(*correlation_time(frames.energy), frames, interval)])
        if (slowest := slowest_distance(frames, checked.system)) is not None:
            text = _time_text(*slowest[:2], frames, interval)
            rows.append(["shape", f"slowest of {slowest[2]} distances between heavy atoms: {text}"])
        if (slope := work_slope(frames)) is not None:
            rows.append(["forces", f"energy differences are {slope:.4f} times their work (1 if they belong together)"])
        if frames.velocities is not None and len(frames) > 2:
            rows.append(
                ["displacements", f"{_displacement_ratio(frames, interval):.3f} times the integral of velocities"]
            )
    for name, part in checked.parts.items():
        if part.velocities is not None:
            rows.append([f"temperature, {name}", temperature_text(part, checked)])
    return rows


def _time_text(tau: float, known: bool, frames: Frames, interval_fs: float) -> str:
    if not known:
        return f"correlation time above {tau * interval_fs:.3g} fs, the stretch is too short to tell"
    return f"correlation time {tau * interval_fs:.3g} fs, {len(frames) / (2 * tau):.0f} independent frames"


def _displacement_ratio(frames: Frames, interval_fs: float) -> float:
    """Slope of displacements against integrated velocities, over enough frames to average fast vibrations."""
    assert frames.velocities is not None
    span = min(FRAMES_OF_DISPLACEMENT, len(frames) - 1)
    steps = 0.5 * (frames.velocities[1:] + frames.velocities[:-1]).double() * (interval_fs * FS)
    summed = torch.cat([torch.zeros_like(steps[:1]), steps.cumsum(0)])
    expected = summed[span:] - summed[:-span]
    moved = (frames.positions[span:] - frames.positions[:-span]).double()
    return float((moved * expected).sum() / expected.square().sum())


def mean_temperature_K(frames: Frames, checked: Checked) -> tuple[float, float]:
    """Temperature by equipartition over the free momenta, and their number."""
    assert frames.velocities is not None
    free = float(free_momenta(frames, checked.system).sum())
    masses = checked.system.masses.double()
    return float(kinetic_temperature_K(frames.velocities.double(), masses, 1).mean()) / max(free, 1.0), free


def temperature_text(frames: Frames, checked: Checked) -> str:
    temperature, free = mean_temperature_K(frames, checked)
    elements = element_temperatures_K(frames, checked.system, free_momenta(frames, checked.system))
    by_element = ", ".join(f"{symbol} {value:.0f}" for symbol, value in elements.items())
    everything = 3 * checked.system.n_atoms
    counted = (
        "" if round(free) == everything else f"; {temperature * free / everything:.0f} K if all {everything} counted"
    )
    return f"{temperature:.0f} K over {free:.0f} momenta ({by_element}){counted}"


def _second_look(checked: Checked, found: Sequence[Suspect]) -> str:
    lines = [*_remarks(checked), *(f"{checked.place(s.part, s.frame)}: {s.reason}" for s in found[:SUSPECTS_SHOWN])]
    if len(found) > SUSPECTS_SHOWN:
        lines.append(f"... and {len(found) - SUSPECTS_SHOWN} more frames")
    return (
        "nothing looks broken" if not lines else "\n".join(["worth a second look:", *(f"  {line}" for line in lines)])
    )


def _remarks(checked: Checked) -> list[str]:
    lines = [f"{count} frames are in {where}" for where, count in shared_frames(checked).items()]
    reference = checked.first.energy
    for name, frames in checked.parts.items():
        shift = float(frames.energy.mean() - reference.mean())
        if len(reference) >= ENOUGH_TO_COMPARE <= len(frames) and abs(shift) > MEAN_OFF * float(reference.std()):
            lines.append(
                f"{name}: its mean energy is {abs(shift):.2g} eV {'above' if shift > 0 else 'below'} that of the first"
                f" line, whose standard deviation is {float(reference.std()):.2g} eV"
            )
        if (found := mismatch(frames)) is not None:
            lines.append(f"{name}: {found}")
        if frames.forces is not None:
            rms = float(frames.forces.double().square().mean().sqrt())
            noise = _rms(net_force_eV_per_A(frames)) / (3 * checked.system.n_atoms) ** 0.5
            if noise > NET_FORCE_OFF * rms:
                lines.append(
                    f"{name}: forces do not sum to zero, as if each component had noise of {noise:.2g} eV/Å, or"
                    " something acted from outside"
                )
        if frames.velocities is not None and checked.temperature_K is not None:
            temperature, free = mean_temperature_K(frames, checked)
            if abs(temperature / checked.temperature_K - 1) > TEMPERATURE_OFF:
                scatter = checked.temperature_K / free**0.5  # harmonic: the energy of f momenta scatters by √f kT
                lines.append(
                    f"{name}: moves at {temperature:.0f} K, the metadata say {checked.temperature_K:g} K (stretches"
                    f" that are short against the thermostat scatter by {scatter:.0f} K)"
                )
    slope = work_slope(checked.parts["contiguous"]) if "contiguous" in checked.parts else None
    if slope is not None and abs(slope - 1) > 0.05:
        lines.append(f"contiguous: energies and forces disagree, slope {slope:.3f}: other units, or intervals too long")
    return lines
