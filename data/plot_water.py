"""Plot a data set of liquid water: RDFs, displacements, energies and the geometry of the molecules.

Example (the figure next to the README of the bundled set):
    python data/plot_water.py --db-path data/bundled --name water_spcfw --size 1k \\
        --out data/bundled/water_spcfw/overview.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from plot_peptide import save_small

from mdsim.datasets import Dataset, load_dataset
from mdsim.geometry import angles_deg, pair_distances
from mdsim.observables import RDF, Diffusivity
from mdsim.observables.adf import bonded_triplets

MOLECULE = "water"
FIT_FS = (1000.0, 10000.0)


def draw_rdfs(axes: Axes, dataset: Dataset) -> None:
    """g(r) of the whole run. The peaks within molecules are cut off."""
    for pair in (("O", "O"), ("O", "H"), ("H", "H")):
        rdf = RDF(6.0, 0.02, pair, "ideal_gas")
        mean, error = (values.numpy() for values in dataset.reference_run.mean_and_error(rdf))
        radius = rdf.bin_centers.numpy()
        axes.fill_between(radius, mean - 2 * error, mean + 2 * error, alpha=0.3, linewidth=0)
        axes.plot(radius, mean, linewidth=1.2, label="-".join(pair))
    axes.set(xlabel="r (Å)", ylabel="g(r)", xlim=(0, 6), ylim=(0, 3.5))
    axes.legend(frameon=False, fontsize=8)


def draw_displacements(axes: Axes, dataset: Dataset) -> None:
    """Mean squared displacement of the oxygens: blocks, their mean, and the fitted slope."""
    run = dataset.reference_run
    table = run.msd["O"].numpy()
    lags_ps = run.msd_lag_fs * np.arange(table.shape[1]) / 1000
    axes.plot(lags_ps, table.T, color="0.75", linewidth=0.7)
    mean = table.mean(0)
    axes.plot(lags_ps, mean, linewidth=1.4, label="mean of the blocks")
    value, error = (float(v) for v in run.mean_and_error(Diffusivity(*FIT_FS, "O")))
    fitted = (lags_ps >= FIT_FS[0] / 1000) & (lags_ps <= FIT_FS[1] / 1000)
    slope = 6 * value / 10  # Å²/ps for 1e-9 m²/s
    line = slope * lags_ps[fitted]
    line = line - line.mean() + mean[fitted].mean()
    label = f"D = ({value:.2f} ± {error:.2f}) 1e-9 m²/s"
    axes.plot(lags_ps[fitted], line, "k--", linewidth=1.0, label=label)
    axes.set(xlabel="lag (ps)", ylabel="MSD of O (Å²)", xlim=(0, lags_ps[-1]), ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)


def draw_energies(axes: Axes, dataset: Dataset) -> None:
    parts = {"training, validation": torch.cat([dataset.train.energy, dataset.val.energy]), "test": dataset.test.energy}
    for label, energy in parts.items():
        axes.hist(energy.numpy(), bins=30, density=True, histtype="step", label=label)
    axes.set(xlabel="potential energy (eV)", ylabel="density (1/eV)")
    axes.legend(frameon=False, fontsize=8)


def draw_geometry(axes: Axes, dataset: Dataset) -> None:
    system, positions = dataset.system(torch.float64), dataset.train.positions.double()
    lengths = pair_distances(positions, system.bonds, system.cell).numpy().ravel()
    angles = angles_deg(positions, bonded_triplets(system), system.cell).numpy().ravel()
    axes.hist(lengths, bins=60, density=True, histtype="step", color="C0")
    axes.set(xlabel="O-H bond (Å)", ylabel="density (1/Å)", ylim=(0, 20))
    inset = axes.inset_axes((0.7, 0.64, 0.28, 0.33))
    inset.hist(angles, bins=40, density=True, histtype="step", color="C1")
    inset.set_xlabel("H-O-H (degrees)", fontsize=7)
    inset.tick_params(labelsize=6)
    inset.set_yticks([])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db-path", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--size", default="1k")
    parser.add_argument("--out", type=Path, required=True, help="png file to write")
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.db_path, arguments.name, MOLECULE, arguments.size)
    figure, axes = plt.subplots(2, 2, figsize=(8.5, 6.5), dpi=90, layout="constrained")
    draw_rdfs(axes[0, 0], dataset)
    draw_displacements(axes[0, 1], dataset)
    draw_energies(axes[1, 0], dataset)
    draw_geometry(axes[1, 1], dataset)
    titles = ("RDFs of the whole run (band: 2 standard errors)", "displacements of the oxygens, by block")
    titles += ("energies of the frames", "geometry of the molecules")
    for panel, title in zip(axes.flat, titles, strict=True):
        panel.set_title(title, fontsize=9)
    save_small(figure, arguments.out)


if __name__ == "__main__":
    main()
