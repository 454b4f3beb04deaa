"""The contrast term of a configuration: where its reference structures come from, and a whole training with it."""

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from tiny import NUMBERS, frames, point, train_config, water, write_world

from mdsim import assembly
from mdsim.assembly import runs
from mdsim.datasets.structures import read_structures
from mdsim.errors import ConfigError, DatasetError
from mdsim.reporting.scalars import read_scalars
from mdsim.state import System
from mdsim.training.terms import ContrastTerm

LABELS = {"name": "energies_forces", "batch_size": 4}


def _term(root, size: str | None = None, **settings) -> ContrastTerm:
    config = train_config(root, terms=[{"name": "contrast", **settings}, LABELS], reference_size=size)
    data, reference = assembly.dataset(config.data), assembly.dataset(config.data, config.reference_size)
    return assembly.weighted_terms(config, data.system(), data, [point(config, data, reference)], 0.0)[0].term


@pytest.fixture
def world(tmp_path):
    return write_world(tmp_path)


def _file(root, images) -> str:
    path = root / "structures.xyz"
    ase.io.write(path, images)
    return str(path)


def _images(n: int) -> list[Atoms]:
    return [Atoms(NUMBERS, positions.numpy()) for positions in frames(n, seed=5).positions]


def test_reference_structures_are_those_of_the_data(world):
    data = assembly.dataset(train_config(world).data)
    term = _term(world, structures_per_gradient=None)
    torch.testing.assert_close(term.positions, data.train.positions.float())
    torch.testing.assert_close(_term(world, reference="labeled_frames").positions, data.train.positions.float())
    assert (term.n_drawn, term.only_after_break, term.sampler) == (None, False, None)
    assert _term(world, simulated="after_break").only_after_break


def test_reference_structures_may_come_from_a_file(world):
    term = _term(world, reference_file=_file(world, _images(7)))
    torch.testing.assert_close(term.positions, frames(7, seed=5).positions.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("images", "fault"),
    [
        ([Atoms("OH", np.eye(3)[:2])], "2 atoms are not the 3 atoms"),
        ([Atoms([1, 1, 8], np.eye(3))], "in the same order"),
        ([Atoms(NUMBERS, np.full((3, 3), np.nan))], "not finite"),
    ],
)
def test_structures_of_another_system_are_refused(tmp_path, images, fault):
    with pytest.raises(DatasetError, match=f"structures.xyz, structure 0: .*{fault}"):
        read_structures(tmp_path / _file(tmp_path, images), water())


def test_a_file_that_is_none_is_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DatasetError, match="cannot be read as structures"):
        read_structures(tmp_path / "notes.txt", water())


def test_cells_must_agree(tmp_path):
    cell = torch.eye(3).double() * 9
    system = System(water().atomic_numbers, water().masses, cell, water().bonds, water().molecules)
    boxed = [Atoms(NUMBERS, np.eye(3), cell=np.eye(3) * side, pbc=True) for side in (9.0, 9.1)]
    assert len(read_structures(tmp_path / _file(tmp_path, boxed[:1]), system)) == 1
    with pytest.raises(DatasetError, match="structure 1: its cell"):
        read_structures(tmp_path / _file(tmp_path, boxed), system)


@pytest.mark.parametrize("exploration", ["parked", "persistent"])
def test_a_training(world, exploration):
    config = train_config(
        world,
        terms=[{"name": "contrast", "structures_per_gradient": 3}, LABELS],
        exploration=exploration,
        learn_while_exploring=True,
        max_explore_epochs=1,
        epochs=3,
        stability=[{"name": "bond_length_deviation", "bond_dev_tol_A": 0.02}],
        learning={"average_decay": 0.5},
    )
    assert runs.train_stable(config)
    scalars = read_scalars(config.run_path)
    assert np.isfinite(scalars["learn/contrast_loss"][1]).all()
    assert (config.run_path / "last.pt").exists()


def test_only_named_parameters_are_trained(world):
    config = train_config(world, terms=[{"name": "contrast"}, LABELS], epochs=2, trainable=["lin2.*"])
    runs.train_stable(config)
    paths = assembly.pretrained_checkpoint(config), config.run_path / "last.pt"
    before, after = (dict(assembly.saved_force_field(config.model, path).named_parameters()) for path in paths)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"lin2.weight", "lin2.bias"}


def test_a_pattern_without_parameters_is_refused(world):
    with pytest.raises(ConfigError, match="matches no trainable parameter"):
        runs.train_stable(train_config(world, trainable=["head.*"]))
