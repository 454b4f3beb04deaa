"""Plot a data set of Ac-Ala3-NHMe (atoms in the order of MD22): bonds, backbone torsions and energies.

Example (the figure next to the README of the bundled set; frames of MD22 for comparison are optional):
    python data/plot_peptide.py --db-path data/bundled --name ac_ala3_nhme_gfn2 --size 100percent \\
        --compare md22_Ac-Ala3-NHMe.xyz --out data/bundled/ac_ala3_nhme_gfn2/overview.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from ase.data import chemical_symbols
from ase.io import read
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from mdsim.datasets import Dataset, load_dataset
from mdsim.datasets.splits import parse_indices
from mdsim.geometry import dihedrals_deg, pair_distances
from mdsim.state import System
from mdsim.units import kT_eV

MOLECULE = "ac_Ala3_NHMe"
# Backbone atoms from the acetyl to the methylamide end: carbonyl C, N and the next carbon, for each peptide bond.
CARBONYL, NITROGEN, ALPHA = [5, 11, 21, 31], [6, 16, 26, 36], [3, 8, 18, 28, 38]
PHI = [[CARBONYL[i], NITROGEN[i], ALPHA[i + 1], CARBONYL[i + 1]] for i in range(3)]
PSI = [[NITROGEN[i], ALPHA[i + 1], CARBONYL[i + 1], NITROGEN[i + 1]] for i in range(3)]
OMEGA = [[ALPHA[i], CARBONYL[i], NITROGEN[i], ALPHA[i + 1]] for i in range(4)]


def dihedrals_degrees(positions: np.ndarray, quadruplets: list[list[int]]) -> np.ndarray:
    """Torsion angles (frame, quadruplet) in degrees, IUPAC sign; positions are (frame, atom, 3)."""
    return dihedrals_deg(torch.from_numpy(positions), torch.tensor(quadruplets)).numpy()


def bond_lengths_by_type(system: System, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Lengths in Å of all bonds, by pair of elements."""
    lengths = pair_distances(torch.as_tensor(positions), system.bonds).numpy()
    elements = system.atomic_numbers[system.bonds].tolist()
    names = np.array(["-".join(sorted(chemical_symbols[number] for number in pair)) for pair in elements])
    return {str(name): lengths[:, names == name].ravel() for name in np.unique(names)}


def structural(dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, energies and indices (in the concatenated trajectories) of training, validation and test frames."""
    parts = {name: getattr(dataset, name) for name in ("train", "val", "test")}
    indices = np.concatenate([parse_indices(dataset.metadata.split["indices"][name]) for name in parts])
    order = np.argsort(indices)
    positions = torch.cat([frames.positions.double() for frames in parts.values()]).numpy()
    energy = torch.cat([frames.energy for frames in parts.values()]).numpy()
    return positions[order], energy[order], indices[order]


def draw_bonds(axes: Axes, system: System, positions: np.ndarray, reference: np.ndarray | None) -> None:
    others = {} if reference is None else bond_lengths_by_type(system, reference)
    for name, lengths in bond_lengths_by_type(system, positions).items():
        (line,) = axes.plot(*density(lengths), label=name)
        if name in others:
            axes.plot(*density(others[name]), color=line.get_color(), linestyle=":")
    axes.set(xlabel="bond length (Å)", ylabel="density (1/Å)")
    axes.legend(fontsize=7)


def density(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    heights, edges = np.histogram(values, bins=np.arange(0.85, 1.75, 0.01), density=True)
    return 0.5 * (edges[1:] + edges[:-1]), heights


def draw_ramachandran(axes: Axes, positions: np.ndarray, trajectory: np.ndarray, reference: np.ndarray | None) -> None:
    phi, psi = dihedrals_degrees(positions, PHI), dihedrals_degrees(positions, PSI)
    for index in np.unique(trajectory):
        chosen = trajectory == index
        axes.plot(phi[chosen].ravel(), psi[chosen].ravel(), ".", markersize=1, color=f"C{index}", alpha=0.6)
    if reference is not None:
        axes.plot(dihedrals_degrees(reference, PHI), dihedrals_degrees(reference, PSI), "k+", markersize=4)
    axes.set(xlabel="phi (degrees)", ylabel="psi (degrees)", xlim=(-180, 180), ylim=(-180, 180))
    axes.set(xticks=range(-180, 181, 90), yticks=range(-180, 181, 90))


def draw_omega(axes: Axes, positions: np.ndarray, reference: np.ndarray | None) -> None:
    bins = np.arange(0, 361, 5)
    omega = dihedrals_degrees(positions, OMEGA) % 360
    for index, angles in enumerate(omega.T):
        axes.hist(angles, bins, histtype="step", density=True, label=f"peptide bond {index + 1}")
    if reference is not None:
        for index, angles in enumerate((dihedrals_degrees(reference, OMEGA) % 360).T):
            axes.plot(angles, np.full(len(angles), -0.001 * (1 + index)), "|", color=f"C{index}", markersize=4)
    axes.set(xlabel="omega (degrees; 180 is trans)", ylabel="density (1/degree)")
    axes.set(xlim=(90, 270), xticks=range(90, 271, 45))
    axes.legend(fontsize=7)


def draw_energies(axes: Axes, dataset: Dataset, energy: np.ndarray, indices: np.ndarray) -> None:
    settings, interval_fs = dataset.metadata.settings, dataset.metadata.structural_frame_interval_fs
    trajectory, frame = np.divmod(indices, settings["frames"])
    for index in np.unique(trajectory):
        deviation = np.full(settings["frames"], np.nan)  # NaN breaks the line at the gap before the test frames
        deviation[frame[trajectory == index]] = energy[trajectory == index] - energy.mean()
        time_ps = (1 + np.arange(len(deviation))) * interval_fs / 1000
        axes.plot(time_ps, deviation, linewidth=0.6, color=f"C{index}")
    spread = np.sqrt(0.5 * (3 * len(dataset.metadata.atomic_numbers) - 6)) * kT_eV(dataset.metadata.temperature_K)
    axes.axhspan(-spread, spread, color="0.9", zorder=0, label="harmonic estimate, ±1 standard deviation")
    axes.set(xlabel="time (ps)", ylabel="energy - mean (eV)")
    axes.legend(fontsize=7)


def save_small(figure: Figure, path: Path) -> None:
    """Save with a palette of 64 colors, a third of the size without visible loss."""
    figure.canvas.draw()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
    image.quantize(64).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db-path", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--size", default="100percent")
    parser.add_argument(
        "--compare", type=Path, help="frames to compare with, of the same molecule in the same order (dotted, crosses)"
    )
    parser.add_argument("--out", type=Path, required=True, help="png file to write")
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.db_path, arguments.name, MOLECULE, arguments.size)
    positions, energy, indices = structural(dataset)
    compared = read(arguments.compare, index=":") if arguments.compare else []
    reference = np.stack([atoms.positions for atoms in compared]) if compared else None
    figure, axes = plt.subplots(2, 2, figsize=(8.5, 6.5), dpi=90, layout="constrained")
    draw_bonds(axes[0, 0], dataset.system(), positions, reference)
    draw_ramachandran(axes[0, 1], positions, indices // dataset.metadata.settings["frames"], reference)
    draw_omega(axes[1, 0], positions, reference)
    draw_energies(axes[1, 1], dataset, energy, indices)
    titles = ("bonds (dotted: compared frames)", "backbone, by trajectory (black: compared frames)")
    titles += ("peptide bonds (ticks: compared frames)", "energies, by trajectory")
    for panel, title in zip(axes.flat, titles, strict=True):
        panel.set_title(title, fontsize=9)
    save_small(figure, arguments.out)


if __name__ == "__main__":
    main()
