"""`data/generate.py` as a user runs it: end to end, killed and continued, and given wrong input."""

import importlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import ROOT

from mdsim.datasets import Frames, load_dataset
from mdsim.datasets.npz import read_frames
from mdsim.datasets.splits import parse_indices
from mdsim.state import System
from mdsim.units import FS

pytest.importorskip("tblite")

SCRIPT = ROOT / "data" / "generate.py"
TINY = [
    *("--molecule", "water", "--name", "toy", "--equilibration-ps", "0.02", "--workers", "1"),
    *("--trajectories", "2", "--frames", "120", "--every", "2", "--contiguous-frames", "60", "--contiguous-every", "1"),
    *("--test-frames", "20", "--gap-frames", "5", "--sizes", "40", "100", "--contiguous-start", "mean-energy"),
]


def start(db_path: Path, *options: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *options, "--db-path", str(db_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=db_path,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen) -> str:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


@pytest.fixture
def data_scripts(monkeypatch):
    """Imports a script of the folder `data` into this process, to save the time of a start."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module


@pytest.fixture
def refusal(monkeypatch, data_scripts):
    """The message with which the script ends."""
    generate = data_scripts("generate")

    def run(db_path: Path, *options: str) -> str:
        monkeypatch.chdir(db_path)
        monkeypatch.setattr(sys, "argv", [SCRIPT.name, *options, "--db-path", str(db_path)])
        with pytest.raises(SystemExit) as caught:
            generate.main()
        return str(caught.value)

    return run


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    db_path = tmp_path_factory.mktemp("whole")
    assert "wrote the sizes 40, 100" in finish(start(db_path, *TINY))
    return db_path


@pytest.mark.slow
def test_a_killed_run_continues_bit_for_bit(uninterrupted, tmp_path):
    process = start(tmp_path, *TINY)
    first_block = tmp_path / "work" / "toy" / "water" / "trajectory000" / "block00000.npz"
    deadline = time.monotonic() + 60
    while not first_block.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    blocks_then = len(list(tmp_path.rglob("block*.npz")))
    assert 1 <= blocks_then < len(list(uninterrupted.rglob("block*.npz")))
    assert not (tmp_path / "toy" / "water").exists()

    finish(start(tmp_path, *TINY))
    for size in ("40", "100"):
        whole = (uninterrupted / "toy" / "water" / size / "metadata.json").read_text()  # holds every sha256
        assert (tmp_path / "toy" / "water" / size / "metadata.json").read_text() == whole


def test_the_data_set_is_what_its_metadata_say(uninterrupted):
    small, large = (load_dataset(uninterrupted, "toy", "water", size) for size in ("40", "100"))
    assert [len(f) for f in (large.train, large.val, large.test, large.contiguous)] == [95, 5, 20, 60]
    assert parse_indices(large.metadata.split["indices"]["test"]).tolist() == [*range(110, 120), *range(230, 240)]
    indices = [parse_indices(dataset.metadata.split["indices"]["train"]) for dataset in (small, large)]
    where = np.searchsorted(indices[1], indices[0])
    assert torch.equal(small.train.positions, large.train.positions[torch.from_numpy(where)])
    assert large.system().bonds.tolist() == [[0, 1], [0, 2]]
    assert large.metadata.contiguous_frame_interval_fs == 0.5
    assert "not density-functional theory" in large.metadata.level_of_theory


def test_labels_are_those_of_gfn2(uninterrupted):
    from ase import Atoms
    from tblite.ase import TBLite

    test: Frames = load_dataset(uninterrupted, "toy", "water", "40").test
    atoms = Atoms(test.atomic_numbers.numpy(), test.positions[7].double().numpy())
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    assert atoms.get_potential_energy() == pytest.approx(test.energy[7].item(), abs=1e-5)
    torch.testing.assert_close(torch.from_numpy(atoms.get_forces()).float(), test.forces[7], rtol=0, atol=1e-4)


def test_contiguous_velocities_are_the_derivative_of_the_positions(uninterrupted):
    frames = read_frames(uninterrupted / "toy" / "water" / "contiguous.npz")
    central = (frames.positions[2:] - frames.positions[:-2]) / (2 * 0.5 * FS)
    difference = (central - frames.velocities[1:-1]).norm() / frames.velocities.norm()
    # Central differences of a stretch vibration at 3,700 cm⁻¹ (ω = 0.7/fs) are off by (ωΔt)²/6 ≈ 2 %.
    assert difference < 0.03


def test_existing_data_of_other_settings_are_not_overwritten(uninterrupted, refusal):
    other = [*TINY, "--seed", "1"]
    assert "was made with other settings (seed)" in refusal(uninterrupted, *other)


def test_data_older_than_an_option_have_its_default(uninterrupted, data_scripts):
    target, check = uninterrupted / "toy" / "water", data_scripts("generate").check_target
    settings = load_dataset(uninterrupted, "toy", "water", "40").metadata.settings | {"new": "default"}
    check(target, settings, {"new": "default"})
    with pytest.raises(SystemExit, match=r"other settings \(new\)"):
        check(target, settings | {"new": "other"}, {"new": "default"})


def test_the_contiguous_stretch_starts_at_the_mean_energy(uninterrupted, data_scripts):
    collect = data_scripts("xtb_dynamics").collect
    work = uninterrupted / "work" / "toy" / "water"
    frames = collect([work / "trajectory000", work / "trajectory001"], ("R", "V", "E"))
    masses = np.array([15.999, 1.008, 1.008])[:, None]
    total = frames["E"] + 0.5 * (masses * frames["V"] ** 2).sum((1, 2))
    with np.load(work / "trajectory002" / "start.npz") as start:
        chosen = int(np.abs(frames["R"] - start["positions"]).sum((1, 2)).argmin())
        np.testing.assert_allclose(start["momenta"], masses * frames["V"][chosen], rtol=1e-12)
        assert np.array_equal(start["positions"], frames["R"][chosen])
    assert abs(total[chosen] - total.mean()) == np.abs(total - total.mean()).min()
    first = collect([work / "trajectory002"], ("R",))["R"][0]
    # One step of 0.5 fs later: no atom has moved far.
    assert np.linalg.norm(first - frames["R"][chosen], axis=1).max() < 0.1


def test_existing_trajectories_of_other_settings_are_not_continued(uninterrupted, tmp_path, refusal):
    work = str(uninterrupted / "work" / "toy" / "water")
    message = refusal(tmp_path, *TINY, "--temperature-K", "300", "--work-path", work)
    assert "holds a trajectory with other settings" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--molecule", "waater"], "neither a file nor one of the built-in molecules (ac_Ala3_NHMe, aspirin, "),
        (["--test-frames", "300"], "too few for 150 test frames"),
        (["--sizes", "1k"], "only 210 are there to choose from"),
    ],
    ids=["molecule", "test frames", "size"],
)
def test_wrong_input_is_one_clear_error_before_sampling(tmp_path, refusal, options, message):
    assert message in refusal(tmp_path, *TINY, *options)
    assert not any(tmp_path.iterdir())  # nothing was sampled or written


def test_a_periodic_structure_is_refused(tmp_path, refusal):
    from ase.build import bulk

    structure = tmp_path / "salt.extxyz"
    bulk("NaCl", "rocksalt", a=5.6).write(structure)
    assert "is periodic" in refusal(tmp_path, *TINY, "--molecule", str(structure))


def test_trajectories_start_from_the_structures_of_a_file_in_turn(tmp_path, data_scripts):
    from ase.build import molecule
    from ase.io import write

    structures = [molecule("H2O"), molecule("H2O")]
    structures[1].rattle(0.1, seed=1)
    write(tmp_path / "two.xyz", structures)
    dynamics = data_scripts("xtb_dynamics")
    common = {"seed": 0, "temperature_K": 300.0, "timestep_fs": 0.5, "friction_per_ps": 1.0, "equilibration_steps": 0}
    common |= {"geometry": str(tmp_path / "two.xyz"), "frames": 1, "every": 1, "charge": 0.0, "spin": 0}
    started = [dynamics.charged_atoms(dynamics.Plan(index=index, **common)) for index in range(3)]
    for atoms, source in zip(started, (0, 1, 0), strict=True):
        np.testing.assert_allclose(atoms.positions, structures[source].positions, atol=1e-6)


def test_structures_of_different_molecules_are_refused(tmp_path, refusal):
    from ase.build import molecule
    from ase.io import write

    write(tmp_path / "mixed.extxyz", [molecule("H2O"), molecule("CH4")])
    options = [*TINY, "--molecule", str(tmp_path / "mixed.extxyz")]
    assert "its 2 structures are not of one molecule" in refusal(tmp_path, *options)


class TestBuildMolecule:
    """`data/build_molecule.py`: conformers from a SMILES string."""

    @pytest.fixture
    def build(self, data_scripts):
        pytest.importorskip("rdkit")
        return data_scripts("build_molecule")

    def test_atoms_are_in_the_order_of_their_map_numbers(self, build):
        mol = build.molecule("[H:4][O:1][C:3]([H:2])([H:5])[H:6]")
        assert [atom.GetSymbol() for atom in mol.GetAtoms()] == ["O", "H", "C", "H", "H", "H"]
        assert mol.GetBondBetweenAtoms(0, 2) is not None
        assert mol.GetBondBetweenAtoms(0, 3) is not None

    @pytest.mark.parametrize(
        ("smiles", "message"),
        [("C(C", "cannot read"), ("[CH3:1][CH3:2]", "1 to 8, hydrogens included")],
        ids=["SMILES", "numbers"],
    )
    def test_wrong_input_is_one_clear_error(self, build, smiles, message):
        with pytest.raises(SystemExit, match=message):
            build.molecule(smiles)

    def test_conformers_differ_and_more_than_there_are_is_refused(self, build):
        from rdkit.Chem import RemoveHs, rdMolAlign

        mol = build.molecule("CC(=O)NCC(=O)NC")
        first, second = build.distinct_conformers(mol, 2, seed=1)
        heavy = RemoveHs(mol)
        assert rdMolAlign.GetBestRMS(heavy, heavy, first, second) > build.DIFFERENT_RMSD_A
        with pytest.raises(SystemExit, match="only 1 of 50"):
            build.distinct_conformers(build.molecule("C"), 2, seed=1)

    def test_geometries_are_centered_minima_of_gfn2(self, build, tmp_path, monkeypatch):
        from ase.io import read
        from tblite.ase import TBLite

        monkeypatch.setattr(
            sys, "argv", ["build_molecule.py", "--smiles", "CO", "--out", str(tmp_path / "methanol.xyz")]
        )
        build.main()
        atoms = read(tmp_path / "methanol.xyz")
        atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
        assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 1.01 * build.FORCE_TOLERANCE_EV_PER_A
        assert np.abs(atoms.get_center_of_mass()).max() < 1e-6


def test_the_built_in_peptide_is_four_conformers_of_the_all_l_isomer(data_scripts):
    dynamics = data_scripts("xtb_dynamics")
    structures = dynamics.read_geometries("ac_Ala3_NHMe")
    bonds = [System.from_geometry(atoms.numbers, atoms.positions).bonds.tolist() for atoms in structures]
    assert len(structures) == 4
    assert all(graph == bonds[0] for graph in bonds)
    for atoms, start in itertools.product(structures, (6, 16, 26)):  # nitrogen of each residue; see the order of MD22
        arms = atoms.positions[[start, start + 5, start + 4]] - atoms.positions[start + 2]
        assert np.linalg.det(arms) > 2.0  # Å³, positive for L-residues
