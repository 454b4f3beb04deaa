"""Structure factors against closed forms, and the three methods against each other and against plain numpy."""

import math
import sys

import numpy as np
import pytest
import torch
from paths import ROOT

from mdsim.datasets import load_dataset
from mdsim.interfaces import BinnedObservable, LocalObservable
from mdsim.observables import RDF, DebyeStructureFactor, DirectStructureFactor, FourierStructureFactor
from mdsim.observables.direct_structure_factor import wave_vectors
from mdsim.observables.scattering import pair_weights
from mdsim.state import System, Trajectory

F64 = torch.float64


def atoms(numbers: list[int], cell: torch.Tensor | None) -> System:
    """Atoms without bonds."""
    n = len(numbers)
    return System(torch.tensor(numbers), torch.ones(n, dtype=F64), cell, torch.empty(0, 2).long(), torch.arange(n))


def cube(length: float) -> torch.Tensor:
    return length * torch.eye(3, dtype=F64)


def frames(positions: torch.Tensor) -> Trajectory:
    return Trajectory(positions, None, None, 1.0)


@pytest.fixture(scope="module")
def liquid() -> tuple[System, Trajectory]:
    """Sixty frames of the bundled water."""
    dataset = load_dataset(str(ROOT / "data" / "bundled"), "water_spcfw", "water", "100")
    return dataset.system().to(dtype=F64), frames(dataset.train.positions[:60, None].to(F64))


@pytest.mark.parametrize("pair", [None, ("O", "O"), ("O", "H")])
@pytest.mark.parametrize("kind", ["fourier", "direct"])
def test_an_ideal_gas_has_no_structure(kind, pair, generator):
    """S(q) = 1 without any correction for the number of atoms. Bounds are five standard errors."""
    system = atoms([8] * 8 + [1] * 12, cube(10.0))
    positions = 10.0 * torch.rand(200, 2, 20, 3, dtype=F64, generator=generator)
    settings = {"fourier": (FourierStructureFactor, {"max_distance_A": 5.0}), "direct": (DirectStructureFactor, {})}
    make, more = settings[kind]
    values = make(6.0, 0.5, pair, "number", 0.5, **more)(system, frames(positions)).flatten(0, 1)
    deviation = (values.mean(0) - 1.0).abs() / (values.std(0) / math.sqrt(len(values)))
    assert deviation.max() < 5.0
    assert (values.std(0) / math.sqrt(len(values))).max() < 0.1


def test_two_atoms_are_the_formula_of_debye():
    r = torch.tensor([1.1, 2.5], dtype=F64)
    positions = torch.zeros(1, 2, 2, 3, dtype=F64)
    positions[0, :, 1, 2] = r
    observable = DebyeStructureFactor(10.0, 0.1)
    q = observable.bin_centers
    alike = observable(atoms([8, 8], None), frames(positions))[0]
    torch.testing.assert_close(alike, 1 + torch.sin(r[:, None] * q) / (r[:, None] * q))
    partial = DebyeStructureFactor(10.0, 0.1, ("O", "H"))(atoms([8, 1], None), frames(positions))[0]
    torch.testing.assert_close(partial, 1 + 2 * torch.sin(r[:, None] * q) / (r[:, None] * q))


def test_debye_of_a_molecule_is_a_double_sum(aspirin, aspirin_geometry):
    """All ordered pairs with form factors of periodictable, in numpy."""
    import periodictable

    numbers, positions = aspirin_geometry
    observable = DebyeStructureFactor(12.0, 0.5, None, "xray")
    found = observable(aspirin, frames(torch.as_tensor(positions)[None, None]))[0, 0].numpy()
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    for q, value in zip(observable.bin_centers.numpy(), found, strict=True):
        f = np.array([periodictable.elements[int(z)].xray.f0(q) for z in numbers], dtype=float)
        waves = np.sinc(q * distances / np.pi)
        np.fill_diagonal(waves, 0.0)
        assert value == pytest.approx(1 + f @ waves @ f / (len(f) * f.mean() ** 2), rel=1e-10)


def test_total_forward_scattering_of_an_open_system_is_the_number_of_atoms(aspirin, aspirin_geometry):
    close = DebyeStructureFactor(2e-3, 1e-3)(aspirin, frames(torch.as_tensor(aspirin_geometry[1])[None, None]))
    assert float(close[0, 0, 0]) == pytest.approx(21.0, rel=1e-4)


def test_a_crystal_has_the_peaks_of_bragg():
    """Face-centered cubic: S = N where h, k, l are all even or all odd, zero at all other wave vectors of the cell."""
    basis = torch.tensor([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], dtype=F64)
    places = torch.cartesian_prod(*[torch.arange(3.0, dtype=F64)] * 3)
    positions = 4.0 * (places[:, None] + basis).reshape(-1, 3)
    system = atoms([18] * len(positions), cube(12.0))
    first = 2 * math.pi / 4.0 * math.sqrt(3)  # (111)
    observable = DirectStructureFactor(first + 0.01, 0.02, None, "number", first - 0.01, most_vectors_per_bin=None)
    vectors, _ = wave_vectors(system.cell, observable.bins)
    assert len(vectors) == 4 + 12, "(±3, ±3, ±3) and (5, 1, 1), half of them"
    expected = 4 / 16 * len(positions)
    assert float(observable(system, frames(positions[None, None]))) == pytest.approx(expected, rel=1e-9)


def test_the_direct_sum_is_that_of_numpy(generator):
    """A triclinic cell with two elements, every wave vector written out."""
    cell = torch.tensor([[7.0, 0, 0], [1.5, 6.5, 0], [-1.0, 2.0, 8.0]], dtype=F64)
    system = atoms([8] * 4 + [1] * 5, cell)
    positions = 20.0 * torch.rand(1, 1, 9, 3, dtype=F64, generator=generator)
    r = positions[0, 0].numpy()
    reciprocal = 2 * np.pi * np.linalg.inv(cell.numpy()).T
    whole = np.array([(a, b, c) for a in range(-6, 7) for b in range(-6, 7) for c in range(-6, 7)])
    q = whole @ reciprocal
    length = np.linalg.norm(q, axis=1)
    waves = np.exp(-1j * q @ r.T)
    oxygen, hydrogen = waves[:, :4].sum(1), waves[:, 4:].sum(1)
    for pair, product, alone in (("OO", oxygen * oxygen.conj(), 4), ("OH", oxygen * hydrogen.conj(), 0)):
        observable = DirectStructureFactor(4.0, 1.0, tuple(pair), "number", 1.0, most_vectors_per_bin=None)
        found = observable(system, frames(positions))[0, 0]
        for index, low in enumerate((1.0, 2.0, 3.0)):
            inside = (length >= low) & (length < low + 1)
            mean = product.real[inside].mean() - alone
            expected = 1 + mean * 9 / (4 * (4 if pair == "OO" else 5))
            assert float(found[index]) == pytest.approx(expected, rel=1e-9)


def test_a_selection_of_wave_vectors_is_even_and_of_the_wanted_size():
    bins = DirectStructureFactor(6.0, 0.5, min_q_per_A=1.0).bins
    _, of_all = wave_vectors(cube(12.0), bins)
    chosen, of_bin = wave_vectors(cube(12.0), bins, 50)
    assert torch.bincount(of_bin).tolist() == torch.bincount(of_all).clamp_max(50).tolist()
    assert chosen.double().mean(0)[1:].abs().max() < 1.0, "no direction is preferred"


def test_the_totals_are_weighted_sums_of_partials(liquid):
    system, some = liquid
    for make in (
        lambda *a: FourierStructureFactor(8.0, 0.5, *a, max_distance_A=6.0),
        lambda *a: DirectStructureFactor(8.0, 0.5, *a, most_vectors_per_bin=20),
    ):
        total = make(None, "xray", 1.0)
        weights = pair_weights(system, total.bin_centers, "xray")
        parts = sum(w * make(pair, "number", 1.0)(system, some[:5]) for pair, w in weights.items())
        torch.testing.assert_close(total(system, some[:5]), parts)


def test_both_methods_agree_in_a_liquid(liquid):
    """The Fourier transform of g(r) ends at half the cell, and the sum over wave vectors does not.

    Where S(q) has no features sharper than 2π/R, they agree within the noise and the ripples of the cut.
    """
    system, some = liquid
    transform = FourierStructureFactor(8.5, 0.25, ("O", "O"), min_q_per_A=4.0, max_distance_A=6.2, lorch_window=False)
    direct = DirectStructureFactor(8.5, 0.25, ("O", "O"), min_q_per_A=4.0, most_vectors_per_bin=100)
    one, other = (f(system, some).mean((0, 1)) for f in (transform, direct))
    assert (one - other).abs().mean() < 0.06
    assert one.std() > 0.2, "the liquid has structure there"
    smoothed = FourierStructureFactor(8.5, 0.25, ("O", "O"), min_q_per_A=4.0, max_distance_A=6.2)
    assert 0.5 < smoothed(system, some).mean((0, 1)).std() / one.std() < 0.95, "the window of Lorch broadens peaks"


def test_the_transform_is_the_integral_of_g_of_r(liquid):
    """Trapezoidal rule in numpy over narrow bins, with the number density of atoms."""
    system, some = liquid
    rdf = RDF(6.0, 0.005, ("O", "O"), "ideal_gas")
    r, g = rdf.bin_centers.numpy(), rdf(system, some).mean((0, 1)).numpy()
    density = system.n_atoms / 12.4171**3
    observable = FourierStructureFactor(
        9.0, 0.5, ("O", "O"), max_distance_A=6.0, distance_bin_width_A=0.005, lorch_window=True
    )
    found = observable(system, some).mean((0, 1)).numpy()
    for q, value in zip(observable.bin_centers.numpy(), found, strict=True):
        window = np.sin(np.pi * r / 6.0) / (np.pi * r / 6.0)
        integral = (r**2 * (g - 1) * np.sin(q * r) / (q * r) * window).sum() * 0.005
        assert value == pytest.approx(1 + 4 * np.pi * density * 63 / 64 * integral, abs=2e-4)


def test_weights_of_water_in_neutron_scattering():
    """Heavy water: b_D = 6.67 fm, b_O = 5.80 fm. The weights of the textbook are 0.49 DD, 0.42 OD, 0.09 OO."""
    system = atoms([8, 1, 1], None)
    q = torch.tensor([1.0], dtype=F64)
    weights = pair_weights(system, q, "neutron", (("H", 2),))
    assert [round(float(weights[pair]), 2) for pair in (("H", "H"), ("H", "O"), ("O", "O"))] == [0.49, 0.42, 0.09]
    light = pair_weights(system, q, "neutron")
    assert float(light["H", "O"]) < 0, "the scattering length of protium is negative"
    xray = pair_weights(system, torch.tensor([1e-6], dtype=F64), "xray")
    assert float(xray["O", "O"]) == pytest.approx(0.64, abs=2e-3), "8² of 10² electrons"


@pytest.mark.parametrize("q", [0.5, 3.0, 8.0])
@pytest.mark.parametrize("weighting", ["number", "xray", "neutron"])
def test_weights_add_up_to_one(weighting, q, aspirin):
    weights = pair_weights(aspirin, torch.tensor([q], dtype=F64), weighting)
    assert float(sum(weights.values())) == pytest.approx(1.0)


def test_the_interfaces(aspirin):
    assert isinstance(FourierStructureFactor(8.0, 0.5), LocalObservable)
    assert isinstance(DirectStructureFactor(8.0, 0.5), BinnedObservable)
    names = [DebyeStructureFactor(8.0, 0.5, ("C", "O")).name, DebyeStructureFactor(8.0, 0.5, None, "xray").name]
    assert names == ["structure_factor_CO", "structure_factor_xray"]


def test_wrong_input_is_named(aspirin, aspirin_geometry, monkeypatch):
    still = frames(torch.as_tensor(aspirin_geometry[1])[None, None])
    boxed = atoms([8, 8, 1], cube(9.0))
    three = frames(torch.rand(1, 1, 3, 3, dtype=F64))
    with pytest.raises(ValueError, match="no cell: use DebyeStructureFactor"):
        FourierStructureFactor(8.0, 0.5, ("C", "O"))(aspirin, still)
    with pytest.raises(ValueError, match="has none: use DebyeStructureFactor"):
        DirectStructureFactor(8.0, 0.5, ("C", "O"))(aspirin, still)
    with pytest.raises(ValueError, match="has a cell: use FourierStructureFactor"):
        DebyeStructureFactor(8.0, 0.5)(boxed, three)
    with pytest.raises(ValueError, match=r"no wave vector in 1 of 4 bins \(around 0.25 1/Å\)"):
        DirectStructureFactor(2.0, 0.5)(boxed, three)
    with pytest.raises(ValueError, match="no N-N pair"):
        DebyeStructureFactor(8.0, 0.5, ("N", "N"))(aspirin, still)
    with pytest.raises(ValueError, match="weighting must be one of number, xray, neutron, found 'electron'"):
        DebyeStructureFactor(8.0, 0.5, None, "electron")
    with pytest.raises(ValueError, match="has no N"):
        DebyeStructureFactor(8.0, 0.5, None, "neutron", isotopes=(("N", 15),))(aspirin, still)
    with pytest.raises(ValueError, match="no tabulated isotope of mass number 9"):
        DebyeStructureFactor(8.0, 0.5, None, "neutron", isotopes=(("H", 9),))(aspirin, still)
    with pytest.raises(ValueError, match="no xray scattering amplitude of Og"):
        pair_weights(atoms([118, 118], None), torch.ones(1, dtype=F64), "xray")
    monkeypatch.setitem(sys.modules, "periodictable", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mdsim\[scattering\]'"):
        DebyeStructureFactor(8.0, 0.5, None, "xray")(aspirin, still)
