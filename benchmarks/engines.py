"""Benchmark of exports: agreement of each engine with the ASE calculator, and milliseconds per step.

    python -m benchmarks.engines [--steps 40] [--only GemNet]

Scripts and files are those of `mdsim export`, in float64. A step is one of molecular dynamics in the engine, and ASE's
with the calculator of this package runs alternately with it. Engines that are not installed are left out.
"""

from __future__ import annotations

import metatomic.torch  # isort: skip # noqa: F401 - before other extensions of torch

import argparse
import re
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import Atoms, units
from metatomic_ase import MetatomicCalculator

from mdsim.calculator import ForceFieldCalculator
from mdsim.datasets import load_dataset
from mdsim.export.registry import Order, export
from mdsim.models import load_force_field
from mdsim.models.repelled import add_repulsion
from mdsim.models.saving import save_force_field
from mdsim.reporting.console import format_table
from mdsim.repulsion.windows import zbl_from_frames

FITS = Path("qm_pretrained_checkpoints")
CASES = {
    "SchNet, aspirin, 21": ("schnet/aspirin_gfn2-aspirin_1k_schnet", ("aspirin_gfn2", "aspirin", "1k")),
    "SchNet with ZBL, aspirin, 21": ("schnet/aspirin_gfn2-aspirin_1k_schnet", ("aspirin_gfn2", "aspirin", "1k")),
    "NequIP, tetrapeptide, 42": (
        "nequip/ac_ala3_nhme_gfn2-ac_Ala3_NHMe_5percent_nequip_lmax=1",
        ("ac_ala3_nhme_gfn2", "ac_Ala3_NHMe", "5percent"),
    ),
    "GemNet-T, water, 192": ("gemnet_t/water_spcfw-water_100_gemnet_t", ("water_spcfw", "water", "100")),
}
MOVED_A = 0.1  # of all atoms, before energies and forces are compared


@dataclass(frozen=True)
class Engine:
    """Energy (eV) and forces (eV/Å) at given atoms, and the steps of one timing.

    `advance` returns the seconds per step if it measures them itself.
    """

    evaluate: Callable[[Atoms], tuple[float, np.ndarray]]
    advance: Callable[[], float | None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40, help="of one timing")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    known = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for case in filter(lambda name: known.only in name, CASES):
        with tempfile.TemporaryDirectory() as folder:
            rows += _rows(case, Path(folder), known.steps)
    header = ["model, system, atoms", "engine", "|dE| (eV)", "max |dF| (eV/Å)", "ms", "calculator, ms"]
    print(format_table(header, rows))


def _rows(case: str, folder: Path, steps: int) -> list[list[str]]:
    checkpoint, atoms = _case(case, folder)
    script = runpy.run_path(str(_exported("ase", checkpoint, folder)))
    reference = atoms.copy()
    reference.calc = ForceFieldCalculator(checkpoint, dtype=torch.float64)
    dynamics = script["langevin"](reference, 300.0, 0.5)
    rows = []
    for name, engine in _engines(checkpoint, atoms, folder, steps):
        moved = atoms.copy()
        moved.rattle(MOVED_A, seed=1)
        energy, forces = engine.evaluate(moved)
        moved.calc = ForceFieldCalculator(checkpoint, dtype=torch.float64)
        of_energy, of_forces = abs(energy - moved.get_potential_energy()), abs(forces - moved.get_forces()).max()
        seconds = [[_seconds(engine.advance, steps), _seconds(lambda: dynamics.run(steps), steps)] for _ in range(3)]
        ms = [f"{1000 * value:.1f}" for value in np.median(seconds, axis=0)]
        rows.append([case, name, f"{of_energy:.0e}", f"{of_forces:.0e}", *ms])
        print(*rows[-1], sep="  ", flush=True)
    return rows


def _seconds(advance: Callable[[], object], steps: int) -> float:
    """Seconds per step."""
    start = time.perf_counter()
    measured = advance()
    return measured if isinstance(measured, float) else (time.perf_counter() - start) / steps


def _case(case: str, folder: Path) -> tuple[Path, Atoms]:
    """The checkpoint, and a frame of the test set."""
    fit, names = CASES[case]
    data = load_dataset("data/bundled", *names)
    system, positions = data.system(), data.test.positions[0]
    cell = None if system.cell is None else system.cell.double().numpy()
    atoms = Atoms(system.atomic_numbers.numpy(), positions.double().numpy(), cell=cell, pbc=cell is not None)
    checkpoint = FITS / fit / "checkpoints" / "best_checkpoint.pt"
    if "ZBL" in case:
        model = load_force_field(checkpoint)
        add_repulsion(model, zbl_from_frames(system, data.train.positions, model.cutoff, "nonbonded"))
        checkpoint = folder / "repelled.pt"
        save_force_field(model, checkpoint)
    ase.io.write(folder / "atoms.xyz", atoms)
    return checkpoint, atoms


def _exported(engine: str, checkpoint: Path, folder: Path, structure: Path | None = None) -> Path:
    suffix = "pt" if engine == "metatomic" else "py"
    return export(engine, Order(checkpoint, folder / f"run_{engine}.{suffix}", structure=structure))[0]


def _engines(checkpoint: Path, atoms: Atoms, folder: Path, steps: int) -> Iterator[tuple[str, Engine]]:
    calculator = ForceFieldCalculator(checkpoint, dtype=torch.float64)
    yield "torch-sim", _torchsim(checkpoint, atoms, 1, steps)
    yield "torch-sim, 8 at once", _torchsim(checkpoint, atoms, 8, steps)
    yield "metatomic (in ASE)", _metatomic(checkpoint, atoms, folder, steps)
    yield "LAMMPS", _lammps(_exported("lammps", checkpoint, folder), atoms, calculator, steps)
    yield "OpenMM", _openmm(_exported("openmm", checkpoint, folder), atoms, calculator, steps)
    yield "i-PI, one bead", _ipi(_exported("ipi", checkpoint, folder, folder / "atoms.xyz"), checkpoint, steps)


def _torchsim(checkpoint: Path, atoms: Atoms, n_systems: int, steps: int) -> Engine:
    import torch_sim

    from mdsim.export.torchsim import TorchSimModel

    model = TorchSimModel(checkpoint, dtype=torch.float64)

    def evaluate(at: Atoms) -> tuple[float, np.ndarray]:
        output = model(torch_sim.initialize_state([at] * n_systems, model.device, model.dtype))
        return output["energy"][-1].item(), output["forces"][-len(at) :].numpy()

    def advance() -> None:
        torch_sim.integrate(
            [atoms.copy() for _ in range(n_systems)],
            model,
            integrator=torch_sim.nvt_langevin,
            n_steps=steps,
            temperature=300.0,
            timestep=0.0005,
        )

    return Engine(evaluate, advance)


def _metatomic(checkpoint: Path, atoms: Atoms, folder: Path, steps: int) -> Engine:
    with_bonds = load_force_field(checkpoint).repulsion is not None
    model = _exported("metatomic", checkpoint, folder, folder / "atoms.xyz" if with_bonds else None)
    moving = atoms.copy()
    moving.calc = MetatomicCalculator(str(model), device="cpu")
    dynamics = runpy.run_path(str(folder / "run_ase.py"))["langevin"](moving, 300.0, 0.5)

    def evaluate(at: Atoms) -> tuple[float, np.ndarray]:
        there = at.copy()
        there.calc = MetatomicCalculator(str(model), device="cpu")
        return there.get_potential_energy(), there.get_forces()

    return Engine(evaluate, lambda: dynamics.run(steps))


def _lammps(script: Path, atoms: Atoms, calculator: ForceFieldCalculator, steps: int) -> Engine:
    start = runpy.run_path(str(script))["start"]
    quiet = ("-log", "none", "-screen", "none")

    def evaluate(at: Atoms) -> tuple[float, np.ndarray]:
        lmp = start(at.copy(), calculator, quiet)
        lmp.command("run 0")
        own, forces = slice(len(at)), np.empty((len(at), 3))
        forces[lmp.numpy.extract_atom("id")[own] - 1] = lmp.numpy.extract_atom("f")[own]
        return lmp.get_thermo("pe"), forces

    moving = start(atoms.copy(), calculator, quiet)
    moving.commands_string("timestep 0.0005\nvelocity all create 300 1\nfix integrate all nve")
    return Engine(evaluate, lambda: moving.command(f"run {steps}"))


def _openmm(script: Path, atoms: Atoms, calculator: ForceFieldCalculator, steps: int) -> Engine:
    from openmm import unit

    make_simulation = runpy.run_path(str(script))["make_simulation"]

    def evaluate(at: Atoms) -> tuple[float, np.ndarray]:
        context = make_simulation(at.copy(), calculator, 300.0, 0.5, "Reference").context
        state = context.getState(energy=True, forces=True)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.angstrom)
        return energy * units.kJ / units.mol, forces * units.kJ / units.mol

    moving = make_simulation(atoms.copy(), calculator, 300.0, 0.5, "Reference")
    return Engine(evaluate, lambda: moving.step(steps))


def _ipi(client: Path, checkpoint: Path, steps: int) -> Engine:
    """i-PI in a process of its own, and its client in this one, which notes when it is asked for forces."""
    folder, template = client.parent, client.with_suffix(".xml").read_text(encoding="utf-8")
    output = "<trajectory filename='forces' stride='1' format='xyz'> forces{ev/ang} </trajectory>"
    template = template.replace("nbeads='4'", "nbeads='1'").replace("stride='10'", "stride='1'")
    template = template.replace("</properties>", f"</properties>{output}")
    address = re.search(r"<address> (\S+) </address>", template)
    connect = runpy.run_path(str(client))["connect"]

    class Noted(ForceFieldCalculator):
        def calculate(self, *arguments, **options) -> None:
            super().calculate(*arguments, **options)
            times.append(time.perf_counter())

    times: list[float] = []
    calculator = Noted(checkpoint, dtype=torch.float64)

    def run(n_steps: int) -> float:
        client.with_suffix(".xml").write_text(re.sub(r" 1000 <", f" {n_steps} <", template), encoding="utf-8")
        times.clear()
        i_pi = Path(sys.executable).with_name("i-pi")
        server = subprocess.Popen([i_pi, "run_ipi.xml"], cwd=folder, stdout=subprocess.DEVNULL)
        try:
            atoms = ase.io.read(folder / "atoms.xyz")
            atoms.calc = calculator
            connect(address[1]).run(atoms, use_stress=bool(atoms.pbc.all()))
            server.wait(60)
        finally:
            server.kill()
        return (times[-1] - times[0]) / max(1, len(times) - 1)

    def evaluate(at: Atoms) -> tuple[float, np.ndarray]:
        before = (folder / "atoms.xyz").read_text(encoding="utf-8")
        ase.io.write(folder / "atoms.xyz", at)
        run(1)
        (folder / "atoms.xyz").write_text(before, encoding="utf-8")
        forces = np.loadtxt(folder / "run_ipi.forces_0.xyz", skiprows=2, max_rows=len(at), usecols=(1, 2, 3))
        return np.loadtxt(folder / "run_ipi.out")[0, 4], forces

    return Engine(evaluate, lambda: run(steps))


if __name__ == "__main__":
    main()
