"""Contract of all force fields. float64 unless a test is about float32."""

from dataclasses import replace

import pytest
import torch
from ase.build import molecule
from force_fields import PARAMETERS, build
from scipy.spatial.transform import Rotation

from mdsim.checkpoints import force_field_payload, save_atomically
from mdsim.errors import EnergyZeroError, UnknownSpeciesError
from mdsim.models import load_force_field, model_config
from mdsim.neighbors import Neighbors, fixed_pairs, neighbors
from mdsim.state import System

N_REPLICAS = 3
CLOSE = {"rtol": 1e-9, "atol": 1e-10}


@pytest.fixture(params=PARAMETERS)
def force_field(request):
    return build(request.param)


def _molecule() -> tuple[System, torch.Tensor]:
    atoms = molecule("CH3CH2OH")
    return System.from_geometry(atoms.numbers, atoms.positions, dtype=torch.float64), torch.tensor(atoms.positions)


def _crystal() -> tuple[System, torch.Tensor]:
    """12 atoms in a triclinic cell narrower than twice the cutoff: pairs meet through several images."""
    cell = torch.tensor([[5.6, 0.0, 0.0], [1.9, 5.1, 0.0], [-1.4, 1.1, 4.7]], dtype=torch.float64)
    grid = torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(2)) / torch.tensor([3.0, 2.0, 2.0])
    numbers = torch.tensor([6, 1, 8, 1, 6, 7, 1, 8, 6, 1, 7, 1])
    positions = grid.double() @ cell
    return System.from_geometry(numbers, positions, cell, dtype=torch.float64), positions


def _rattled(positions: torch.Tensor, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return positions + 0.1 * torch.randn(N_REPLICAS, *positions.shape, generator=generator, dtype=torch.float64)


@pytest.fixture(params=["molecule", "crystal"])
def case(request):
    system, positions = _molecule() if request.param == "molecule" else _crystal()
    return system, _rattled(positions)


@pytest.fixture
def molecules():
    system, positions = _molecule()
    return system, _rattled(positions)


@pytest.fixture
def crystals():
    system, positions = _crystal()
    return system, _rattled(positions)


def _with_cell(system: System, cell: torch.Tensor | None) -> System:
    return replace(system, cell=cell)


def _permuted(system: System, order: torch.Tensor) -> System:
    return replace(system, atomic_numbers=system.atomic_numbers[order], masses=system.masses[order])


def _random_rotation(reflect: bool) -> torch.Tensor:
    matrix = torch.tensor(Rotation.random(random_state=5).as_matrix())
    return -matrix if reflect else matrix


def test_energies_vary_enough_to_test_with(force_field, case):
    energy, forces = force_field(*case)
    assert energy.std() > 0.01
    assert forces.abs().mean() > 0.05


@pytest.mark.parametrize("reflect", [False, True], ids=["rotation", "rotoreflection"])
def test_rotations_and_reflections(force_field, case, reflect):
    system, positions = case
    turn = _random_rotation(reflect)
    turned_system = system if system.cell is None else _with_cell(system, system.cell @ turn.T)
    energy, forces = force_field(system, positions)
    turned_energy, turned_forces = force_field(turned_system, positions @ turn.T)
    torch.testing.assert_close(turned_energy, energy, **CLOSE)
    torch.testing.assert_close(turned_forces, forces @ turn.T, **CLOSE)


def test_translation(force_field, case):
    system, positions = case
    moved = force_field(system, positions + torch.tensor([17.3, -4.1, 250.7], dtype=torch.float64))
    for new, old in zip(moved, force_field(system, positions), strict=True):
        torch.testing.assert_close(new, old, **CLOSE)


def test_momentum_is_conserved(force_field, case):
    _, forces = force_field(*case)
    assert forces.sum(1).abs().max() < 1e-10


def test_permutation_of_atoms(force_field, case):
    system, positions = case
    order = torch.randperm(system.n_atoms, generator=torch.Generator().manual_seed(1))
    energy, forces = force_field(system, positions)
    permuted_energy, permuted_forces = force_field(_permuted(system, order), positions[:, order])
    torch.testing.assert_close(permuted_energy, energy, **CLOSE)
    torch.testing.assert_close(permuted_forces, forces[:, order], **CLOSE)


def test_forces_are_minus_the_gradient(force_field, case):
    system, positions = case
    _, forces = force_field(system, positions[:1])
    h = 1e-5
    steps = h * torch.eye(positions[0].numel(), dtype=torch.float64).reshape(-1, *positions[0].shape)
    with torch.no_grad():
        difference = force_field.energy(system, positions[0] + steps) - force_field.energy(system, positions[0] - steps)
    torch.testing.assert_close(forces.flatten(), -difference / (2 * h), rtol=1e-6, atol=1e-7)


def test_smooth_at_the_cutoff(force_field):
    """Energy and forces of three atoms are continuous where the third leaves the reach of the first."""
    system = System.from_geometry(
        torch.tensor([6, 8, 1]), torch.tensor([[0.0, 0, 0], [1.2, 0, 0], [0, 9, 0]]), dtype=torch.float64
    )
    at = torch.tensor([0.9, 1.0 - 1e-7, 1.0 + 1e-7], dtype=torch.float64) * force_field.cutoff
    positions = torch.zeros(3, 3, 3, dtype=torch.float64)
    positions[:, 1, 0] = 1.2
    positions[:, 2, 1] = at
    energy, forces = force_field(system, positions)
    assert (energy[1] - energy[0]).abs() > 1e-5, "the pair does not interact: nothing was tested"
    assert (energy[2] - energy[1]).abs() < 1e-9
    assert (forces[2] - forces[1]).abs().max() < 1e-5


def test_separated_fragments_add_up(force_field, molecules):
    system, positions = molecules
    other = positions.flip(0) + 60.0
    both = System.from_geometry(
        torch.cat([system.atomic_numbers] * 2), torch.cat([positions[0], other[0]]), dtype=torch.float64
    )
    energy, forces = force_field(both, torch.cat([positions, other], dim=1))
    for_one = force_field(system, positions)
    for_other = force_field(system, other)
    torch.testing.assert_close(energy, for_one[0] + for_other[0], **CLOSE)
    torch.testing.assert_close(forces, torch.cat([for_one[1], for_other[1]], dim=1), **CLOSE)


def test_atomic_energies_sum_to_the_energy(force_field, case):
    system, positions = case
    atomic = force_field.atomic_energies(system, positions, neighbors(system, positions, force_field.cutoff))
    assert atomic.shape == positions.shape[:2]
    torch.testing.assert_close(atomic.sum(-1), force_field.energy(system, positions), **CLOSE)


def test_a_batch_is_its_replicas_one_by_one(force_field, case):
    system, positions = case
    energy, forces = force_field(system, positions)
    alone = [force_field(system, positions[i : i + 1]) for i in range(N_REPLICAS)]
    torch.testing.assert_close(energy, torch.cat([e for e, _ in alone]), **CLOSE)
    torch.testing.assert_close(forces, torch.cat([f for _, f in alone]), **CLOSE)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_replica_leaves_the_others_alone(force_field, case, bad):
    """To rounding: the last bits of a matrix product may depend on how many rows it has beside."""
    system, positions = case
    potential = force_field.bind(system)
    energy, forces = potential(positions)
    broken = positions.clone()
    broken[1, 2] = bad
    broken_energy, broken_forces = potential(broken)
    torch.testing.assert_close(broken_energy[[0, 2]], energy[[0, 2]], rtol=0, atol=1e-11)
    torch.testing.assert_close(broken_forces[[0, 2]], forces[[0, 2]], rtol=0, atol=1e-11)


def test_a_replica_that_flies_apart_does_not_disturb_the_others(force_field, case):
    system, positions = case
    energy, forces = force_field(system, positions)
    apart = positions.clone()
    apart[1] *= 1e30
    apart_energy, apart_forces = force_field(system, apart)
    torch.testing.assert_close(apart_energy[[0, 2]], energy[[0, 2]], **CLOSE)
    torch.testing.assert_close(apart_forces[[0, 2]], forces[[0, 2]], **CLOSE)


def test_pairs_beyond_the_cutoff_change_nothing(force_field, case):
    system, positions = case
    within = neighbors(system, positions, force_field.cutoff)
    beyond = neighbors(system, positions, force_field.cutoff + 2.5)
    assert beyond.n_pairs > within.n_pairs
    expected = force_field(system, positions, within)
    for new, old in zip(force_field(system, positions, beyond), expected, strict=True):
        torch.testing.assert_close(new, old, **CLOSE)


def test_order_and_direction_of_pairs_do_not_matter(force_field, case):
    system, positions = case
    pairs = neighbors(system, positions, force_field.cutoff)
    order = torch.randperm(pairs.n_pairs, generator=torch.Generator().manual_seed(2))
    shift = None if pairs.shift is None else -pairs.shift[order]
    reversed_pairs = Neighbors(pairs.second[order], pairs.first[order], shift)
    for new, old in zip(
        force_field(system, positions, reversed_pairs), force_field(system, positions, pairs), strict=True
    ):
        torch.testing.assert_close(new, old, **CLOSE)


def test_all_pairs_equal_searched_pairs(force_field, molecules):
    system, positions = molecules
    everything = fixed_pairs(system, N_REPLICAS, positions.device)
    torch.testing.assert_close(force_field(system, positions, everything), force_field(system, positions), **CLOSE)


def test_wrapping_atoms_changes_nothing(force_field, crystals):
    system, positions = crystals
    jumps = torch.randint(-4, 5, positions.shape, generator=torch.Generator().manual_seed(4)).double()
    wrapped = positions + jumps @ system.cell
    for new, old in zip(force_field(system, wrapped), force_field(system, positions), strict=True):
        torch.testing.assert_close(new, old, **CLOSE)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_doubled_cell(force_field, crystals, axis):
    system, positions = crystals
    doubled_cell = system.cell.clone()
    doubled_cell[axis] *= 2
    doubled_positions = torch.cat([positions, positions + system.cell[axis]], dim=1)
    doubled = System.from_geometry(
        torch.cat([system.atomic_numbers] * 2), doubled_positions[0], doubled_cell, dtype=torch.float64
    )
    energy, forces = force_field(system, positions)
    doubled_energy, doubled_forces = force_field(doubled, doubled_positions)
    torch.testing.assert_close(doubled_energy, 2 * energy, **CLOSE)
    torch.testing.assert_close(doubled_forces, forces.repeat(1, 2, 1), **CLOSE)


def test_a_wide_cell_is_an_open_boundary(force_field, molecules):
    system, positions = molecules
    boxed = _with_cell(system, 40.0 * torch.eye(3, dtype=torch.float64))
    for new, old in zip(force_field(boxed, positions), force_field(system, positions), strict=True):
        torch.testing.assert_close(new, old, **CLOSE)


def test_a_lone_atom_has_an_energy_and_no_force(force_field):
    system = System.from_geometry(torch.tensor([8]), torch.zeros(1, 3), dtype=torch.float64)
    energy, forces = force_field(system, torch.zeros(2, 1, 3, dtype=torch.float64))
    assert energy.isfinite().all()
    assert torch.equal(forces, torch.zeros(2, 1, 3, dtype=torch.float64))


def test_float32_agrees_with_float64(force_field, case):
    system, positions = case
    energy, forces = force_field(system, positions)
    energy32, forces32 = force_field.float()(system.to(dtype=torch.float32), positions.float())
    assert energy32.dtype == forces32.dtype == torch.float32
    torch.testing.assert_close(energy32.double(), energy, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(forces32.double(), forces, rtol=1e-4, atol=1e-4)


def test_nothing_that_goes_in_is_changed(force_field, case):
    system, positions = case
    pairs = neighbors(system, positions, force_field.cutoff)
    given = [
        positions,
        system.atomic_numbers,
        system.masses,
        pairs.first,
        pairs.second,
        *force_field.state_dict().values(),
    ]
    given += [] if system.cell is None else [system.cell, pairs.shift]
    before = [tensor.clone() for tensor in given]
    force_field(system, positions, pairs)
    assert all(torch.equal(new, old) for new, old in zip(given, before, strict=True))
    assert not positions.requires_grad
    assert all(parameter.grad is None for parameter in force_field.parameters())


def test_training_mode_changes_nothing(force_field, case):
    evaluated = force_field(*case)
    for new, old in zip(force_field.train()(*case), evaluated, strict=True):
        assert torch.equal(new, old)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_another_device_gives_the_same(force_field, case):
    system, positions = case
    expected = force_field(system, positions)
    for new, old in zip(force_field.cuda()(system.to("cuda"), positions.cuda()), expected, strict=True):
        torch.testing.assert_close(new.cpu(), old, **CLOSE)


def test_precision_is_regained(force_field, case):
    """Constants have all their digits again after a visit to float32; parameters keep those of float32."""
    turn = _random_rotation(reflect=True)
    system, positions = case
    turned_system = system if system.cell is None else _with_cell(system, system.cell @ turn.T)
    back = force_field.float().double()
    torch.testing.assert_close(back(turned_system, positions @ turn.T)[0], back(system, positions)[0], **CLOSE)


def test_the_fast_potential_equals_the_plain_one(force_field, case):
    """Within the rounding of float32, in which dynamics run."""
    system, positions = case[0].to(dtype=torch.float32), case[1].float()
    energy, forces = force_field(*case)
    fast_energy, fast_forces = force_field.float().bind(system, fast=True)(positions)
    torch.testing.assert_close(fast_energy.double(), energy, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(fast_forces.double(), forces, rtol=1e-4, atol=1e-4)


def test_normalization_comes_from_the_training_set(force_field, case):
    system, positions = case
    energy, forces = force_field(system, positions)
    force_field.normalize_to(system, positions, energy - 2000.0, forces)
    to_be_learned = energy - 2000.0
    if force_field.repulsion is not None:
        pairs = neighbors(system, positions, force_field.cutoff)
        to_be_learned = to_be_learned - force_field.repulsion.atomic_energies(system, positions, pairs).sum(-1)
    torch.testing.assert_close(force_field.zero_energy_eV(system), to_be_learned.mean())
    assert torch.isfinite(force_field(system, positions)[1]).all()


def test_mixed_precision_runs(force_field, case):
    system, positions = case[0].to(dtype=torch.float32), case[1].float()
    _, expected = force_field.float()(system, positions)
    with torch.autocast("cpu", torch.bfloat16):
        _, forces = force_field(system, positions, create_graph=True)
        forces.square().sum().backward()
    assert (forces - expected).norm() < 0.2 * expected.norm()


def test_repeating_gives_the_same_bits(force_field, case):
    for new, old in zip(force_field(*case), force_field(*case), strict=True):
        assert torch.equal(new, old)


def test_total_energies_are_extensive(force_field, molecules):
    """Also where the zero of energy was fitted to one composition; atomic energies sum to the total."""
    system, positions = molecules
    energy, forces = force_field(system, positions)
    force_field.normalize_to(system, positions, energy - 17637.827343506295, forces)
    other = positions.flip(0) + 60.0
    both = System.from_geometry(
        torch.cat([system.atomic_numbers] * 2), torch.cat([positions[0], other[0]]), dtype=torch.float64
    )
    together = torch.cat([positions, other], dim=1)
    expected = force_field.total_energy(system, positions) + force_field.total_energy(system, other)
    torch.testing.assert_close(force_field.total_energy(both, together), expected, rtol=0, atol=1e-8)
    pairs = neighbors(both, together, force_field.cutoff)
    atomic = force_field.atomic_energies(both, together, pairs) + force_field.zero_energies_eV(both)
    torch.testing.assert_close(atomic.sum(-1), expected, rtol=0, atol=1e-8)


def test_fragments_of_other_compositions_add_up(force_field, molecules):
    system, positions = molecules
    atom = System.from_geometry(torch.tensor([1]), torch.zeros(1, 3), dtype=torch.float64)
    force_field.fit_energy_zero([system, atom], torch.tensor([-4213.0, -13.6], dtype=torch.float64))
    both = System.from_geometry(
        torch.cat([system.atomic_numbers, atom.atomic_numbers]), torch.zeros(system.n_atoms + 1, 3), dtype=torch.float64
    )
    alone = torch.full((N_REPLICAS, 1, 3), 60.0, dtype=torch.float64)
    expected = force_field.total_energy(system, positions) + force_field.total_energy(atom, alone)
    total = force_field.total_energy(both, torch.cat([positions, alone], dim=1))
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-8)


def test_total_energies_of_undetermined_compositions_are_refused(force_field, molecules):
    system, _ = molecules
    force_field.fit_energy_zero([system], torch.tensor([-4213.0], dtype=torch.float64))
    atom = System.from_geometry(torch.tensor([1]), torch.zeros(1, 3), dtype=torch.float64)
    with pytest.raises(EnergyZeroError, match=r"total energy of H .* was fitted to C2H6O"):
        force_field.total_energy(atom, torch.zeros(1, 1, 3, dtype=torch.float64))


def test_states_of_earlier_releases_keep_their_energies(force_field, case, tmp_path):
    """They had one constant for the training system, and did not say which system that was."""
    system, positions = case
    state = force_field.state_dict()
    for name in ("reference_energies_eV", "reference_compositions"):
        del state[name]
    state["energy_shift_eV"] = torch.tensor(-17637.827343506295, dtype=torch.float64)
    payload = force_field_payload(force_field, model_config(force_field), {}) | {"state_dict": state}
    save_atomically(tmp_path / "model.pt", payload)
    loaded = load_force_field(tmp_path / "model.pt")
    energy = force_field.energy(system, positions)
    assert torch.equal(loaded.energy(system, positions), energy)
    assert torch.equal(loaded.energy(system, positions) + loaded.zero_energy_eV(system), energy - 17637.827343506295)


def test_recentering(force_field, case):
    system, positions = case
    energy, forces = force_field(system, positions)
    force_field.normalize_to(system, positions, energy - 2000.0, forces)
    labels = force_field.energy(system, positions).detach() - 2003.0
    force_field.recenter(system, positions, labels)
    torch.testing.assert_close(force_field.total_energy(system, positions), labels, rtol=0, atol=1e-8)


def test_saved_and_loaded(force_field, case, tmp_path):
    force_field.fit_energy_zero(case[:1], torch.tensor([-17637.827343506295]))
    save_atomically(tmp_path / "model.pt", force_field_payload(force_field, model_config(force_field), {"seed": 3}))
    loaded = load_force_field(tmp_path / "model.pt")
    assert type(loaded) is type(force_field)
    assert not loaded.training
    for new, old in zip(loaded(*case), force_field(*case), strict=True):
        assert torch.equal(new, old)
    assert torch.equal(loaded.total_energy(*case), force_field.total_energy(*case))
    assert loaded.species.tolist() == force_field.species.tolist()


def test_unseen_elements_are_refused(force_field, molecules):
    system, _ = molecules
    thiol = replace(system, atomic_numbers=torch.where(system.atomic_numbers == 8, 16, system.atomic_numbers))
    with pytest.raises(UnknownSpeciesError, match=r"\[1, 6, 7, 8\].*\[16\]"):
        force_field.bind(thiol)


def test_total_energy_keeps_its_digits(force_field, molecules):
    system, positions = molecules
    force_field.fit_energy_zero([system], torch.tensor([-17637.827343506295], dtype=torch.float64))
    energy = force_field.energy(system, positions)
    torch.testing.assert_close(force_field.total_energy(system, positions), energy - 17637.827343506295, **CLOSE)
    single = force_field.float()
    total = single.total_energy(system.to(dtype=torch.float32), positions.float())
    assert total.dtype == torch.float64
    torch.testing.assert_close(total + 17637.827343506295, energy, rtol=0, atol=1e-4)


def test_every_parameter_gets_a_finite_gradient(force_field, case):
    system, positions = case
    energy, forces = force_field(system, positions, create_graph=True)
    (energy.sum() + forces.square().sum()).backward()
    for name, parameter in force_field.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_forces_are_differentiable_in_the_parameters(force_field, case):
    """Derivative of a projection of the forces along a random direction of all parameters, against differences."""
    system, positions = case
    generator = torch.Generator().manual_seed(8)

    def like(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=torch.float64)

    projection = like(positions)
    parameters = list(force_field.trainable_parameters)
    directions = [like(parameter) for parameter in parameters]
    _, forces = force_field(system, positions, create_graph=True)
    gradients = torch.autograd.grad((forces * projection).sum(), parameters, allow_unused=True)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None)

    def projected(step: float) -> torch.Tensor:
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(direction, alpha=step)
            value = (force_field(system, positions)[1] * projection).sum()
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(direction, alpha=-step)
        return value

    h = 1e-6
    torch.testing.assert_close(slope, (projected(h) - projected(-h)) / (2 * h), rtol=1e-5, atol=1e-6)


def test_atoms_affect_an_energy_as_far_as_messages_go_and_no_farther(force_field):
    steps = force_field.message_steps
    if steps is None:
        assert force_field.interaction_range_A == float("inf")
        pytest.skip("the force field does not say how far messages go")
    along = torch.arange(steps + 3, dtype=torch.float64)
    positions = torch.stack([0.55 * force_field.cutoff * along, 0.3 * (along % 2), 0.2 * (along % 3)], dim=1)[None]
    system = System.from_bonds(torch.full((steps + 3,), 6), torch.zeros(0, 2, dtype=torch.long), dtype=torch.float64)
    positions.requires_grad_()
    pairs = neighbors(system, positions, force_field.cutoff)
    assert pairs.n_pairs == steps + 2, "a chain, in which only adjacent atoms are neighbors"
    first = force_field.atomic_energies(system, positions, pairs)[0, 0]
    affects = torch.autograd.grad(first, positions)[0][0].norm(dim=1)
    assert (affects[: steps + 1] > 0).all()
    assert (affects[steps + 1 :] == 0).all()
    assert force_field.interaction_range_A == steps * force_field.cutoff
