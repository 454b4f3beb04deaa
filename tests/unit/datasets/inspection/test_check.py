"""Quality checks of data: closed forms of their numbers, and detection of deliberate faults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from matplotlib.image import imread
from paths import BUNDLED

from mdsim.datasets.inspection.check import (
    Checked,
    bond_kinds,
    correlation_function,
    correlation_time,
    element_temperatures_K,
    free_momenta,
    net_force_eV_per_A,
    net_torque_eV,
    open_checked,
    shared_frames,
    slowest_distance,
    suspects,
    work_slope,
)
from mdsim.datasets.inspection.figure import data_figure
from mdsim.datasets.inspection.report import mean_temperature_K, report
from mdsim.datasets.npz import Frames
from mdsim.dynamics.velocities import maxwell_boltzmann
from mdsim.errors import DatasetError
from mdsim.state import System


def autoregressive(memory: float, n: int, seed: int = 0) -> torch.Tensor:
    """x(t+1) = memory x(t) + noise, whose correlation decays as memory^lag: τ = (1 + memory) / (2 (1 - memory))."""
    noise = np.random.default_rng(seed).standard_normal(n)
    series = np.zeros(n)
    for t in range(1, n):
        series[t] = memory * series[t - 1] + noise[t]
    return torch.from_numpy(series)


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9, 0.97])
def test_correlation_times_of_a_process_that_is_known(memory):
    tau, known = correlation_time(autoregressive(memory, 40_000))
    assert known and tau == pytest.approx((1 + memory) / (2 * (1 - memory)), rel=0.25)


def test_a_short_series_says_that_it_is_short():
    assert not correlation_time(autoregressive(0.995, 500))[1]
    assert not correlation_time(torch.zeros(100))[1]


def test_vibrations_on_a_slow_drift_do_not_hide_it():
    vibration = 3 * torch.sin(0.7 * torch.arange(40_000, dtype=torch.float64))
    slow = autoregressive(0.97, 40_000)
    slow = slow / slow.std()
    share = float(slow.var() / (slow + vibration).var())
    tau, known = correlation_time(slow + vibration)
    assert known and tau == pytest.approx(share * 1.97 / 0.06, rel=0.3)


def test_the_correlation_function_decays_as_it_should():
    correlation = correlation_function(autoregressive(0.9, 40_000), 10)
    torch.testing.assert_close(correlation, 0.9 ** torch.arange(10, dtype=torch.float64), rtol=0, atol=0.05)


def thermal(system: System, positions: torch.Tensor, n: int, **removed: bool) -> Frames:
    """Frames with velocities of 400 K."""
    generator = torch.Generator().manual_seed(3)
    many = positions.expand(n, -1, -1)
    velocities = maxwell_boltzmann(system, n, 400.0, generator, positions=many, **removed)
    return Frames(system.atomic_numbers, many, torch.zeros(n, dtype=torch.float64), velocities=velocities)


@pytest.mark.parametrize(
    ("removed", "momenta"),
    [({}, 57), ({"remove_rotation": False}, 60), ({"remove_momentum": False, "remove_rotation": False}, 63)],
)
def test_temperatures_by_element_where_momenta_are_held(aspirin, aspirin_geometry, removed, momenta):
    """Exact also for oxygen, which carries much of the momenta that are held at zero."""
    frames = thermal(aspirin, torch.from_numpy(aspirin_geometry[1]), 4000, **removed)
    free = free_momenta(frames, aspirin)
    assert float(free.sum()) == pytest.approx(momenta, abs=1e-9)
    checked = Checked("x", Path(), {"contiguous": frames}, aspirin, None)
    assert mean_temperature_K(frames, checked)[0] == pytest.approx(400, rel=0.01)
    for symbol, temperature in element_temperatures_K(frames, aspirin, free).items():
        assert temperature == pytest.approx(400, rel=0.02), symbol


def test_what_cancels_and_what_does_not():
    frames = tiny.frames(20)
    system = tiny.water()
    assert net_force_eV_per_A(frames).max() < 1e-5
    assert net_torque_eV(frames, system).max() < 1e-5
    turned = replace(frames, forces=frames.labels + torch.tensor([[0.0, 0, 0], [0, 0, 1.0], [0, 0, -1.0]]))
    arms = frames.positions.double()
    expected = torch.linalg.vector_norm(
        torch.linalg.cross(arms[:, 1] - arms[:, 2], torch.tensor([0.0, 0, 1.0]).double().expand(20, 3)), dim=-1
    )
    assert net_force_eV_per_A(turned).max() < 1e-5
    torch.testing.assert_close(net_torque_eV(turned, system), expected, rtol=1e-5, atol=1e-5)


def test_energies_and_forces_of_one_kind_belong_together():
    start, end = tiny.GEOMETRY, tiny.GEOMETRY + 0.1 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    path = torch.stack([start + (end - start) * step / 50 for step in range(51)])
    energy, forces = tiny.Springs()(tiny.water(), path)
    frames = Frames(tiny.NUMBERS, path, energy, forces)
    assert work_slope(frames) == pytest.approx(1.0, abs=1e-3)
    assert work_slope(replace(frames, forces=forces / 23.06)) == pytest.approx(23.06, rel=1e-3)
    assert work_slope(replace(frames, forces=None)) is None


@pytest.fixture
def world(tmp_path) -> Path:
    tiny.write_data(tmp_path, ("20",))
    return tmp_path / "toy" / "water" / "20"


def test_a_sound_set_passes(world):
    (checked,) = open_checked(world)
    text = report(checked, suspects(checked))
    assert suspects(checked) == [] and "3 atoms: H2O; 2 bonds; open boundaries" in text
    assert {kind: len(bonds) for kind, bonds in bond_kinds(checked.system).items()} == {"O-H": 2}


def spoiled(world: Path, part: str, **fields: torch.Tensor) -> Checked:
    (checked,) = open_checked(world)
    return replace(checked, parts=checked.parts | {part: replace(checked.parts[part], **fields)})


def test_broken_frames_are_found(world):
    (checked,) = open_checked(world)
    test, train = checked.parts["test"], checked.parts["train"]
    torn = test.positions.clone()
    torn[3, 1] *= 2.0
    assert [(s.part, s.frame) for s in suspects(spoiled(world, "test", positions=torn))] == [("test", 3)]
    assert "bond O0-H1 is" in suspects(spoiled(world, "test", positions=torn))[0].reason
    close = test.positions.clone()
    close[2, 2] = close[2, 1] + 0.3
    reasons = [s.reason for s in suspects(spoiled(world, "test", positions=close)) if s.frame == 2]
    assert any("H1 and H2, no bond, are 0.52 Å apart" in r or "bond O0-H2" in r for r in reasons)
    energy = train.energy.clone()
    energy[5] += 9.0
    (found,) = suspects(spoiled(world, "train", energy=energy))
    assert (found.part, found.frame) == ("train", 5) and "energy +" in found.reason
    forces = test.labels.clone()
    forces[4, 0] += 500.0
    assert [(s.frame, "on O0" in s.reason) for s in suspects(spoiled(world, "test", forces=forces))] == [(4, True)]


def test_test_frames_that_train_are_counted(world):
    (checked,) = open_checked(world)
    leaking = torch.cat([checked.parts["test"].positions[1:], checked.parts["train"].positions[:1]])
    checked = spoiled(world, "test", positions=leaking)
    assert shared_frames(checked) == {"train and test": 1}
    assert "1 frames are in train and test" in report(checked, [])


def test_the_source_of_a_suspect_is_named(world):
    (checked,) = open_checked(world)
    assert checked.metadata is not None
    metadata = replace(checked.metadata, split={"indices": {"train": "4,7-9"}})
    assert replace(checked, metadata=metadata).place("train", 2) == "train, frame 2 (8 of the source)"
    assert replace(checked, metadata=None).place("train", 2) == "train, frame 2"


def test_real_data_in_full():
    """The bundled tetrapeptide: what the card says is what the check finds."""
    (checked,) = open_checked(BUNDLED / "ac_ala3_nhme_gfn2" / "ac_Ala3_NHMe" / "25percent")
    found = suspects(checked)
    text = report(checked, found)
    assert found == [] and "42 atoms: C12H22N4O4; 41 bonds" in text
    assert "1,000 frames, 2 fs apart: 2 ps" in text
    moved = float(text.split("displacements")[1].split()[0])
    assert moved == pytest.approx(1.0, abs=0.01)
    slowest = slowest_distance(checked.parts["contiguous"], checked.system)
    assert slowest is not None and slowest[2] == 190 and not slowest[1]


def test_the_figure_is_drawn_whole(world, tmp_path):
    (checked,) = open_checked(world)
    data_figure(tmp_path / "figure.png", checked, suspects(checked))
    image = imread(tmp_path / "figure.png")
    assert image.shape[0] > 400 and image.std() > 0.05
    (single,) = open_checked(world / "train.npz")
    data_figure(tmp_path / "one.png", replace(single, parts={"train": single.first[:2]}), [])
    assert (tmp_path / "one.png").stat().st_size > 10_000


def test_folders_without_data(tmp_path, world):
    assert [checked.name for checked in open_checked(tmp_path)] == ["toy/water/20"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no data set here or below"):
        open_checked(tmp_path / "empty")
