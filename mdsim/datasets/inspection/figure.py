"""The figure of `mdsim data check`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mdsim.datasets.bonds import close_pairs
from mdsim.datasets.inspection.check import (
    Checked,
    Suspect,
    bond_kinds,
    bond_lengths,
    correlation_function,
    correlation_time,
    element_temperatures_K,
    free_momenta,
    net_force_eV_per_A,
    net_torque_eV,
)
from mdsim.geometry import volume
from mdsim.reporting.figures import (
    AFTER_COLOR,
    BEFORE_COLOR,
    DPI,
    OTHER_COLORS,
    REFERENCE_COLOR,
    _declutter,
    save_figure,
)
from mdsim.state import kinetic_temperature_K

PART_COLORS = {
    "train": AFTER_COLOR,
    "val": OTHER_COLORS[1],
    "test": OTHER_COLORS[0],
    "contiguous": REFERENCE_COLOR,
}
ELEMENT_COLORS = (AFTER_COLOR, REFERENCE_COLOR, *OTHER_COLORS, BEFORE_COLOR)
SUSPECT_COLOR = BEFORE_COLOR
COLUMNS = 4
MOST_DISTANCES = 2_000_000
MOST_PAIR_FRAMES = 200
FARTHEST_A = 8.0
NEIGHBORS_EACH = 150  # neighbors of an atom within this distance, in dense matter
MOST_ATOMS_ALL_PAIRS = 1000
LAGS_SHOWN = 6.0  # in correlation times
SHORTEST_LAG_FS = 300.0  # a few periods of the slower vibrations


def data_figure(path: Path, checked: Checked, found: Sequence[Suspect]) -> None:
    """Draw all properties of the data: energies, forces, bonds, distances, and time correlations.

    Args:
        path: path of the PNG.
        checked: the data.
        found: frames to mark.
    """
    panels: list[Callable[[Axes], None]] = [lambda axes: _energies(axes, checked)]
    if any(frames.forces is not None for frames in checked.parts.values()):
        panels += [lambda axes: _forces(axes, checked), lambda axes: _net(axes, checked)]
    if len(checked.system.bonds):
        panels.append(lambda axes: _bonds(axes, checked))
    panels.append(lambda axes: _distances(axes, checked))
    panels.append(lambda axes: _order(axes, checked, found))
    if "contiguous" in checked.parts and checked.interval_fs is not None:
        panels.append(lambda axes: _correlation(axes, checked))
    if any(frames.velocities is not None for frames in checked.parts.values()):
        panels.append(lambda axes: _temperature(axes, checked))
    columns = COLUMNS if len(panels) > 6 else 3
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.8 * rows + 0.3), dpi=DPI, layout="constrained")
    for position, draw in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, position)
        draw(axes)
        axes.tick_params(which="both", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(checked.name, fontsize=11)
    save_figure(figure, path)


def _histogram(axes: Axes, values: torch.Tensor, edges: np.ndarray, color: str, label: str) -> None:
    counts, _ = np.histogram(values.numpy(), edges)
    density = counts / max(1, counts.sum()) / np.diff(edges)
    axes.stairs(density, edges, color=color, label=label, linewidth=1.2)


def _energies(axes: Axes, checked: Checked) -> None:
    zero = checked.first.energy.mean()
    everything = checked.joined("energy") - zero
    for name, frames in checked.parts.items():
        edges = _edges(everything, most=int(2 * len(frames) ** 0.5))
        _histogram(axes, frames.energy - zero, edges, PART_COLORS.get(name, AFTER_COLOR), f"{name} ({len(frames):,})")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.35)  # room for the legend
    shift = f"{'+' if zero < 0 else '−'} {abs(float(zero)):.2f} eV"
    _finish(axes, "energy", f"energy {shift} (eV)", "density (1/eV)", legend=True)


def _edges(values: torch.Tensor, most: int) -> np.ndarray:
    """Bins over the range of the values: the given number, but at most 60."""
    low, high = float(values.min()), float(values.max())
    return np.linspace(low, high if high > low else low + 1e-6, min(max(most, 4), 60) + 1)


def _forces(axes: Axes, checked: Checked) -> None:
    size = torch.linalg.vector_norm(checked.joined("forces"), dim=-1)
    edges = _edges(size.flatten(), int(len(size) ** 0.5) * 3)
    for number, color in zip(_elements(checked), ELEMENT_COLORS, strict=False):
        values = size[:, checked.system.atomic_numbers == number].flatten()
        _histogram(axes, values, edges, color, chemical_symbols[number])
    axes.set_yscale("log")
    _finish(axes, "force on an atom", "|F| (eV/Å)", "density (Å/eV)", legend=True)


def _elements(checked: Checked) -> list[int]:
    return sorted(set(checked.system.atomic_numbers.tolist()))


def _net(axes: Axes, checked: Checked) -> None:
    labeled = [frames for frames in checked.parts.values() if frames.forces is not None]
    quantities = {"net force (eV/Å)": torch.cat([net_force_eV_per_A(frames) for frames in labeled])}
    if checked.first.cell is None:
        quantities["net torque (eV)"] = torch.cat([net_torque_eV(frames, checked.system) for frames in labeled])
    for (label, values), color in zip(quantities.items(), (AFTER_COLOR, OTHER_COLORS[1]), strict=False):
        values = values.clamp_min(1e-8)
        edges = np.geomspace(float(values.min()) * 0.9, float(values.max()) * 1.1, max(5, min(40, len(values) // 4)))
        counts, _ = np.histogram(values.numpy(), edges)
        axes.stairs(counts, edges, color=color, label=label, linewidth=1.2)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high)))
    axes.set_ylim(0, axes.get_ylim()[1] * 1.35)
    _finish(axes, "what should cancel", "size of the sum over atoms", "frames", legend=True, scaled=True)


def _bonds(axes: Axes, checked: Checked) -> None:
    lengths = bond_lengths(checked)
    kinds = bond_kinds(checked.system)
    for row, bonds in enumerate(kinds.values()):
        values = lengths[:, bonds].numpy()
        low, high = np.quantile(values, [0.005, 0.995])
        axes.plot([values.min(), values.max()], [row, row], color=AFTER_COLOR, linewidth=1)
        axes.plot([low, high], [row, row], color=AFTER_COLOR, linewidth=6, solid_capstyle="butt", alpha=0.5)
        axes.plot(lengths[:, bonds].mean(0).numpy(), np.full(len(bonds), row), "|", color=REFERENCE_COLOR, markersize=9)
    axes.set_yticks(range(len(kinds)), [f"{kind} ({len(bonds)})" for kind, bonds in kinds.items()])
    axes.set_ylim(len(kinds) - 0.4, -0.6)
    axes.set_title("bonds: range, 99 %, means", fontsize=9, loc="left")
    axes.set_xlabel("length (Å)", fontsize=8)


def _distances(axes: Axes, checked: Checked) -> None:
    """Draw all pair distances, which reveal parts of different origin and overlapping atoms."""
    n_atoms, cell = checked.system.n_atoms, checked.first.cell
    n_pairs, reach = n_atoms * (n_atoms - 1) // 2, _farthest_shown_A(checked)
    most = max(1, min(MOST_PAIR_FRAMES, MOST_DISTANCES // max(1, min(n_pairs, NEIGHBORS_EACH * n_atoms))))
    edges = np.linspace(0, reach, max(20, min(160, int((n_pairs * min(most, len(checked.first))) ** 0.5))) + 1)
    half = torch.full((n_atoms,), reach / 2, dtype=torch.float64)
    ideal, ylabel = np.ones(len(edges) - 1), "pairs per frame"
    if cell is not None:
        density = n_pairs / float(volume(cell.double()))
        ideal, ylabel = density * 4 / 3 * np.pi * np.diff(edges**3), "g(r) of all pairs"
    for name in [name for name in checked.parts if name != "val"]:
        positions = checked.parts[name].positions
        some = positions[:: -(-len(positions) // most)].double()
        counts = sum(np.histogram(distances.numpy(), edges)[0] for _, _, distances in close_pairs(some, cell, half))
        color = PART_COLORS.get(name, AFTER_COLOR)
        axes.stairs(counts / len(some) / ideal, edges, baseline=None, color=color, label=name, linewidth=1)
    axes.set_xlim(0, reach)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.15)
    _finish(axes, f"pair distances (up to {most} frames each)", "distance (Å)", ylabel, legend=True)


def _farthest_shown_A(checked: Checked) -> float:
    """Longest distance: the size of a molecule or half the width of a cell, at most 8 Å."""
    cell = checked.first.cell
    if cell is not None:
        return min(FARTHEST_A, float(torch.linalg.svdvals(cell.double()).min()) / 2)
    size = torch.linalg.vector_norm(checked.first.positions.double().diff(dim=1), dim=-1).sum(1).max()
    if checked.system.n_atoms <= MOST_ATOMS_ALL_PAIRS:
        some = checked.first.positions[:MOST_PAIR_FRAMES].double()
        size = torch.stack([torch.pdist(one).max() for one in some]).max()
    return min(FARTHEST_A, 1.05 * float(size))


def _order(axes: Axes, checked: Checked, found: Sequence[Suspect]) -> None:
    """Draw energies in the order of the files, with suspicious frames marked."""
    zero, start = checked.first.energy.mean(), 0
    size = 1.5 if sum(map(len, checked.parts.values())) > 1000 else 4
    dots = {"linestyle": "", "marker": ".", "markersize": size}
    for name, frames in checked.parts.items():
        index = np.arange(start, start + len(frames))
        energy = (frames.energy - zero).numpy()
        style = {"linewidth": 0.5} if name == "contiguous" else dots
        axes.plot(index, energy, color=PART_COLORS.get(name, AFTER_COLOR), rasterized=True, **style)  # type: ignore[arg-type]
        chosen = sorted({suspect.frame for suspect in found if suspect.part == name})
        axes.plot(index[chosen], energy[chosen], "o", color=SUSPECT_COLOR, markersize=5, fillstyle="none")
        axes.axvline(start, color="0.8", linewidth=0.5, zorder=0)
        start += len(frames)
    title = f"in file order; {len({(s.part, s.frame) for s in found})} suspects circled" if found else "in file order"
    _finish(axes, title, "frame, " + ", ".join(checked.parts), "energy (eV)")


def _correlation(axes: Axes, checked: Checked) -> None:
    interval = checked.interval_fs
    assert interval is not None
    energy = checked.parts["contiguous"].energy
    tau, known = correlation_time(energy)
    shown = min(len(energy) // 4, max(int(SHORTEST_LAG_FS / interval), int(LAGS_SHOWN * tau)))
    correlation = correlation_function(energy, max(2, shown))
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.plot(interval * np.arange(len(correlation)), correlation.numpy(), color=AFTER_COLOR, linewidth=1.2)
    if known:
        axes.axvline(tau * interval, color=REFERENCE_COLOR, linewidth=0.8, linestyle="--")
    _finish(
        axes, f"energy correlation, τ {'=' if known else '>'} {tau * interval:.3g} fs", "lag (fs)", "autocorrelation"
    )


def _temperature(axes: Axes, checked: Checked) -> None:
    name, frames = next((name, part) for name, part in checked.parts.items() if part.velocities is not None)
    assert frames.velocities is not None
    free = free_momenta(frames, checked.system)
    values = kinetic_temperature_K(frames.velocities.double(), checked.system.masses.double(), 1) / free.sum()
    _histogram(axes, values, _edges(values, int(2 * len(values) ** 0.5)), AFTER_COLOR, name)
    for (symbol, mean), color in zip(
        element_temperatures_K(frames, checked.system, free).items(), ELEMENT_COLORS[2:], strict=False
    ):
        axes.axvline(mean, color=color, linewidth=1.2, label=f"{symbol}: {mean:.0f} K")
    if checked.temperature_K is not None:
        axes.axvline(checked.temperature_K, color=REFERENCE_COLOR, linestyle="--", linewidth=1, label="metadata")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.5)
    _finish(axes, f"kinetic temperature over {float(free.sum()):.0f} momenta", "K", "density (1/K)", legend=True)


def _finish(axes: Axes, title: str, xlabel: str, ylabel: str, legend: bool = False, scaled: bool = False) -> None:
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel(xlabel, fontsize=8)
    axes.set_ylabel(ylabel, fontsize=8)
    if legend:
        # white background, because marks may cross the text
        box = axes.legend(fontsize=7, ncols=2, loc="upper right", handlelength=1.2, columnspacing=0.8, framealpha=0.9)
        box.get_frame().set_linewidth(0)
    if not scaled:
        _declutter(axes)
