"""Export to ASE: a script that relaxes a structure and runs dynamics with the calculator of mdsim."""

from __future__ import annotations

from pathlib import Path

from mdsim.export.registry import Order
from mdsim.export.script import write_script

SCRIPT = '''\
"""Relaxation and molecular dynamics with ASE.

    python $script STRUCTURE [--relax] [--cell] [--steps 1000] [--temperature_K 300] [--timestep_fs 0.5]

$about
"""

import argparse

import torch
from ase import units
from ase.filters import FrechetCellFilter
from ase.io import Trajectory, read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS

from mdsim import ForceFieldCalculator

FORCE_FIELD = $force_field


def relax(atoms, cell=False, fmax=0.01, steps=500):
    """Minimize the energy over the positions, and with `cell` over the lattice vectors as well; fmax in eV/Å."""
    BFGS(FrechetCellFilter(atoms) if cell else atoms, logfile=None).run(fmax, steps)


def langevin(atoms, temperature_K, timestep_fs, friction_per_ps=10.0):
    """Langevin dynamics from random velocities."""
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature_K)
    friction = friction_per_ps / (1000 * units.fs)
    return Langevin(atoms, timestep_fs * units.fs, temperature_K=temperature_K, friction=friction, fixcm=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structure", help="any file that ASE reads")
    parser.add_argument("--relax", action="store_true", help="minimize the energy first")
    parser.add_argument("--cell", action="store_true", help="relax the cell as well")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--temperature_K", type=float, default=300.0)
    parser.add_argument("--timestep_fs", type=float, default=0.5)
    parser.add_argument("--trajectory", help="write every 20th step here (.traj)")
    parser.add_argument("--device", default="cpu")
    known = parser.parse_args()

    atoms = read(known.structure)
    atoms.calc = ForceFieldCalculator(**FORCE_FIELD, device=known.device, dtype=torch.float64)  # float32: faster
    print(f"energy {atoms.get_potential_energy():.6f} eV")
    if known.relax or known.cell:
        relax(atoms, known.cell)
        print(f"relaxed {atoms.get_potential_energy():.6f} eV, largest force {abs(atoms.get_forces()).max():.4f} eV/Å")
    dynamics = langevin(atoms, known.temperature_K, known.timestep_fs)
    dynamics.attach(
        lambda: print(f"step {dynamics.nsteps} {atoms.get_potential_energy():.6f} eV {atoms.get_temperature():.1f} K"),
        interval=100,
    )
    if known.trajectory:
        dynamics.attach(Trajectory(known.trajectory, "w", atoms).write, interval=20)
    dynamics.run(known.steps)


if __name__ == "__main__":
    main()
'''


def write(order: Order) -> list[Path]:
    """Write the script."""
    return [write_script(SCRIPT, order)]
