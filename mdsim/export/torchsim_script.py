"""Export to torch-sim: a script that runs dynamics of many systems at once with `mdsim.export.torchsim`."""

from __future__ import annotations

from pathlib import Path

from mdsim.export.registry import Order
from mdsim.export.script import write_script

SCRIPT = '''\
"""Langevin dynamics of many systems at once with torch-sim.

    python $script STRUCTURE [STRUCTURE ...] [--copies 8] [--steps 1000] [--temperature_K 300]

Structures may have different atoms and cells. All are periodic, or none is.

$about
"""

import argparse

import torch
import torch_sim as ts
from ase.io import read, write

from mdsim.boundaries import cell_of
from mdsim.export.torchsim import TorchSimModel

FORCE_FIELD = $force_field


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structures", nargs="+", help="any files that ASE reads, with all their frames")
    parser.add_argument("--copies", type=int, default=1, help="of each frame")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--temperature_K", type=float, default=300.0)
    parser.add_argument("--timestep_fs", type=float, default=0.5)
    parser.add_argument("--output", help="write the last frames here (.xyz)")
    parser.add_argument("--device", default="cpu")
    known = parser.parse_args()

    frames = [atoms for path in known.structures for atoms in read(path, ":") for _ in range(known.copies)]
    for atoms in frames:
        cell_of(atoms)  # refuses slabs, whose boundaries torch-sim would take for open ones
    model = TorchSimModel(**FORCE_FIELD, device=known.device, dtype=torch.float64)  # float32: faster
    start = ts.initialize_state(frames, model.device, model.dtype)
    for number, energy in enumerate(model(start)["energy"].tolist()):
        print(f"system {number} energy {energy:.6f} eV")
    end = ts.integrate(
        start,
        model,
        integrator=ts.nvt_langevin,
        n_steps=known.steps,
        temperature=known.temperature_K,
        timestep=known.timestep_fs / 1000,
    )
    temperatures = ts.calc_kT(momenta=end.momenta, masses=end.masses, system_idx=end.system_idx)
    temperatures = temperatures / ts.units.MetalUnits.temperature
    for number, (energy, temperature) in enumerate(zip(end.energy.tolist(), temperatures.tolist(), strict=True)):
        print(f"system {number} after {known.steps} steps {energy:.6f} eV {temperature:.1f} K")
    if known.output:
        write(known.output, end.to_atoms())


if __name__ == "__main__":
    main()
'''


def write(order: Order) -> list[Path]:
    """Write the script."""
    return [write_script(SCRIPT, order)]
