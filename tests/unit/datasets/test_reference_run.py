"""Tables of a long run: equal to the observables of its frames."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mdsim.datasets import Frames, load_dataset, write_dataset
from mdsim.datasets.reference_run import ReferenceRun, read_reference_run, tabulate, write_reference_run
from mdsim.errors import DatasetError
from mdsim.observables import ADF, MSD, RDF, VACF, Diffusivity
from mdsim.state import System, Trajectory

BOX = 9.0


@pytest.fixture(scope="module")
def system() -> System:
    numbers = torch.tensor([8] * 6 + [1] * 10)
    nothing = torch.empty(0, 2, dtype=torch.long)
    return System(numbers, torch.ones(16).double(), BOX * torch.eye(3).double(), nothing, torch.arange(16))


@pytest.fixture(scope="module")
def walk() -> Trajectory:
    """A gas in Brownian motion: 120 frames, 5 fs apart."""
    generator = torch.Generator().manual_seed(3)
    steps = 0.2 * torch.randn(120, 1, 16, 3, generator=generator, dtype=torch.float64)
    start = BOX * torch.rand(1, 1, 16, 3, generator=generator, dtype=torch.float64)
    return Trajectory(start + steps.cumsum(0), None, None, 5.0)


@pytest.fixture(scope="module")
def run(system, walk) -> ReferenceRun:
    blocks = [walk[start : start + 40] for start in (0, 40, 80)]
    return tabulate(system, blocks, [("O", "O"), ("O", "H")], ["O"], 0.1, max_lag_fs=150.0, lag_fs=10.0)


@pytest.mark.parametrize(
    ("pair", "width", "stop"), [(("O", "O"), 0.5, 4.5), (("H", "O"), 0.1, 3.0), (("O", "H"), 0.3, 4.2)]
)
def test_wider_bins_are_those_of_the_frames(run, system, walk, pair, width, stop):
    rdf = RDF(stop, width, pair, "ideal_gas")
    mean, error = run.mean_and_error(rdf)
    values = rdf(system, walk)[:, 0]
    torch.testing.assert_close(mean, values.mean(0), rtol=1e-9, atol=1e-12)
    blocks = values.reshape(3, 40, -1).mean(1)
    torch.testing.assert_close(error, blocks.std(0) / math.sqrt(3), rtol=1e-9, atol=1e-12)


def test_the_diffusivity_is_that_of_the_mean_displacements(run, system, walk):
    diffusivity = Diffusivity(20.0, 140.0, "O")
    blocks = [MSD(150.0, "O")(system, walk[start : start + 40])[0, ::2] for start in (0, 40, 80)]
    lags = 10.0 * np.arange(16)
    fitted = slice(2, 15)
    slopes = [np.polyfit(lags[fitted], block.numpy()[fitted], 1)[0] for block in blocks]
    mean, error = run.mean_and_error(diffusivity)
    assert mean.item() == pytest.approx(1e4 * np.mean(slopes) / 6)
    assert error.item() == pytest.approx(1e4 * np.std(slopes, ddof=1) / 6 / math.sqrt(3))


@pytest.mark.parametrize(
    "observable",
    [
        RDF(4.0, 0.1, ("H", "H"), "ideal_gas"),
        RDF(4.0, 0.1, ("O", "O"), "pair_density"),
        RDF(4.0, 0.1, ("O", "O"), "ideal_gas", intermolecular_only=True),
        RDF(4.0, 0.1, ("O", "O"), "ideal_gas", smearing_A=0.1),
        RDF(4.0, 0.1, None, "ideal_gas"),
        Diffusivity(20.0, 140.0),
        Diffusivity(20.0, 140.0, "H"),
        ADF(2.0),
        VACF(20.0),
    ],
    ids=lambda observable: observable.name,
)
def test_what_is_not_tabulated_is_none(run, observable):
    assert run.mean_and_error(observable) is None


@pytest.mark.parametrize(
    ("observable", "message"),
    [
        (RDF(4.2, 0.15, ("O", "O"), "ideal_gas"), "0.15 Å are not a multiple of the 0.1 Å"),
        (RDF(4.6, 0.1, ("O", "O"), "ideal_gas"), "4.6 is beyond the 4.5 Å"),
        (Diffusivity(20.0, 400.0, "O"), "ends at 400 fs, but the lags at 150 fs"),
    ],
)
def test_what_the_tables_cannot_give_is_refused(run, observable, message):
    with pytest.raises(ValueError, match=message):
        run.mean_and_error(observable)


def test_lags_between_frames_and_open_systems_are_refused(system, walk):
    with pytest.raises(ValueError, match="not a multiple of the frame interval"):
        tabulate(system, [walk], [], ["O"], 0.1, 100.0, lag_fs=12.0)
    with pytest.raises(ValueError, match="has no cell"):
        tabulate(replace(system, cell=None), [walk], [], ["O"], 0.1, 100.0, 10.0)


def test_a_file_holds_the_tables_in_single_precision(tmp_path, run):
    write_reference_run(tmp_path / "reference.npz", run)
    again = read_reference_run(tmp_path / "reference.npz")
    assert (again.rdf_bin_width_A, again.msd_lag_fs) == (0.1, 10.0)
    assert set(again.rdf) == {"OO", "HO"} and set(again.msd) == {"O"}
    torch.testing.assert_close(again.rdf["HO"], run.rdf["HO"], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "change", [{"rdf_OO": np.zeros(5)}, {"msd_O": np.full((2, 3), np.nan)}, {"adf": np.ones((2, 2))}]
)
def test_a_file_of_something_else_is_refused(tmp_path, run, change):
    write_reference_run(tmp_path / "reference.npz", run)
    with np.load(tmp_path / "reference.npz") as saved:
        arrays = dict(saved)
    np.savez(tmp_path / "reference.npz", **arrays | change)
    with pytest.raises(DatasetError, match=rf"{next(iter(change))} is not a finite table"):
        read_reference_run(tmp_path / "reference.npz")


def test_damaged_and_incomplete_files_are_refused(tmp_path):
    (tmp_path / "reference.npz").write_bytes(b"PK damaged")
    with pytest.raises(DatasetError, match="not a readable npz file"):
        read_reference_run(tmp_path / "reference.npz")
    np.savez(tmp_path / "reference.npz", rdf_OO=np.ones((2, 2)))
    with pytest.raises(DatasetError, match="misses rdf_bin_width_A, msd_lag_fs"):
        read_reference_run(tmp_path / "reference.npz")


def test_a_data_set_carries_its_run(tmp_path, run, ethanol_frames: Frames, metadata):
    own = {"train": ethanol_frames[:20], "val": ethanol_frames[20:]}
    write_dataset(tmp_path / "toy" / "ethanol" / "30", own, {}, metadata, run)
    dataset = load_dataset(tmp_path, "toy", "ethanol", "30")
    assert set(dataset.reference_run.rdf) == {"OO", "HO"}
    (tmp_path / "toy" / "ethanol" / "reference.npz").unlink()
    with pytest.raises(DatasetError, match=r"reference\.npz is neither in"):
        _ = load_dataset(tmp_path, "toy", "ethanol", "30").reference_run
