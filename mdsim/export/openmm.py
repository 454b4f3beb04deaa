"""Export to OpenMM: a script in which the force field is a `PythonForce`. Recent releases of OpenMM have it."""

from __future__ import annotations

from pathlib import Path

from mdsim.export.registry import Order
from mdsim.export.script import write_script

SCRIPT = '''\
"""Langevin dynamics with OpenMM. All forces are those of the force field.

    python $script STRUCTURE [--steps 1000] [--temperature_K 300] [--timestep_fs 0.5] [--platform CPU]

$about
"""

import argparse
import sys

import openmm
import torch
from ase.io import read
from ase.units import kJ, mol
from openmm import app, unit
from openmm.app.internal.unitcell import reducePeriodicBoxVectors

from mdsim import ForceFieldCalculator

FORCE_FIELD = $force_field
KJ_PER_MOL = kJ / mol  # in eV


def make_force(atoms, calculator):
    """The force field as a force of OpenMM. With boundaries along all axes it follows the box."""
    atoms = atoms.copy()
    atoms.calc = calculator
    periodic = bool(atoms.pbc.all())

    def compute(state):
        atoms.positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        if periodic:
            atoms.set_cell(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom))
        # kJ/mol and kJ/mol/nm
        return atoms.get_potential_energy() / KJ_PER_MOL, 10 * atoms.get_forces() / KJ_PER_MOL

    force = openmm.PythonForce(compute)
    force.setUsesPeriodicBoundaryConditions(periodic)
    return force


def make_topology(atoms):
    """One residue with all atoms, and the box, which OpenMM wants in its reduced form."""
    topology = app.Topology()
    residue = topology.addResidue("UNK", topology.addChain())
    for number in atoms.numbers:
        element = app.Element.getByAtomicNumber(int(number))
        topology.addAtom(element.symbol, element, residue)
    if atoms.pbc.all():
        topology.setPeriodicBoxVectors(reducePeriodicBoxVectors(atoms.cell.array * unit.angstrom))
    return topology


def make_simulation(atoms, calculator, temperature_K, timestep_fs, platform=None):
    """The simulation, at the positions of the atoms with random velocities."""
    if atoms.pbc.all():  # turn a along x and b into the xy plane
        atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    topology = make_topology(atoms)
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    if atoms.pbc.all():
        system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())
    system.addForce(make_force(atoms, calculator))
    integrator = openmm.LangevinMiddleIntegrator(
        temperature_K * unit.kelvin, 10 / unit.picosecond, timestep_fs * unit.femtosecond
    )
    platform = [openmm.Platform.getPlatformByName(platform)] if platform else []
    simulation = app.Simulation(topology, system, integrator, *platform)
    simulation.context.setPositions(atoms.positions * unit.angstrom)
    simulation.context.setVelocitiesToTemperature(temperature_K * unit.kelvin)
    return simulation


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structure", help="any file that ASE reads")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--temperature_K", type=float, default=300.0)
    parser.add_argument("--timestep_fs", type=float, default=0.5)
    parser.add_argument("--platform", help="Reference, CPU, CUDA, ... [the fastest]")
    parser.add_argument("--trajectory", help="write every 20th step here (.xtc)")
    parser.add_argument("--device", default="cpu", help="of the force field")
    known = parser.parse_args()

    calculator = ForceFieldCalculator(**FORCE_FIELD, device=known.device, dtype=torch.float64)  # float32: faster
    simulation = make_simulation(
        read(known.structure), calculator, known.temperature_K, known.timestep_fs, known.platform
    )
    energy = simulation.context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    print(f"energy {energy * KJ_PER_MOL:.6f} eV")
    columns = {"step": True, "potentialEnergy": True, "temperature": True, "speed": True}
    simulation.reporters.append(app.StateDataReporter(sys.stdout, 100, **columns))
    if known.trajectory:
        simulation.reporters.append(app.XTCReporter(known.trajectory, 20))
    simulation.step(known.steps)


if __name__ == "__main__":
    main()
'''


def write(order: Order) -> list[Path]:
    """Write the script."""
    return [write_script(SCRIPT, order)]
