import json

import numpy as np
import pytest
import torch
from tiny import GEOMETRY, PAIRS, STIFFNESS, SilentWriter, Springs, same_bits, water

from mdsim.dynamics.stretch import Stretch
from mdsim.errors import CheckpointError
from mdsim.evaluation import files, metrics, report, tables
from mdsim.evaluation.evaluate import STABLE, Evaluation
from mdsim.evaluation.plan import Compared, DenseWindow, Plan
from mdsim.evaluation.results import read_results
from mdsim.geometry import pair_distances
from mdsim.integrators.langevin import LangevinBAOAB
from mdsim.integrators.nve import VelocityVerlet
from mdsim.observables.bonds import BondLengthDistribution
from mdsim.observables.vacf import VACF
from mdsim.reporting.trajectories import FORMATS, FileSettings, read_trajectory
from mdsim.stability.criteria import BondLengthDeviation
from mdsim.stability.departures import Departures
from mdsim.stability.support import support_of, with_energies

TOLERANCE_A = 0.15
BONDS = PAIRS[:2]
WEAK = Springs(0.05 * STIFFNESS)
SPEEDS = [0.02, 2.0, 0.05, 0.3]  # the second breaks at once, the fourth a little later
ERRORS = {"energy_mae_meV": 1.0, "force_mae_meV_per_A": 2.0}


def _stretch(integrator=None) -> Stretch:
    criterion = BondLengthDeviation(pair_distances(GEOMETRY, BONDS), TOLERANCE_A)
    return Stretch(water(), integrator or VelocityVerlet(0.5), 12, 4, (criterion,))


def _start(stretch, speeds=SPEEDS):
    velocities = torch.zeros(len(speeds), 3, 3, dtype=torch.float64)
    velocities[:, 1, 0] = torch.tensor(speeds, dtype=torch.float64)
    return stretch.begin(WEAK, GEOMETRY.repeat(len(speeds), 1, 1), velocities)


BOND_LENGTHS = BondLengthDistribution(2.0, 0.1)


def _departures(n_replicas: int) -> Departures:
    """From frames that hardly move: only the slowest replica stays within their support."""
    noise = torch.randn(200, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    frames = GEOMETRY + 0.002 * noise
    support = with_energies(support_of(water(), frames), WEAK.bind(water())(frames)[0], 3, 300.0, 300.0)
    return Departures(support, n_replicas, sustained_frames=3)


def _evaluation(
    out_dir, integrator=None, model=None, speeds=SPEEDS, dense=True, start=None, sha="a", departures=True, **changes
):
    stretch = _stretch(integrator)
    plan = {"epochs": 4, "dense_window": DenseWindow(1, 2) if dense else None, "save_trajectories": (0, 1)}
    plan["frames_before_break"] = 3
    centers = BOND_LENGTHS.bin_centers
    vacf = VACF(max_lag_fs=4.0)
    dynamical = {"vacf": Compared(vacf, torch.zeros(5).double(), torch.arange(5.0))} if dense else {}
    out_dir.mkdir(parents=True, exist_ok=True)
    return Evaluation(
        model or WEAK,
        stretch,
        start or _start(stretch, speeds),
        {BOND_LENGTHS.name: Compared(BOND_LENGTHS, torch.zeros(len(centers)).double(), centers)},
        dynamical,
        Plan(**(plan | changes)),
        out_dir,
        torch.Generator().manual_seed(8),
        sha,
        _departures(len(speeds)) if departures else None,
    )


def _alone(integrator=None, n_steps=48, every=4):
    """All replicas to the end, whether they break or not."""
    stretch = _stretch(integrator)
    long = Stretch(stretch.system, stretch.integrator, n_steps, every, stretch.criteria)
    return long.run(WEAK, _start(stretch), torch.Generator().manual_seed(8))


def test_stable_time_is_that_of_the_last_stable_frame(tmp_path):
    evaluation = _evaluation(tmp_path)
    evaluation.run(SilentWriter())
    first = _alone().verdict.first_frame
    assert evaluation.stable_frames.tolist() == first.tolist()
    assert evaluation.stable_ps.tolist() == pytest.approx([0.5 * 4 * n / 1000 for n in first.tolist()])
    assert evaluation.broken.tolist() == [False, True, False, True]
    assert evaluation.reasons == ["stable", "bond_length_deviation"] * 2
    assert evaluation.stable_frames[1] == 0 < evaluation.stable_frames[3]
    assert evaluation.epoch == 4


def test_means_are_over_stable_frames_alone(tmp_path):
    evaluation = _evaluation(tmp_path)
    evaluation.run(SilentWriter())
    outcome = _alone()
    means = evaluation.structural_means()[BOND_LENGTHS.name]
    for replica, first in enumerate(outcome.verdict.first_frame.tolist()):
        expected = BOND_LENGTHS(water(), outcome.trajectory)[:first, replica].mean(0)
        torch.testing.assert_close(means[replica], expected, rtol=1e-9, atol=1e-12, equal_nan=True)


def test_a_dense_window_changes_nothing_but_dynamics(tmp_path):
    dense, plain = _evaluation(tmp_path / "dense"), _evaluation(tmp_path / "plain", dense=False)
    for evaluation in (dense, plain):
        evaluation.run(SilentWriter())
    assert torch.equal(dense.stable_frames, plain.stable_frames)
    assert dense.reasons == plain.reasons
    assert same_bits(dense.structural_means(), plain.structural_means())
    assert plain.dynamical_values() == {}


def test_dynamics_of_the_dense_window(tmp_path):
    evaluation = _evaluation(tmp_path)
    evaluation.run(SilentWriter())
    values = evaluation.dynamical_values()["vacf"]
    assert torch.isfinite(values).all(-1).tolist() == [True, False, True, False]
    expected = VACF(max_lag_fs=4.0)(water(), _alone(n_steps=12, every=2).trajectory)
    torch.testing.assert_close(values[[0, 2]], expected[[0, 2]])


def test_a_window_longer_than_the_run_is_the_run(tmp_path):
    long = DenseWindow(20, 2)
    evaluation = _evaluation(tmp_path, epochs=1, dense_window=long)
    evaluation.run(SilentWriter())
    values = evaluation.dynamical_values()["vacf"]
    expected = VACF(max_lag_fs=4.0)(water(), _alone(n_steps=12, every=2).trajectory)
    torch.testing.assert_close(values[[0, 2]], expected[[0, 2]])


def test_two_force_fields_start_from_the_same_conditions(tmp_path):
    stiff = Springs(WEAK.stiffness.detach() * 1.1)
    first, second = _evaluation(tmp_path / "a"), _evaluation(tmp_path / "b", model=stiff)
    assert torch.equal(first.state.positions, second.state.positions)
    assert torch.equal(first.state.velocities, second.state.velocities)


def test_replicas_that_leave_do_not_move_the_others(tmp_path):
    evaluation = _evaluation(tmp_path)
    evaluation.run(SilentWriter())
    torch.testing.assert_close(evaluation.state.positions[[0, 2]], _alone().state.positions[[0, 2]], rtol=0, atol=1e-12)


def test_a_replica_that_is_nan_leaves_the_others_as_they_are(tmp_path):
    start = _start(_stretch())
    positions = start.positions.clone()
    positions[1] = torch.nan
    spoiled = _stretch().begin(WEAK, positions, start.velocities)
    evaluation, clean = _evaluation(tmp_path / "a", start=spoiled), _evaluation(tmp_path / "b")
    for each in (evaluation, clean):
        each.run(SilentWriter())
    assert evaluation.reasons[1] == "non_finite"
    assert evaluation.stable_frames[1] == 0
    others = [0, 2, 3]
    assert torch.equal(evaluation.stable_frames[others], clean.stable_frames[others])
    assert same_bits(
        evaluation.structural_means()[BOND_LENGTHS.name][others], clean.structural_means()[BOND_LENGTHS.name][others]
    )


def test_it_ends_early_when_enough_have_broken(tmp_path):
    evaluation = _evaluation(tmp_path, end_when_unstable=0.5)
    evaluation.run(SilentWriter())
    assert evaluation.epoch == 1


@pytest.mark.parametrize("nowhere", [False, True])
def test_all_replicas_may_break_at_once(tmp_path, nowhere):
    start = _start(_stretch(), [0.3, 2.0])
    if nowhere:
        start = _stretch().begin(WEAK, torch.full_like(start.positions, torch.nan), start.velocities)
    window = DenseWindow(3, 2)  # longer than anybody lives
    evaluation = _evaluation(tmp_path, speeds=[0.3, 2.0], start=start, dense_window=window)
    evaluation.run(SilentWriter())
    assert evaluation.broken.all()
    assert evaluation.epoch == 1
    errors = {"energy_mae_meV": float("nan"), "force_mae_meV_per_A": 2.0}
    results = metrics.final_metrics(evaluation, errors, "post", 300.0)
    files.write_json(tmp_path / "final_metrics.json", results)
    metrics.save_arrays(tmp_path, evaluation)
    report.draw(tmp_path, {"x": read_results(tmp_path)})
    read = json.loads((tmp_path / "final_metrics.json").read_text())
    assert read["fraction_stable_to_end"] == 0
    assert read["energy_mae_meV"] is read["vacf_mae"] is None
    assert tables.table({"x": read})
    if nowhere:
        assert read["stable_time_mean_ps"] == read["stable_time_mean_ps_high"] == 0
        assert read["bond_length_distribution_mae"] is None
        assert read["reasons_unstable"] == {"non_finite": 2}


def test_resuming_is_bit_identical(tmp_path):
    integrator, n_epochs = LangevinBAOAB(0.5, 300.0, 10.0), 4
    whole = _evaluation(tmp_path / "whole", integrator)
    whole.run(SilentWriter())
    for stop in range(1, n_epochs):
        folder = tmp_path / f"stopped_{stop}"
        _evaluation(folder, integrator, epochs=stop).run(SilentWriter())
        resumed = _evaluation(folder, integrator)
        resumed.resume_from(folder / "state.pt")
        assert resumed.epoch == stop
        resumed.run(SilentWriter())
        assert same_bits(resumed.state_dict(), whole.state_dict())
        assert same_bits(resumed.dynamical_values(), whole.dynamical_values())
        for path in (tmp_path / "whole" / "trajectories").glob("*.gsd"):
            assert (folder / "trajectories" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", FORMATS)
def test_a_killed_evaluation_has_the_trajectories_of_an_uninterrupted_one(tmp_path, name):
    """Killed between its last frames and its state, and in the middle of a frame of a trajectory file."""
    integrator, files = LangevinBAOAB(0.5, 300.0, 10.0), FileSettings(name)
    _evaluation(tmp_path / "whole", integrator, files=files).run(SilentWriter())
    folder = tmp_path / "killed"
    _evaluation(folder, integrator, epochs=2, files=files).run(SilentWriter())
    state = (folder / "state.pt").read_bytes()
    _evaluation(folder, integrator, epochs=3, files=files).run(SilentWriter())
    (folder / "state.pt").write_bytes(state)  # the frames of the third stretch are there, its state is not
    for path in (folder / "trajectories").glob("[!b]*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    resumed = _evaluation(folder, integrator, files=files)
    resumed.resume_from(folder / "state.pt")
    assert resumed.epoch == 2
    resumed.run(SilentWriter())
    expected = {path.name: path for path in (tmp_path / "whole" / "trajectories").iterdir()}
    rewritten = {path for path in expected if not path.startswith("break")}  # breaks are written when they happen
    assert rewritten >= {f"replica0000.{name}", f"stable_replica0000.{name}"}
    assert {path.name for path in (folder / "trajectories").iterdir()} == set(expected)
    for path in rewritten:
        found, original = folder / "trajectories" / path, expected[path]
        if name == "h5md" and path.endswith("h5md"):  # HDF5 files have times of their own
            one, other = (read_trajectory(file) for file in (found, original))
            assert torch.equal(one.trajectory.positions, other.trajectory.positions)
            assert torch.equal(one.trajectory.velocities, other.trajectory.velocities)
            assert one.times_ps.tolist() == other.times_ps.tolist()
        elif not path.endswith(".pdb"):
            assert found.read_bytes() == original.read_bytes()
    times = read_trajectory(folder / "trajectories" / f"replica0000.{name}").times_ps
    np.testing.assert_allclose(times, 0.002 * np.arange(1, 13), atol=1e-8)  # each frame once


def test_what_a_stretch_writes_does_not_grow_with_the_time_simulated(tmp_path):
    sizes = []
    for epochs in (3, 12):
        _evaluation(tmp_path / str(epochs), epochs=epochs, speeds=[0.02] * 4).run(SilentWriter())
        sizes.append((tmp_path / str(epochs) / "state.pt").stat().st_size)
    assert sizes[1] <= 1.05 * sizes[0]


def test_departures_are_those_of_the_whole_trajectories(tmp_path):
    evaluation = _evaluation(tmp_path)
    evaluation.run(SilentWriter())
    outcome, alone = _alone(), _departures(len(SPEEDS))
    alone.follow(torch.arange(len(SPEEDS)), outcome.trajectory, outcome.verdict.first_frame)
    assert torch.equal(evaluation.departures.frames_before, alone.frames_before)
    assert evaluation.departures.coordinates == alone.coordinates
    assert evaluation.departures.departed.tolist() == [False, True, True, True], "one of them does not break"
    assert (evaluation.departure_ps <= evaluation.stable_ps).all()
    assert (evaluation.departure_ps < evaluation.stable_ps).any(), "it is earlier than the break"


def test_departures_change_nothing_else(tmp_path):
    followed, plain = _evaluation(tmp_path / "a"), _evaluation(tmp_path / "b", departures=False)
    for evaluation in (followed, plain):
        evaluation.run(SilentWriter())
    assert same_bits(followed.structural_means(), plain.structural_means())
    assert torch.equal(followed.stable_frames, plain.stable_frames)
    assert plain.departure_ps is None
    results = metrics.final_metrics(plain, ERRORS, "post", 300.0)
    assert not [key for key in results if key.startswith("departure")]
    assert {ending.get("departed_by") for ending in results["endings"]} == {None}


def test_a_state_saved_without_departures_goes_on_without(tmp_path, caplog):
    _evaluation(tmp_path, epochs=1, departures=False).run(SilentWriter())
    resumed = _evaluation(tmp_path)
    resumed.resume_from(tmp_path / "state.pt")
    assert "without departures" in caplog.text
    resumed.run(SilentWriter())
    assert resumed.departure_ps is None


def test_other_departures_are_not_continued(tmp_path):
    _evaluation(tmp_path, epochs=1).run(SilentWriter())
    other = _evaluation(tmp_path)
    other.departures.sustained_frames = 7
    with pytest.raises(CheckpointError, match=r"departures\.sustained_frames: expected 7, found 3"):
        other.resume_from(tmp_path / "state.pt")


def test_what_happened_to_each_replica_is_in_the_results(tmp_path):
    evaluation = _evaluation(tmp_path)
    evaluation.run(SilentWriter())
    results = metrics.final_metrics(evaluation, ERRORS, "post", 300.0, {"name": "langevin", "friction_per_ps": 0.5})
    files.write_json(tmp_path / "final_metrics.json", results)
    metrics.save_arrays(tmp_path, evaluation)
    read = json.loads((tmp_path / "final_metrics.json").read_text())
    assert read == results
    stable_ps, departure_ps = evaluation.stable_ps.tolist(), evaluation.departure_ps.tolist()
    names = evaluation.departures.coordinates
    assert [ending["replica"] for ending in read["endings"]] == [1, 2, 3]
    for ending in read["endings"]:
        replica = ending["replica"]
        assert ending["departure_time_ps"] == departure_ps[replica]
        assert ending["departed_by"] == names[replica]
        assert ending.get("broke_by", STABLE) == evaluation.reasons[replica]
        assert ending.get("stable_time_ps", stable_ps[replica]) == stable_ps[replica]
    assert sum(read["departed_by"].values()) == 3
    assert read["fraction_never_departed"] == 0.25
    assert read["departure_time_mean_ps"] == pytest.approx(np.mean(departure_ps))
    exposure_ns = sum(stable_ps) / 1000
    assert read["break_rate_per_ns"] == pytest.approx(2 / exposure_ns)
    assert read["break_rate_per_ns_low"] < read["break_rate_per_ns"] < read["break_rate_per_ns_high"]
    assert read["thermostat"]["friction_per_ps"] == 0.5 and read["timestep_fs"] == 0.5
    found = read_results(tmp_path)
    assert found.departures is not None
    assert found.departures[0].times.tolist() == departure_ps
    assert found.departures[0].broken.tolist() == [False, True, True, True]


def test_a_state_of_another_force_field_is_refused(tmp_path):
    _evaluation(tmp_path, epochs=1).run(SilentWriter())
    with pytest.raises(CheckpointError, match=r"another force field.*--overwrite"):
        _evaluation(tmp_path, sha="b").resume_from(tmp_path / "state.pt")


def test_trajectories_are_written(tmp_path):
    _evaluation(tmp_path, frames_before_break=2).run(SilentWriter())
    outcome = _alone()
    names = sorted(path.name for path in (tmp_path / "trajectories").iterdir())
    first = outcome.verdict.first_frame.tolist()
    expected = ["break_replica0001.gsd", "break_replica0003.gsd", "replica0000.gsd"]
    assert names == expected + (["replica0001.gsd"] if first[1] else []) + ["stable_replica0000.gsd"]
    stored = read_trajectory(tmp_path / "trajectories" / "replica0000.gsd")
    system, whole = stored.system, stored.trajectory
    np.testing.assert_allclose(stored.times_ps, 0.002 * np.arange(1, whole.n_frames + 1), rtol=1e-12)
    assert system.atomic_numbers.tolist() == [8, 1, 1]
    assert whole.frame_interval_fs == 2.0
    torch.testing.assert_close(whole.positions[:, 0], outcome.trajectory.positions[:, 0], rtol=0, atol=1e-6)
    before = read_trajectory(tmp_path / "trajectories" / "break_replica0003.gsd").trajectory
    until = outcome.trajectory.positions[: first[3] + 1, 3][-2:]
    torch.testing.assert_close(before.positions[:, 0], until, rtol=0, atol=1e-6)


def test_results_are_json_with_units(tmp_path):
    evaluation = _evaluation(tmp_path)
    evaluation.run(SilentWriter())
    results = metrics.final_metrics(evaluation, ERRORS, "post", 300.0)
    files.write_json(tmp_path / "final_metrics.json", results)
    read = json.loads((tmp_path / "final_metrics.json").read_text())
    assert read == results
    assert {
        "temperature_K",
        "horizon_ps",
        "stable_time_mean_ps",
        "stable_time_mean_ps_low",
        "stable_time_median_ps",
        "fraction_stable_to_end",
        "bond_length_distribution_mae",
        "vacf_mae",
        "energy_mae_meV",
        "force_mae_meV_per_A",
    } <= read.keys()
    assert read["horizon_ps"] == pytest.approx(0.024)
    assert read["fraction_stable_to_end"] == 0.5
    assert read["reasons_unstable"] == {"bond_length_deviation": 2}
    stable_ps = evaluation.stable_ps.numpy()
    assert read["stable_time_mean_ps"] == pytest.approx(np.mean(stable_ps)), "nobody was lost before the end"
