"""Slabs and wires are refused at every door, with one sentence, and its remedy gives the energies of the slab."""

import os
import runpy
import subprocess
import sys
import textwrap

import ase.io
import numpy as np
import pytest
import torch
from ase.build import fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from paths import ROOT

import mdsim
from mdsim.boundaries import cell_of, why_unsupported
from mdsim.calculator import ForceFieldCalculator
from mdsim.cli.main import main
from mdsim.datasets.npz import read_frames
from mdsim.datasets.structures import read_structures
from mdsim.errors import ConfigError, DatasetError
from mdsim.models import SchNet
from mdsim.models.saving import save_force_field
from mdsim.state import System

SENTENCE = (
    "the boundaries are mixed, periodic along a and b and open along c ({}), but mdsim simulates systems that are "
    "periodic along three lattice vectors or none. Add vacuum and make all axes periodic: "
    "atoms.center(vacuum=10, axis=2); atoms.pbc = True."
)
PADDED = "pbc=[True, True, False] and three lattice vectors"
BARE = "pbc=[True, True, False] and no lattice vector along c"
PERIODIC = "pbc=[True, True, True] and no lattice vector along c"
CUTOFF_A = 4.5


def _slab(vacuum=8.0, n_frames=None):
    slab = fcc111("Al", (2, 2, 3), vacuum=vacuum)
    slab.rattle(0.05, seed=1)
    if n_frames is None:
        return slab
    frames = []
    for seed in range(n_frames):
        frame = slab.copy()
        frame.rattle(0.05, seed=seed)
        frame.calc = EMT()
        results = {"energy": frame.get_potential_energy(), "forces": frame.get_forces()}
        frame.calc = SinglePointCalculator(frame, **results)
        frames.append(frame)
    return frames


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2, "num_gaussians": 8}
    model = SchNet(**sizes, cutoff=CUTOFF_A, species=(13,))
    torch.nn.init.normal_(model.lin2.weight, std=4.0)
    model.fit_energy_zero([], torch.zeros(0), {13: -6500.0})
    return model.eval()


@pytest.fixture
def checkpoint(tmp_path, model):
    save_force_field(model, tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.fixture
def files(tmp_path):
    """The slab as a structure, and as labeled frames."""
    ase.io.write(tmp_path / "slab.extxyz", _slab())
    ase.io.write(tmp_path / "frames.extxyz", _slab(n_frames=12))
    return tmp_path


def _error(capsys, *arguments):
    capsys.readouterr()
    assert main(list(map(str, arguments))) == 1
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    return shown


# --------------------------------------------------------------------------------------------------------- the sentence


@pytest.mark.parametrize(
    ("pbc", "given", "words"),
    [
        ((1, 1, 0), (1, 1, 1), (SENTENCE.format(PADDED),)),
        ((1, 1, 0), (1, 1, 0), (SENTENCE.format(BARE),)),
        ((1, 1, 1), (1, 1, 0), (SENTENCE.format(PERIODIC),)),
        ((0, 0, 1), (1, 1, 1), ("periodic along c and open along a and b", "axis=(0, 1)")),
        ((1, 0, 1), (1, 1, 1), ("periodic along a and c and open along b", "axis=1)")),
        ((1, 1, 1), (0, 0, 0), ("pbc=True) without lattice vectors",)),
    ],
)
def test_what_the_sentence_names(pbc, given, words):
    found = why_unsupported(np.array(pbc, dtype=bool), np.diag([4.0, 5.0, 6.0]) * given)
    assert all(word in found for word in words)


def test_flat_cells_and_what_is_supported():
    assert "lie in a plane" in why_unsupported([True] * 3, np.array([[4.0, 0, 0], [0, 5, 0], [1, 1, 0]]))
    for atoms in (molecule("H2O"), molecule("H2O", cell=[9, 9, 9]), molecule("H2O", cell=[9, 9, 9], pbc=True)):
        assert why_unsupported(atoms.pbc, atoms.cell.array) is None
        assert (cell_of(atoms) is None) == (not atoms.pbc.any())


@pytest.mark.parametrize("vacuum", [None, 8.0])
def test_the_remedy_gives_the_energy_and_forces_of_the_slab(model, vacuum):
    """Compared with a much wider vacuum, and with the sum over explicit copies of an open cluster of the same slab."""
    slab = _slab(vacuum)
    calculator = ForceFieldCalculator(model, dtype=torch.float64)
    slab.center(vacuum=10, axis=2)  # as the sentence says
    slab.pbc = True
    slab.calc = calculator
    energy, forces = slab.get_potential_energy(), slab.get_forces()
    wide = slab.copy()
    wide.center(vacuum=40, axis=2)
    wide.calc = calculator
    assert wide.get_potential_energy() == pytest.approx(energy, abs=1e-8)
    np.testing.assert_allclose(wide.get_forces(), forces, atol=1e-9)
    copies = slab.repeat((7, 7, 1))  # two message steps and the gradient reach 3 × 4.5 Å
    copies.pbc = False
    copies.calc = calculator
    middle = slice(24 * len(slab), 25 * len(slab))
    np.testing.assert_allclose(copies.get_forces()[middle], forces, atol=1e-8)


# ------------------------------------------------------------------------------------------------------------ the doors


@pytest.mark.parametrize(("vacuum", "found"), [(8.0, PADDED), (None, BARE)])
def test_calculator_and_simulate(model, vacuum, found):
    slab = _slab(vacuum)
    slab.calc = ForceFieldCalculator(model)
    for _ in range(2):  # also when asked again
        with pytest.raises(ConfigError) as raised:
            slab.get_forces()
        assert SENTENCE.format(found) in str(raised.value)
    with pytest.raises(ValueError) as raised:
        mdsim.simulate(model, _slab(vacuum), mdsim.VelocityVerlet(0.5), length_ps=0.01, temperature_K=300.0)
    assert SENTENCE.format(found) in str(raised.value)


def test_structures_that_differ_only_in_their_boundaries(model):
    padded = _slab()
    padded.pbc = True
    with pytest.raises(ValueError, match="structure 1 has other elements, boundaries or another cell"):
        mdsim.simulate(model, [padded, _slab()], mdsim.VelocityVerlet(0.5), length_ps=0.01, temperature_K=300.0)


@pytest.mark.parametrize("flags", [(), ("--mixed",)])
def test_conversion(files, capsys, flags):
    out = ("--db_path", files / "data", "--name", "mine", "--molecule", "slab")
    shown = _error(capsys, "data", "convert", files / "frames.extxyz", *out, "--size", 8, *flags)
    assert f"frames.extxyz: frame 0: {SENTENCE.format(PADDED)}" in shown
    assert not (files / "data").exists()


def test_init(files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    assert SENTENCE.format(PADDED) in _error(capsys, "init", "--data", files / "frames.extxyz", "--model", "schnet")


def test_deepmd_systems(tmp_path, capsys):
    slab = _slab(n_frames=1)[0]
    folder, part = tmp_path / "dp", tmp_path / "dp" / "set.000"
    part.mkdir(parents=True)
    (folder / "type.raw").write_text("0\n" * len(slab))
    (folder / "type_map.raw").write_text("Al\n")
    cell = slab.cell.array * [[1], [1], [0]]
    energy, forces = np.array([slab.get_potential_energy()]), slab.get_forces()
    arrays = {"coord": slab.positions, "box": cell, "energy": energy, "force": forces}
    for name, values in arrays.items():
        np.save(part / f"{name}.npy", np.repeat(values.reshape(1, -1), 6, axis=0))
    out = ("--db_path", tmp_path / "data", "--name", "mine", "--molecule", "slab", "--size", "4")
    assert "no lattice vector along c" in _error(capsys, "data", "convert", folder, *out)


def test_npz_files_with_two_lattice_vectors(tmp_path, capsys):
    slab = _slab(vacuum=None, n_frames=1)[0]
    arrays = {"z": slab.numbers, "R": slab.positions[None], "E": np.zeros(1), "F": slab.get_forces()[None]}
    np.savez(tmp_path / "slab.npz", **arrays, cell=slab.cell.array)
    with pytest.raises(DatasetError) as raised:
        read_frames(tmp_path / "slab.npz")
    assert f"{tmp_path}/slab.npz: the boundaries are mixed" in str(raised.value)
    assert "the boundaries are mixed" in _error(capsys, "data", "check", tmp_path / "slab.npz")
    flat = {"z": slab.numbers, "R": slab.positions, "E": np.zeros(1), "F": slab.get_forces(), "n_atoms": np.array([12])}
    np.savez(tmp_path / "mixed.npz", **flat, cell=slab.cell.array[None])
    shown = _error(capsys, "data", "check", tmp_path / "mixed.npz")
    assert "mixed.npz, frame 0: the boundaries are mixed" in shown


def test_stress_test(files, checkpoint, capsys):
    shown = _error(capsys, "stress-test", checkpoint, "--structure", files / "slab.extxyz")
    assert SENTENCE.format(PADDED) in shown


def test_prediction(files, checkpoint, capsys):
    frames = files / "frames.extxyz"
    shown = _error(capsys, "predict", "--checkpoint", checkpoint, "--frames", frames, "--output", files / "out.extxyz")
    assert f"frames.extxyz, frame 0: {SENTENCE.format(PADDED)}" in shown


def test_reference_structures(files):
    slab = _slab()
    for cell in (slab.cell.array, None):
        system = System.from_geometry(slab.numbers, slab.positions, cell)
        with pytest.raises(DatasetError) as raised:
            read_structures(files / "slab.extxyz", system)
        assert SENTENCE.format(PADDED) in str(raised.value)


def test_torch_sim(model):
    torch_sim = pytest.importorskip("torch_sim")
    from mdsim.export.torchsim import TorchSimModel

    engine = TorchSimModel(model, dtype=torch.float64)
    state = torch_sim.initialize_state([_slab()], engine.device, engine.dtype)
    state.pbc = torch.tensor([True, True, False])  # release 0.3 makes it False, and has no place for three
    with pytest.raises(ConfigError) as raised:
        engine(state)
    assert "the boundaries are mixed, periodic along a and b and open along c" in str(raised.value)


def test_export_to_ipi(files, checkpoint, capsys):
    pytest.importorskip("ipi")
    arguments = ("--to", "ipi", "-o", files / "run.py", "--structure", files / "slab.extxyz")
    assert SENTENCE.format(PADDED) in _error(capsys, "export", checkpoint, *arguments)
    assert not (files / "run.py").exists()


@pytest.mark.parametrize("engine", ["ase", "lammps", "openmm", "torchsim"])
def test_exported_scripts(files, checkpoint, engine, monkeypatch):
    pytest.importorskip({"torchsim": "torch_sim"}.get(engine, engine))
    script = files / f"run_{engine}.py"
    assert main(["export", str(checkpoint), "--to", engine, "-o", str(script)]) == 0
    monkeypatch.setattr(sys, "argv", [script.name, str(files / "slab.extxyz"), "--steps", "1"])
    with pytest.raises(Exception, match="the boundaries are mixed, periodic along a and b and open along c"):
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.slow
def test_metatomic_simulates_slabs(checkpoint, tmp_path):
    """Its engines find the pairs, also with mixed boundaries, so that the model gets those of the slab."""
    pytest.importorskip("metatomic_ase")
    script = """
        import sys
        import torch
        from ase.build import fcc111
        from metatomic_ase import MetatomicCalculator
        from mdsim.calculator import ForceFieldCalculator
        slab = fcc111("Al", (2, 2, 3), vacuum=8.0)
        slab.rattle(0.05, seed=1)
        slab.calc = MetatomicCalculator(sys.argv[2])
        energy, forces = slab.get_potential_energy(), slab.get_forces()
        slab.center(vacuum=10, axis=2)
        slab.pbc = True
        slab.calc = ForceFieldCalculator(sys.argv[1], dtype=torch.float64)
        print(energy - slab.get_potential_energy(), abs(forces - slab.get_forces()).max())
    """
    output = tmp_path / "model_metatomic.pt"
    export = ("-m", "mdsim.cli", "export", str(checkpoint), "--to", "metatomic", "-o", str(output))
    for arguments in (export, ("-W", "ignore", "-c", textwrap.dedent(script), str(checkpoint), str(output))):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}  # TorchScript cannot compile with the checks of shapes
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
    assert max(abs(float(number)) for number in done.stdout.split()[-2:]) < 1e-6
