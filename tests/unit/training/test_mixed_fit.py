"""Fits to frames of several compositions and cells."""

from functools import partial

import pytest
import torch
from force_fields import build
from mixed_frames import ATOMS_EV, geometries, labeled, mixed
from tiny import SilentWriter, frames, same_bits, schnet, water

from mdsim import losses
from mdsim.datasets.mixed import MixedFrames
from mdsim.datasets.systems import systems_of
from mdsim.errors import TrainingError
from mdsim.force_field import ForceField
from mdsim.geometry import all_pairs, pair_distances
from mdsim.losses import Labeled, MixedLoss, mixed_errors
from mdsim.models.schnet.model import SchNet
from mdsim.neighbors import neighbors
from mdsim.reference_energies import composition
from mdsim.stress import energy_forces_stress
from mdsim.training.fit_data import FitData, OneSystem
from mdsim.training.mixed_fit import MixedFit
from mdsim.training.mixed_labels import MixedLabels
from mdsim.training.pretrain import FitSettings, Pretraining
from mdsim.training.schedule import OptimizerSettings

F64 = torch.zeros(0, dtype=torch.float64)
F32 = torch.zeros(0)
MAE = losses.mean_absolute_error


@pytest.fixture(scope="module")
def train() -> MixedFrames:
    return mixed(labeled(geometries(4)))


@pytest.fixture(scope="module")
def val() -> MixedFrames:
    return mixed(labeled(geometries(2, seed=1)))


def student(**changes) -> SchNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return SchNet(12, 12, 2, 8, cutoff=3.0, species=(1, 6, 8), **changes)


def _prepared(train, val, loss=None, like=F64, model=None) -> tuple[MixedFit, SchNet]:
    fit = MixedFit(train, val, loss or MixedLoss(1.0, 1.0, 100.0), like)
    return fit, fit.prepare(model or student())


def test_frames_of_one_system_have_the_loss_and_the_errors_of_its_own_fit():
    train, val = frames(8, seed=1), frames(5, seed=2)
    kinds = {"energy_loss": MAE, "force_loss": losses.l2_mean_absolute_error}
    own = OneSystem(
        water(), train, val, partial(losses.energy_force_loss, energy_weight=0.3, force_weight=0.7, **kinds)
    )
    several = MixedFit(
        MixedFrames.of(train), MixedFrames.of(val), MixedLoss(0.3, 0.7, energy_per_atom=False, **kinds), F64
    )
    assert isinstance(own, FitData) and isinstance(several, FitData)
    models = [data.prepare(schnet()) for data in (own, several)]
    assert same_bits(models[0].energy_zero_state(), models[1].energy_zero_state())
    chosen = torch.tensor([5, 0, 3])
    first, second = (data.loss_of(model, chosen, False) for data, model in zip((own, several), models, strict=True))
    torch.testing.assert_close(first, second, rtol=1e-9, atol=0)
    (errors, loss), (others, other) = (
        data.validate(model, 2) for data, model in zip((own, several), models, strict=True)
    )
    assert loss == pytest.approx(other, rel=1e-9) and errors == pytest.approx(others, rel=1e-6)
    shifts = [data.recenter(model, 3) for data, model in zip((own, several), models, strict=True)]
    assert shifts[0] == pytest.approx(shifts[1], rel=1e-9)
    torch.testing.assert_close(models[0].zero_energy_eV(water()), models[1].zero_energy_eV(water()))


def test_the_loss_is_what_it_says_frame_by_frame(train, val):
    fit, model = _prepared(train, val)
    chosen, systems = [3, 0, 6, 7], systems_of(train, torch.float64, find_bonds=False)
    parts = {"energy": [], "forces": [], "stress": []}
    for i in chosen:
        one = train[torch.tensor([i])]
        zero = sum(model.reference_energies_eV[number] for number in one.atomic_numbers)
        if systems[i].cell is None:
            energy, forces = model(systems[i], one.positions[None])
        else:
            energy, forces, stress = energy_forces_stress(model, systems[i], one.positions[None])
            parts["stress"].append((stress[0] - one.stress[0]).square().flatten())
        parts["energy"].append(((energy + zero - one.energy) / len(one.atomic_numbers)).square())
        parts["forces"].append((forces[0] - one.labels).square().flatten())
    assert len(parts["stress"]) == 2
    means = {name: torch.cat(values).mean() for name, values in parts.items()}
    expected = means["energy"] + means["forces"] + 100.0 * means["stress"]
    torch.testing.assert_close(fit.loss_of(model, torch.tensor(chosen), False), expected, rtol=1e-8, atol=0)
    without, _ = _prepared(train, val, MixedLoss(1.0, 1.0), model=model)
    torch.testing.assert_close(
        without.loss_of(model, torch.tensor(chosen), False), means["energy"] + means["forces"], rtol=1e-8, atol=0
    )


def test_the_gradient_against_finite_differences(train, val):
    fit, model = _prepared(train, val)
    chosen = torch.tensor([3, 4, 7])
    parameter = model.lin2.weight
    gradient = torch.autograd.grad(fit.loss_of(model, chosen, False), parameter)[0]
    h, direction = 1e-5, torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter += sign * h * direction
        values.append(fit.loss_of(model, chosen, False).detach())
        with torch.no_grad():
            parameter -= sign * h * direction
    torch.testing.assert_close((gradient * direction).sum(), (values[0] - values[1]) / (2 * h), rtol=1e-6, atol=1e-9)


def test_losses_of_parts_sum_to_that_of_the_batch():
    random = torch.Generator().manual_seed(2)

    def some() -> Labeled:
        sizes = ((4,), (10, 3), (4, 3, 3))
        return Labeled(*(torch.randn(size, generator=random, dtype=torch.float64) for size in sizes))

    predicted, labels, n_atoms = some(), some(), torch.tensor([1, 2, 3, 4])
    labels.stress[1] = torch.nan
    loss = MixedLoss(0.5, 2.0, 3.0, MAE, losses.l2_mean_absolute_error, MAE)
    whole = loss(predicted, labels, n_atoms)
    parts = 0.0
    for frames_of, atoms, labels_of in ((slice(0, 2), slice(0, 3), 1), (slice(2, 4), slice(3, 10), 2)):
        cut = [Labeled(of.energy[frames_of], of.forces[atoms], of.stress[frames_of]) for of in (predicted, labels)]
        shares = (2 / 4, (atoms.stop - atoms.start) / 10, labels_of / 3)
        parts = parts + loss(*cut, n_atoms[frames_of], shares)
    torch.testing.assert_close(parts, whole)


def test_errors_have_units_and_count_only_labels():
    predicted = Labeled(torch.tensor([1.0, 2.0]), torch.zeros(3, 3), torch.zeros(2, 3, 3))
    stress = torch.full((2, 3, 3), torch.nan)
    stress[1] = 0.002
    errors = mixed_errors(predicted, Labeled(torch.tensor([1.5, 2.0]), torch.ones(3, 3), stress), torch.tensor([1, 2]))
    assert errors["energy_mae_meV"] == 250.0 and errors["energy_mae_meV_per_atom"] == 250.0
    assert errors["energy_rmse_meV_per_atom"] == pytest.approx(500 / 2**0.5)
    assert errors["force_mae_meV_per_A"] == 1000.0
    assert errors["stress_mae_meV_per_A3"] == pytest.approx(2.0) == errors["stress_rmse_meV_per_A3"]


def test_reference_energies_of_all_compositions(train, val):
    atoms = torch.zeros(119, dtype=torch.float64)
    for number, energy in ATOMS_EV.items():
        atoms[number] = energy
    owners = torch.repeat_interleave(train.n_atoms)
    exact = torch.zeros(len(train), dtype=torch.float64).index_add(0, owners, atoms[train.atomic_numbers])
    fit, model = _prepared(MixedFrames(**{**vars_of(train), "energy": exact}), val)
    torch.testing.assert_close(model.reference_energies_eV[[1, 6, 8]], atoms[[1, 6, 8]], rtol=1e-12, atol=1e-8)
    assert float(fit.energy.abs().max()) < 1e-6
    assert len(model.reference_compositions) == 4
    moved = fit.recenter(model, 5)
    residual = fit.train.relative_energy(model)
    predicted = torch.cat([model(s, p[None])[0] for s, p in zip(fit.train.systems, fit.train.positions, strict=True)])
    counts = torch.stack([composition(numbers) for numbers in train.numbers_of_frames]).double()
    assert abs(float((counts.T @ (residual - predicted)).abs().max())) < 1e-6, "least squares: no element is left off"
    assert moved != 0.0


def test_a_pretrained_model_keeps_all_but_its_zero_of_energy(train, val):
    """Labels of another method: other energies of atoms, the same forces."""
    model = student().double()
    model.fit_energy_zero([], torch.zeros(0, dtype=torch.float64), {1: -14.0, 6: -1020.0, 8: -2040.0, 26: -34000.0})
    with torch.no_grad():
        model.energy_scale.fill_(0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit = MixedFit(train, val, MixedLoss(1.0, 1.0), F64)
    fit.prepare(model, pretrained=True)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before.get(name))}
    assert changed == {"reference_energies_eV", "reference_compositions"}
    assert float(model.reference_energies_eV[26]) == -34000.0
    predicted = torch.cat([model(s, p[None])[0] for s, p in zip(fit.train.systems, fit.train.positions, strict=True)])
    counts = torch.stack([composition(numbers) for numbers in train.numbers_of_frames]).double()
    assert float((counts.T @ (fit.energy - predicted)).abs().max()) < 1e-6
    assert abs(float(model.reference_energies_eV[8]) - ATOMS_EV[8]) < 10.0, "now those of the labels"


def vars_of(frames: MixedFrames) -> dict:
    return {name: getattr(frames, name) for name in MixedFrames.__dataclass_fields__}


def test_a_crystal_of_one_atom_is_no_isolated_atom(train, val):
    crystal = MixedFrames(
        torch.tensor([8]),
        torch.zeros(1, 3, dtype=torch.float64),
        torch.tensor([1]),
        torch.tensor([-2050.0], dtype=torch.float64),
        torch.zeros(1, 3, dtype=torch.float64),
        2.2 * torch.eye(3, dtype=torch.float64)[None],
    )
    _, model = _prepared(MixedFrames.cat([train, crystal]), val)
    rows = model.reference_compositions
    assert not (rows.sum(1) == 1).any() and rows[:, 8].tolist().count(2) == 2  # O2, and the pair of waters


@pytest.mark.parametrize("name", ["nequip_l1", "gemnet_t", "schnet_repelled"])
def test_scales_of_one_system_are_those_of_its_own_fit(name):
    train = frames(8, seed=1)
    own, several = build(name), build(name)
    own.normalize_to(water(), train.positions.double(), train.energy, train.labels.double())
    MixedFit(MixedFrames.of(train), MixedFrames.of(train), MixedLoss(1.0, 1.0), F64).prepare(several)
    expected, found = own.state_dict(), several.state_dict()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-8, msg=key)


def test_neighbors_are_counted_in_every_frame(train, val):
    model = build("nequip_l1")
    _prepared(train, val, model=model)
    systems = systems_of(train, torch.float64)
    starts = train.positions.split(train.n_atoms.tolist())
    pairs = sum(neighbors(s, p[None], model.cutoff).n_pairs for s, p in zip(systems, starts, strict=True))
    assert float(model.avg_num_neighbors) == pytest.approx(2 * pairs / len(train.atomic_numbers), rel=1e-6)


class ReadsTheCell(ForceField):
    """Distances from the cell instead of the neighbors."""

    def atomic_energies(self, system, positions, neighbors):
        distances = pair_distances(positions, all_pairs(system.n_atoms), system.cell)
        energy = torch.exp(-distances).sum(-1, keepdim=True)
        return (energy / system.n_atoms).expand(-1, system.n_atoms)


def test_a_model_that_reads_the_cell_is_refused():
    argon = mixed_argon()
    with pytest.raises(TrainingError, match="other forces for several frames in one call"):
        MixedFit(argon, argon, MixedLoss(1.0, 1.0), F64).prepare(ReadsTheCell(4.0))


def mixed_argon() -> MixedFrames:
    generator = torch.Generator().manual_seed(1)
    grid = 3.7 * torch.cartesian_prod(*[torch.arange(4)] * 3).double()
    positions = torch.cat([grid + 0.1 * torch.randn(64, 3, generator=generator, dtype=torch.float64) for _ in range(2)])
    cells = torch.stack([14.8 * torch.eye(3), 15.0 * torch.eye(3)]).double()
    sizes = torch.tensor([64, 64])
    numbers = torch.full((128,), 18)
    return MixedFrames(numbers, positions, sizes, torch.zeros(2).double(), torch.ones(128, 3).double(), cells)


def _trainer(train, val, run_dir, **settings) -> Pretraining:
    optimizer = OptimizerSettings(learning_rate=settings.pop("learning_rate", 2e-3))
    fit = FitSettings(optimizer, **{"batch_size": 6, "max_epochs": 2, "ema_decay": 0.9, **settings})
    data = MixedFit(train, val, MixedLoss(0.5, 0.5, 20.0, MAE, MAE, MAE), F32)
    return Pretraining(student(), data, fit, run_dir, seed=3)


def test_all_errors_fall(tmp_path, train, val):
    trainer = _trainer(train, val, tmp_path, max_epochs=60, learning_rate=1e-2, evaluate_every_epochs=20)
    trainer.fit(SilentWriter(), print_every=1000)
    first, last = trainer.progress.history[0], trainer.progress.history[trainer.progress.best]
    for name in ("energy_mae_meV_per_atom", "force_mae_meV_per_A", "stress_mae_meV_per_A3"):
        assert last[name] < 0.7 * first[name], name


def test_a_resumed_fit_has_the_same_bits(tmp_path, train, val):
    whole = _trainer(train, val, tmp_path / "whole", max_epochs=4)
    whole.fit(SilentWriter())
    for epochs in (2, 4):
        part = _trainer(train, val, tmp_path / "part", max_epochs=epochs)
        part.resume_from(tmp_path / "part" / "checkpoints" / "last.pt")
        part.fit(SilentWriter())
    states = [trainer.state_dict() for trainer in (whole, part)]
    for state in states:
        state["progress"].pop("seconds")
    assert same_bits(*states)


def test_mixed_precision_runs(tmp_path, train, val):
    data = MixedFit(train, val, MixedLoss(1.0, 1.0, 10.0), F32)
    model = data.prepare(student())
    chosen = torch.tensor([0, 3, 7])
    full, half = (data.loss_of(model, chosen, amp) for amp in (False, True))
    assert half.dtype == torch.float32 and abs(float(half.detach() / full.detach()) - 1) < 0.1


def test_labels_without_stresses(train):
    found = MixedLabels.of(train[~train.is_periodic], F64)
    assert found.stress.isnan().all() and len(found) == 12
