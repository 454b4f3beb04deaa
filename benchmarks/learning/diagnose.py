"""Diagnosis of instabilities: the coordinate that leaves the reference range first, and the bond that breaks later.

    python benchmarks/learning/diagnose.py --size 40 [--checkpoint FILE] [--replicas 48] [--ps 4] [--label]

Replicas of the bundled aspirin start from test frames. For each one that leaves the range of the reference data, the
table shows which bonded angle or bond left it first and when, and how long after that a bond was broken. ``--label``
evaluates those structures with GFN2-xTB (needs tblite), for diagnosis alone: training needs no such labels.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import torch
from ase import Atoms
from ase.data import chemical_symbols

from mdsim.datasets.folder import load_dataset
from mdsim.dynamics.stretch import Stretch, initial_conditions
from mdsim.geometry import angles_deg, pair_distances
from mdsim.integrators.langevin import LangevinBAOAB
from mdsim.models.loading import load_force_field
from mdsim.observables.adf import bonded_triplets
from mdsim.reporting.console import format_table
from mdsim.stability.criteria import BondLengthDeviation
from mdsim.state import System
from mdsim.typing import Float, Tensor

SHIPPED = "qm_pretrained_checkpoints/schnet/aspirin_gfn2-aspirin_{size}_schnet/checkpoints/best_checkpoint.pt"
FRAME_FS = 20
BOND_MARGIN_A, ANGLE_MARGIN_DEG = 0.1, 10.0  # beyond the extremes of 5,000 reference frames


def coordinates(system: System, positions: Tensor) -> Float[Tensor, "*batch coordinate"]:
    """Bonds, then angles, each in units of its margin."""
    bonds = pair_distances(positions, system.bonds) / BOND_MARGIN_A
    return torch.cat([bonds, angles_deg(positions, bonded_triplets(system), None) / ANGLE_MARGIN_DEG], dim=-1)


def names(system: System) -> list[str]:
    """Names of the coordinates: elements and indices of their atoms."""
    label = [f"{chemical_symbols[z]}{i}" for i, z in enumerate(system.atomic_numbers.tolist())]
    return ["-".join(label[i] for i in atoms) for atoms in (*system.bonds.tolist(), *bonded_triplets(system).tolist())]


def gfn2_energies_eV(system: System, structures: Float[Tensor, "structure atom 3"]) -> Float[Tensor, "structure"]:
    """GFN2-xTB energies of structures in Å."""
    from tblite.ase import TBLite

    calculator = TBLite(method="GFN2-xTB", verbosity=0)
    atoms = [Atoms(system.atomic_numbers.numpy(), p.double().numpy(), calculator=calculator) for p in structures]
    return torch.tensor([image.get_potential_energy() for image in atoms], dtype=torch.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="40")
    parser.add_argument(
        "--checkpoint", type=Path, help="checkpoint to diagnose (default: the shipped one of this size)"
    )
    parser.add_argument("--replicas", type=int, default=48)
    parser.add_argument("--ps", type=float, default=4.0)
    parser.add_argument("--label", action="store_true")
    arguments = parser.parse_args()

    data = load_dataset("data/bundled", "aspirin_gfn2", "aspirin", arguments.size)
    reference = load_dataset("data/bundled", "aspirin_gfn2", "aspirin", "5k").train.positions.float()
    system = data.system()
    force_field = load_force_field(arguments.checkpoint or SHIPPED.format(size=arguments.size))
    broken_bond = BondLengthDeviation(data.reference_bond_lengths().float(), 0.25)
    stretch = Stretch(system, LangevinBAOAB(1.0, 500.0, 1.0), round(1000 * arguments.ps), FRAME_FS, (broken_bond,))
    start = initial_conditions(system, data.test.positions, arguments.replicas, 500.0, torch.Generator().manual_seed(0))
    outcome = stretch.run(force_field, stretch.begin(force_field, *start), torch.Generator().manual_seed(0))

    seen, known = coordinates(system, outcome.trajectory.positions), coordinates(system, reference)
    beyond = torch.maximum(known.amin(0) - seen, seen - known.amax(0))  # in margins
    outside = ~(beyond <= 1).all(-1)  # frame, replica
    left = outside.any(0)
    when = outside.int().argmax(0)
    replicas = torch.nonzero(left & torch.isfinite(beyond[when, torch.arange(len(left))]).all(-1)).squeeze(-1)
    which = beyond[when[replicas], replicas].argmax(-1)
    larger = (seen - known.amax(0))[when[replicas], replicas, which] > 0
    name = names(system)
    first = Counter(f"{name[c]} {'grows' if up else 'shrinks'}" for c, up in zip(which, larger, strict=True))
    print(
        f"{len(left)} replicas, {arguments.ps:g} ps: {int(left.sum())} left the range of the reference data, "
        f"{int(outcome.verdict.unstable.sum())} broke a bond"
    )
    rows = [[what, str(replicas_of_it)] for what, replicas_of_it in first.most_common()]
    print(format_table(["what leaves the range first", "replicas"], rows))
    both = replicas[outcome.verdict.unstable[replicas]]
    lag_fs = (outcome.verdict.first_frame[both] - when[both]) * FRAME_FS
    if len(both):
        quartiles = torch.quantile(lag_fs.double(), torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
        print("from there to the broken bond: quartiles {:.0f}, {:.0f}, {:.0f} fs".format(*quartiles.tolist()))
    if arguments.label:
        structures = outcome.trajectory.positions[when[replicas], replicas]
        predicted = force_field.total_energy(system, structures).detach()
        error = predicted - gfn2_energies_eV(system, structures)
        print(
            f"energy there, force field minus GFN2-xTB: median {error.median():.2f} eV, "
            f"from {error.min():.2f} to {error.max():.2f} eV"
        )


if __name__ == "__main__":
    main()
