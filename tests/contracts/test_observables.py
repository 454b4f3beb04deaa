"""Contract of all observables."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, fields, replace

import pytest
import torch
from ase.build import molecule

from mdsim.interfaces import Observable
from mdsim.observables import (
    ADF,
    MSD,
    RDF,
    VACF,
    BondLengthDistribution,
    BondLengths,
    CoordinationNumber,
    DebyeStructureFactor,
    Diffusivity,
    DihedralDistribution,
    DirectStructureFactor,
    DistanceDistribution,
    EndToEndDistance,
    EnergyDistribution,
    EnergyPerMolecule,
    EnthalpyOfVaporization,
    FourierStructureFactor,
    HydrogenBonds,
    InfraredSpectrum,
    MinimumDistance,
    RadiusOfGyration,
    TetrahedralOrder,
    VibrationalDOS,
)
from mdsim.state import System, Trajectory

N_FRAMES, N_REPLICAS, N_MOLECULES = 8, 3, 3
CELL = torch.tensor([[9.0, 0.0, 0.0], [1.5, 8.5, 0.0], [-1.0, 2.0, 8.0]], dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    make: Callable[[], Observable]
    structural: bool
    needs_cell: bool = False
    needs_open: bool = False


CASES = {
    "rdf": Case(lambda: RDF(3.6, 0.1), True),
    "rdf_OH": Case(lambda: RDF(3.6, 0.1, pair=("O", "H"), intermolecular_only=True), True),
    "rdf_smeared": Case(lambda: RDF(3.6, 0.1, smearing_A=0.15), True),
    "rdf_ideal_gas": Case(lambda: RDF(3.6, 0.1, normalization="ideal_gas"), True, needs_cell=True),
    "adf": Case(lambda: ADF(5.0), True),
    "bond_lengths": Case(BondLengths, True),
    "bond_length_distribution": Case(lambda: BondLengthDistribution(2.0, 0.05), True),
    "dihedrals": Case(lambda: DihedralDistribution(((1, 0, 3, 4), (2, 0, 6, 7)), 30.0), True),
    "distances_OH": Case(lambda: DistanceDistribution(3.6, 0.1, ("H", "O")), True),
    "distances_within": Case(lambda: DistanceDistribution(2.0, 0.1, None, "within_molecules"), True),
    "distances_between": Case(lambda: DistanceDistribution(3.6, 0.1, ("O", "O"), "between_molecules"), True),
    "potential_energy": Case(lambda: EnergyDistribution(-1.0, 2.0, 0.5), True),
    "energy_per_molecule": Case(lambda: EnergyPerMolecule(-2.0), True),
    "enthalpy_of_vaporization": Case(lambda: EnthalpyOfVaporization(-2.0, 0.1, 300.0), True),
    "minimum_distance": Case(MinimumDistance, True),
    "structure_factor_OH": Case(
        lambda: FourierStructureFactor(8.0, 0.5, ("O", "H"), max_distance_A=3.6), True, needs_cell=True
    ),
    "structure_factor_xray": Case(
        lambda: FourierStructureFactor(8.0, 0.5, None, "xray", max_distance_A=3.6, lorch_window=False),
        *(True, True),
    ),
    "structure_factor_direct": Case(
        lambda: DirectStructureFactor(6.0, 0.5, None, "neutron", 0.5, (("H", 2),), 20), True, needs_cell=True
    ),
    "structure_factor_debye": Case(lambda: DebyeStructureFactor(8.0, 0.5, None, "xray"), True, needs_open=True),
    "radius_of_gyration": Case(lambda: RadiusOfGyration(1.0, 0.05), True),
    "end_to_end": Case(lambda: EndToEndDistance(((1, 2), (4, 5)), 2.5, 0.1), True),
    "coordination_OO": Case(lambda: CoordinationNumber(("O", "O"), 3.2), True),
    "coordination_smooth": Case(lambda: CoordinationNumber(("H", "O"), 2.5, 6, 1.0, 0.5), True),
    "tetrahedral_order": Case(lambda: TetrahedralOrder(0.05, "H", -1.0), True),
    "hydrogen_bonds": Case(lambda: HydrogenBonds(3.5, 60.0), True),
    "vibrational_dos": Case(lambda: VibrationalDOS(5.0, 8000.0, 500.0, element="O"), False),
    "infrared_spectrum": Case(lambda: InfraredSpectrum(5.0, 8000.0, 500.0, "none", (("O", -0.8), ("H", 0.4))), False),
    "vacf": Case(lambda: VACF(3.0), False),
    "vacf_O": Case(lambda: VACF(3.0, element="O"), False),
    "vacf_windows": Case(lambda: VACF(2.0, window=4, mass_weighted=True, normalized=False), False),
    "msd": Case(lambda: MSD(4.0), False),
    "msd_O": Case(lambda: MSD(4.0, element="O", remove_center_of_mass=True), False),
    "diffusivity": Case(lambda: Diffusivity(1.0, 4.0), False),
}
OPEN_AND_PERIODIC = [
    pytest.param(name, periodic, id=f"{name}-{'periodic' if periodic else 'open'}")
    for name, case in CASES.items()
    for periodic in (False, True)
    if not (case.needs_open if periodic else case.needs_cell)
]
PERIODIC = [name for name, case in CASES.items() if not case.needs_open]
each_case = pytest.mark.parametrize("name, periodic", OPEN_AND_PERIODIC)


def water(periodic: bool) -> tuple[System, Trajectory]:
    """Three water molecules that shake, in replicas that differ."""
    generator = torch.Generator().manual_seed(3)
    one = molecule("H2O")
    centers = torch.tensor([[0.0, 0.0, 0.0], [3.1, 0.4, 0.3], [0.5, 3.0, -0.6]], dtype=torch.float64)
    geometry = (torch.as_tensor(one.positions) + centers[:, None]).reshape(-1, 3)
    numbers = torch.as_tensor(one.numbers).repeat(N_MOLECULES)
    system = System.from_geometry(numbers, geometry, CELL if periodic else None, dtype=torch.float64)
    shape = (N_FRAMES, N_REPLICAS, system.n_atoms, 3)
    positions = geometry + 0.08 * torch.randn(shape, dtype=torch.float64, generator=generator)
    velocities = 0.1 * torch.randn(shape, dtype=torch.float64, generator=generator)
    energy = -1.0 + 0.5 * torch.randn(shape[:2], dtype=torch.float64, generator=generator)
    return system, Trajectory(positions, velocities, energy, frame_interval_fs=1.0)


def measured(name: str, periodic: bool) -> tuple[Observable, System, Trajectory, torch.Tensor]:
    observable = CASES[name].make()
    system, trajectory = water(periodic)
    return observable, system, trajectory, observable(system, trajectory)


def replica_axis(name: str) -> int:
    return 1 if CASES[name].structural else 0


@each_case
def test_meets_the_interface(name, periodic):
    observable, _, _, values = measured(name, periodic)
    assert isinstance(observable, Observable)
    assert isinstance(observable.name, str) and isinstance(observable.unit, str)
    assert values.shape[:-1] == ((N_FRAMES, N_REPLICAS) if CASES[name].structural else (N_REPLICAS,))
    assert values.isfinite().all() and values.abs().sum() > 0
    if hasattr(observable, "bin_centers"):
        assert values.shape[-1:] == observable.bin_centers.shape
    if fields(observable):
        with pytest.raises(FrozenInstanceError):
            setattr(observable, fields(observable)[0].name, 1.0)


@each_case
def test_rotation(name, periodic):
    observable, system, trajectory, values = measured(name, periodic)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5)))[0]
    turned = replace(system, cell=None if system.cell is None else system.cell @ turn)
    moved = replace(trajectory, positions=trajectory.positions @ turn, velocities=trajectory.velocities @ turn)
    torch.testing.assert_close(observable(turned, moved), values, rtol=1e-8, atol=1e-10)


@each_case
def test_translation(name, periodic):
    observable, system, trajectory, values = measured(name, periodic)
    shift = torch.tensor([3.7, -12.9, 25.1], dtype=torch.float64)
    moved = replace(trajectory, positions=trajectory.positions + shift)
    torch.testing.assert_close(observable(system, moved), values, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", PERIODIC)
def test_whole_lattice_vectors_change_nothing(name):
    """Each atom is moved by its own lattice vector, the same in all frames, as unwrapped coordinates require."""
    observable, system, trajectory, values = measured(name, periodic=True)
    generator = torch.Generator().manual_seed(11)
    images = torch.randint(-2, 3, (system.n_atoms, 3), generator=generator).double() @ CELL
    moved = replace(trajectory, positions=trajectory.positions + images)
    torch.testing.assert_close(observable(system, moved), values, rtol=1e-8, atol=1e-10)


@each_case
def test_permuted_replicas(name, periodic):
    observable, system, trajectory, values = measured(name, periodic)
    order = torch.tensor([2, 0, 1])
    expected = values.index_select(replica_axis(name), order)
    torch.testing.assert_close(observable(system, trajectory.replicas(order)), expected, rtol=1e-12, atol=1e-13)


@each_case
def test_batch_of_one(name, periodic):
    observable, system, trajectory, values = measured(name, periodic)
    alone = observable(system, trajectory.replicas(slice(1, 2)))
    expected = values.narrow(replica_axis(name), 1, 1)
    torch.testing.assert_close(alone, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@each_case
def test_a_broken_replica_is_seen_and_reaches_no_other(name, periodic, bad):
    observable, system, trajectory, values = measured(name, periodic)
    positions, velocities = trajectory.positions.clone(), trajectory.velocities.clone()
    positions[5:, 1, 0] = bad
    velocities[5:, 1, 0] = bad
    broken = observable(system, replace(trajectory, positions=positions, velocities=velocities))
    axis = replica_axis(name)
    healthy = torch.tensor([0, 2])
    assert torch.equal(broken.index_select(axis, healthy), values.index_select(axis, healthy))
    if CASES[name].structural:
        assert torch.equal(broken[:5], values[:5])
        if name != "minimum_distance" or periodic or bad is torch.nan:  # in open space an atom at infinity is just far
            assert not broken[5:, 1].isfinite().all(-1).any()
    elif name != "vacf_windows":
        assert broken[1].isnan().any()


@pytest.mark.parametrize("name", [name for name in PERIODIC if CASES[name].structural])
def test_frames_do_not_depend_on_each_other(name):
    observable, system, trajectory, values = measured(name, periodic=True)
    torch.testing.assert_close(observable(system, trajectory[2:4]), values[2:4], rtol=1e-12, atol=1e-13)


@each_case
def test_float32(name, periodic):
    observable, system, trajectory, values = measured(name, periodic)
    single = observable(system.to(dtype=torch.float32), trajectory.map(torch.Tensor.float, 1.0))
    assert values.dtype == torch.float64 and single.dtype == torch.float32
    torch.testing.assert_close(single.double(), values, rtol=2e-4, atol=2e-4 * float(values.abs().max()))


@each_case
def test_inputs_are_left_alone(name, periodic):
    observable, system, trajectory, _ = measured(name, periodic)
    same_system, same_trajectory = water(periodic)
    observable(system, trajectory)
    for field in ("positions", "velocities"):
        assert torch.equal(getattr(trajectory, field), getattr(same_trajectory, field))
    for field in ("masses", "bonds", "molecules", "atomic_numbers"):
        assert torch.equal(getattr(system, field), getattr(same_system, field))


@each_case
def test_same_bits_again(name, periodic):
    observable, system, trajectory, values = measured(name, periodic)
    assert torch.equal(observable(system, trajectory), values)
